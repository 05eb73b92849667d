"""The access log of a site: one line for each of its requests."""

from multisite.access.log import AccessLog, Visit

__all__ = ["AccessLog", "Visit"]
