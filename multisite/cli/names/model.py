"""`multisite.model`: what loaders of other packages are given."""

from __future__ import annotations

from multisite.config.model import Home, Site, SiteFile

__all__ = ["Home", "Site", "SiteFile"]
