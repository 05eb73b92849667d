"""From the job to the backend, and the ways it may end.

Exit statuses, which a site's own code may use as well: 0 when asked, or after `max_requests`; 2 not started by the
supervisor; 3 the site's app cannot be loaded; 4 a request hung, 1 if the interpreter could not even report it
(`hangs`); 5 the site has closed our descriptors (`accept`).
"""

from __future__ import annotations

import os
import stat
import sys
import threading

from . import gunicorn_setup, job
from .follow import Follower
from .load import is_asgi, load
from .missing import NoSuchApp, no_module
from .report import Notifier, report, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .examine import Examination


PRELOAD = "MULTISITE_PRELOAD"
NOT_STARTED_BY_US = 2
NOT_LOADED = 3
LEAVE_WITHIN = 5.0  # seconds for exit handlers and for the site's own threads, when all requests are answered


def main() -> None:
    """Load the app and serve it."""
    if PRELOAD in os.environ:
        from .preload import preload

        preload()  # returns in the processes that it forks, which are as if they had just been started
    try:
        orders = job.take_job(os.environ)
    except job.BadJob as error:
        say(f"MS611 multisite runner: {error}")
        sys.exit(NOT_STARTED_BY_US)
    notifier = Notifier(orders.notify)
    app, examination = _load(orders, notifier)
    backend = _backend(app, orders, notifier)
    backend.run(Follower(orders, notifier, examination) if orders.learn or examination else None)
    notifier.leaves()
    timer = threading.Timer(LEAVE_WITHIN, os._exit, (0,))  # a thread of the site may run for ever
    timer.daemon = True
    timer.start()
    sys.exit(0)


def _load(orders: job.Job, notifier: Notifier) -> tuple[Any, Examination | None]:
    """Return the app, and what its import has changed; if there is none, report the reason and end the process."""
    if orders.spec.kind != "asgi" and orders.worker != "asgi":
        from . import wsgi  # noqa: F401  now, since the site may patch what it uses (gevent.monkey)
    if orders.location and orders.location not in sys.path:
        sys.path.insert(0, orders.location)
    gunicorn_setup.inject(orders.gunicorn, gunicorn_setup.FOR_WSGI)
    try:
        notifier.status("loading")
        examination = None
        if orders.examine:
            from .examine import Examination

            examination = Examination(orders.location)
        app = load(orders)
        if examination:
            examination.loaded(_is_async(app, orders))
    except NoSuchApp as error:
        _give_up(orders, notifier, _problem(orders, error))
    except BaseException as error:
        last = report(error, f"MS612 {orders.name} cannot be loaded")
        if isinstance(error, ModuleNotFoundError) and error.name:
            _give_up(orders, notifier, _problem(orders, _no_module(orders, error)))
        _leave_unloaded(notifier, last)
    _open_standard_streams()
    if not _is_socket(orders.listen):
        _give_up(orders, notifier, "its import closes or replaces descriptors that it did not open")
    return app, examination


def _problem(orders: job.Job, error: NoSuchApp) -> str:
    """What is wrong, and which line of the site's file asks for it."""
    value = orders.location if error.key == "location" else orders.application
    line = f" ({orders.file}: [service] {error.key} = {value})" if orders.file else ""
    return f"{error.reason}{line}{f'; {error.remedy}' if error.remedy else ''}"


def _no_module(orders: job.Job, error: ModuleNotFoundError) -> NoSuchApp:
    """Return the message for a module that was not found, with the line of the site that imports it."""
    place, trace = "", error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if orders.location and path.startswith(os.path.join(orders.location, "")):
            place = f" ({path}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return no_module(orders.name, error.name or "", orders.spec, orders.location, sys.executable, place)


def _open_standard_streams() -> None:
    """Open standard streams that are closed: otherwise a file of ours would take their numbers, and get the log."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _give_up(orders: job.Job, notifier: Notifier, reason: str) -> NoReturn:
    say(f"MS613 {orders.name}: {reason}")
    _leave_unloaded(notifier, reason)


def _leave_unloaded(notifier: Notifier, reason: str) -> NoReturn:
    notifier.failed(reason)
    os._exit(NOT_LOADED)  # threads that the site has started must not keep it


def _backend(app: Any, orders: job.Job, notifier: Notifier) -> Any:
    if not _is_async(app, orders):
        from . import wsgi

        if orders.pin:
            from .debugger import debugged

            say(f"{orders.name}: debugger PIN {orders.pin}")
            app = debugged(app, orders.pin, orders.processes == 1)
        return wsgi.WsgiServer(app, orders, notifier)
    if orders.pin:
        say(f"{orders.name}: an ASGI application has no debugger here; its framework has its own debug mode")
    gunicorn_setup.inject(orders.gunicorn, gunicorn_setup.FOR_ASGI)
    try:
        from . import asgi
    except ImportError as error:
        _give_up(orders, notifier, f"an ASGI application needs gunicorn 27 or newer beside multisite ({error})")
    return asgi.AsgiServer(app, orders, notifier)


def _is_async(app: Any, orders: job.Job) -> bool:
    return orders.worker == "asgi" or (orders.worker == "auto" and (orders.spec.kind == "asgi" or is_asgi(app)))
