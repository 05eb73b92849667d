"""The WSGI callable for every server: ``gunicorn multisite.service:application``.

Importing this reads nothing and starts nothing. The home is opened by the first request;
one that cannot be used is answered with 503 until it can.
"""

from __future__ import annotations

import os

from multisite import spawned
from multisite.dispatcher import Dispatcher
from multisite.live import LiveHome


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
        super().__init__(LiveHome(home), elsewhere=spawned.app if spawned.is_possible() else None, debug=debug)


application = Service()
