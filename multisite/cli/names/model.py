"""`multisite.model`: the classes that loaders in other packages get."""

from __future__ import annotations

from multisite.config.model import Home, Site, SiteFile

__all__ = ["Home", "Site", "SiteFile"]
