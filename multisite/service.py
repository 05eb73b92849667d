"""The WSGI callable for every server: ``gunicorn multisite.service:application``.

Importing this reads nothing and starts nothing. The home is opened by the first request;
one that cannot be used is answered with 503 until it can.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from multisite.dispatcher import Dispatcher
from multisite.live import LiveHome
from multisite.placement import CAN_SPAWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from multisite.model import Home, Site


def _elsewhere(site: Site, home: Home) -> Callable[..., Iterable[bytes]]:
    """Serve a site in processes of its own, or from its upstreams."""
    from multisite import spawned  # a worker without such sites never loads the relay

    return spawned.app(site, home)


class Service(Dispatcher):
    """All sites of one home.

    Args:
        home: its directory; None for the one that the environment names
            (``MOYA_SERVICE_HOME``, else ``/etc/moya``, else ``./etc-moya``).
        debug: show tracebacks on error pages (also by ``MULTISITE_DEBUG=1``); for development only.
    """

    def __init__(self, home: str | None = None, debug: bool | None = None) -> None:
        if debug is None:
            debug = os.environ.get("MULTISITE_DEBUG", "") == "1"
        super().__init__(LiveHome(home), elsewhere=_elsewhere if CAN_SPAWN else None, debug=debug)
        self._examines = not debug and os.environ.get("MULTISITE_EXAMINE", "") != "no"


application = Service()
