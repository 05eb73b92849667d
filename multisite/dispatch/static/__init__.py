"""Files that are served without the application: ``[static]`` of a site."""

from __future__ import annotations

from multisite.dispatch.static.files import StaticFiles

__all__ = ["StaticFiles"]
