"""A small Django project: one page, and the admin."""
