"""Modules whose names users write in their files: each can also be imported as `multisite.NAME`."""
