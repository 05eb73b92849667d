"""Files that are served without the application: ``[static]`` of a site."""

from multisite.static.files import StaticFiles

__all__ = ["StaticFiles"]
