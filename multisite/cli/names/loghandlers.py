"""`multisite.loghandlers`: log handlers as ``logging.ini`` names them."""

from __future__ import annotations

from multisite.logs.loghandlers import LocalSysLogHandler, ReopeningFileHandler, SitePrefixFormatter

__all__ = ["LocalSysLogHandler", "ReopeningFileHandler", "SitePrefixFormatter"]
