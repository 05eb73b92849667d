"""What every request of a site passes before its app: static files.

A site that has none of it pays for none of it: its app is called as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from multisite.model import Home, Site
from multisite.sitedir import Entry

WSGI = Callable[..., Iterable[bytes]]

#: who answers for a site: its app in this process, one elsewhere, or a page of ours
IN_PROCESS, SPAWNED, PROXY, STATIC, PAGE = "in-process", "spawned", "proxy", "static", "page"


class Layers:
    """The layers of one site, as its file says."""

    def __init__(self, entry: Entry, site: Site, home: Home) -> None:
        self._files: Callable[..., Iterable[bytes] | None] | None = None
        if site.static and not entry.broken:
            from multisite.static import StaticFiles  # a worker without such sites never loads it

            self._files = StaticFiles(site, home)

    def around(self, app: WSGI) -> WSGI:
        """Return `app` behind the layers."""
        files = self._files
        if files is None:
            return app

        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            body = files(environ, start_response)
            return app(environ, start_response) if body is None else body

        return answer
