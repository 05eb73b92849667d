"""The WSGI callable for every server: ``gunicorn multisite.service:application``.

Importing this reads nothing and starts nothing. The first request opens the home; if the home cannot be used,
every request is answered with 503 until it can.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from multisite.config.sections import RouterOptions
from multisite.config.serving import development
from multisite.dispatch.dispatcher import Dispatcher
from multisite.logs import kept
from multisite.sites.live import LiveHome
from multisite.sites.placement import CAN_SPAWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from multisite.config.model import Home, Site
    from multisite.sites.catalogue import Catalogue


def _elsewhere(site: Site, home: Home) -> Callable[..., Iterable[bytes]]:
    """Serve a site in its own processes, or from its upstreams."""
    from multisite.proxy import elsewhere  # a worker without such sites never loads the relay

    return elsewhere.app(site, home, development.from_environ(os.environ))


def _router_of(home: Home, former: Any, sites: Dispatcher) -> Any:
    """Return the router for hosts that belong to no site; a home without nodes never loads it."""
    if home.router == RouterOptions():
        return None
    from multisite.router.router import router_of

    return router_of(home, former, sites)


def _pages_of(home: Home, live: LiveHome) -> Any:
    """Return the status pages of a home; a worker without requests for them never loads them."""
    from multisite.dispatch.statushost import administrators
    from multisite.status.opening import page_of

    def catalogue() -> Catalogue:
        assert live.catalogue
        return live.catalogue

    return page_of(home, catalogue, administrators(home))


def _wake(home: Home) -> None:
    """Make sure that the supervisor runs; it starts the sites that should run before anyone asks for them."""
    from multisite.control.client import wake
    from multisite.sites.server import head_limits

    wake(home, head_limits())


class Service(Dispatcher):
    """All sites of one home.

    Args:
        home: its directory; None for the one that the environment names
            (``MOYA_SERVICE_HOME``, else ``/etc/moya``, else ``./etc-moya``).
        debug: show tracebacks on error pages (also by ``MULTISITE_DEBUG=1``); for development only.
    """

    def __init__(self, home: str | None = None, debug: bool | None = None) -> None:
        how = development.from_environ(os.environ)
        if debug is not None:
            how = replace(how, debug=debug)
        live = LiveHome(home)
        super().__init__(
            live,
            elsewhere=_elsewhere if CAN_SPAWN else None,
            router_of=lambda home, former: _router_of(home, former, self),
            pages_of=lambda home: _pages_of(home, live),
            development=how,
        )

    def _open(self) -> None:
        super()._open()
        assert self._catalogue
        home = self._catalogue.home
        default = home.defaults.get("warm")
        files = (entry.file for entry in self._catalogue.entries.values())
        is_warm = any(file.values.get("service", {}).get("warm", default) not in (None, "never") for file in files)
        if home.router.subscription_server or home.router.stats or home.cluster.url or (self._elsewhere and is_warm):
            _wake(home)


kept.watch_streams()
# The method rather than the instance: calling the instance costs a request 0.07 µs more.
application: Callable[..., Iterable[bytes]] = Service().__call__
if development.from_environ(os.environ).lines:
    from multisite.dispatch.watched import watched

    application = watched(application)
