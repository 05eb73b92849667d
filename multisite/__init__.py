"""multisite: many low-traffic Python sites on one machine, behind one WSGI callable."""

__version__ = "0.1.0"
