"""From the job to the backend, and the ways it may end.

Exit statuses: 0 asked to, or after `max_requests`; 2 not started as the supervisor does; 3 the site's app cannot be
loaded; 4 a request hung, 1 so badly that the interpreter could not even say so (`watchdog`).
"""

from __future__ import annotations

import os
import sys
import threading

from . import injected, job
from .apps import is_asgi
from .load import NotLoaded, load, prefer
from .notify import Notifier
from .report import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

NOT_STARTED_BY_US = 2
NOT_LOADED = 3
LEAVE_WITHIN = 5.0  # seconds for exit handlers and for the site's own threads, when all requests are answered


def main() -> None:
    """Load the app and serve it."""
    try:
        orders = job.take(os.environ)
    except job.BadJob as error:
        print(f"multisite runner: {error}", file=sys.stderr)
        sys.exit(NOT_STARTED_BY_US)
    notifier = Notifier(orders.notify)
    app = _load(orders, notifier)
    backend = _backend(app, orders, notifier)
    backend.run()
    _leave()


def _load(orders: job.Job, notifier: Notifier) -> Any:
    """The app; without one, the reason is told and the process ends."""
    prefer(orders.location)
    injected.inject(orders.gunicorn, injected.FOR_WSGI)
    try:
        notifier.status("loading")
        return load(orders)
    except NotLoaded as error:
        _give_up(orders, notifier, str(error))
    except BaseException as error:
        _leave_unloaded(notifier, report(error, f"{orders.name} cannot be loaded"))


def _give_up(orders: job.Job, notifier: Notifier, reason: str) -> NoReturn:
    print(f"{orders.name}: {reason}", file=sys.stderr, flush=True)
    _leave_unloaded(notifier, reason)


def _leave_unloaded(notifier: Notifier, reason: str) -> NoReturn:
    notifier.status(reason)
    os._exit(NOT_LOADED)  # threads that the site has started must not keep it


def _backend(app: Any, orders: job.Job, notifier: Notifier) -> Any:
    is_async = orders.worker == "asgi" or (orders.worker == "auto" and (orders.spec.kind == "asgi" or is_asgi(app)))
    if not is_async:
        from . import wsgi

        return wsgi.Backend(app, orders, notifier)
    injected.inject(orders.gunicorn, injected.FOR_ASGI)
    try:
        from . import asgi
    except ImportError as error:
        _give_up(orders, notifier, f"an ASGI application needs gunicorn 27 or newer beside multisite ({error})")
    return asgi.Backend(app, orders, notifier)


def _leave() -> None:
    """Exit as Python does, but not later than `LEAVE_WITHIN`: a thread of the site may go on for ever."""
    timer = threading.Timer(LEAVE_WITHIN, os._exit, (0,))
    timer.daemon = True
    timer.start()
    sys.exit(0)
