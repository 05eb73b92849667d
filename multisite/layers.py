"""What every request of a site passes before its app: its access log, then its static files.

A site that has none of it pays for none of it: its app is called as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from multisite import logs
from multisite.model import Home, Site
from multisite.sitedir import Entry

WSGI = Callable[..., Iterable[bytes]]
Environ = dict[str, Any]
Rescue = Callable[[BaseException, Environ, Any], Iterable[bytes]]  # answers for an app that raised, or raises again

#: who answers for a site: its app in this process, one elsewhere, a file, or a page of ours
IN_PROCESS, SPAWNED, PROXY, STATIC, PAGE = "in-process", "spawned", "proxy", "static", "page"

#: where a request that somebody else may end has its `Visit`; who takes it out of the environ calls its `done`
VISIT = "multisite.visit"


class Layers:
    """The layers of one site, as its file says.

    Args:
        rescue: answers for an app that raised; what it raises itself goes on to the server.
    """

    def __init__(self, entry: Entry, site: Site, home: Home, rescue: Rescue | None = None) -> None:
        self._rescue = rescue
        self._how = PAGE
        self._files: Callable[..., Iterable[bytes] | None] | None = None
        self._begin: Callable[..., Any] | None = None
        if site.static and not entry.broken:
            from multisite.static import StaticFiles  # a worker without such sites never loads it

            self._files = StaticFiles(site, home)
        if site.access_log:
            from multisite.access import AccessLog

            try:
                self._begin = AccessLog(site, home).begin
            except (OSError, ValueError) as fault:
                logs.tell_once(site, "access", site.access_log, fault)

    def around(self, app: WSGI, how: str = PAGE) -> WSGI:
        """Return `app` behind the layers; `how` is who it is."""
        self._how = how
        behind = self._with_files(app) if self._files else app
        return behind

    def _with_files(self, app: WSGI) -> WSGI:
        files = self._files
        assert files

        def answer(environ: Environ, start_response: Any) -> Iterable[bytes]:
            body = files(environ, start_response)
            return app(environ, start_response) if body is None else body

        return answer
