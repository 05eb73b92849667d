"""How many threads the WSGI server gives this process, and how it calls applications, where that can be known."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from multisite.sites.placement import MANY, Calls
from multisite.sites.worker import find_worker

_WAITRESS = "waitress-"


def calls(environ: dict[str, Any]) -> Calls:
    """Return what a request tells of its server (PEP 3333, ``wsgi.multithread`` and ``wsgi.multiprocess``)."""
    at_once = (_count() or MANY) if environ.get("wsgi.multithread") else 1
    return Calls(at_once, bool(environ.get("wsgi.multiprocess")))


def of_this_server() -> Threads | None:
    """Return the threads that answer requests in this process; None where there is one, or nobody knows how many."""
    global _known
    if _known is None or _known[0] != os.getpid():
        count = _count()
        _known = (os.getpid(), Threads(count) if count > 1 else None)
    return _known[1]


_known: tuple[int, Threads | None] | None = None


def _count() -> int:
    if _is_green():
        return 0  # a greenlet that waits holds nothing
    worker = find_worker()
    if worker:
        return worker.threads
    return _mod_wsgi() or _uwsgi() or _waitress() or _granian()


def _is_green() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_module_patched("threading"))


def _mod_wsgi() -> int:
    module = sys.modules.get("mod_wsgi")  # Apache's embedded one, there in each of its processes
    return int(getattr(module, "threads_per_process", 0) or 0)


def _uwsgi() -> int:
    options = getattr(sys.modules.get("uwsgi"), "opt", {})
    value = options.get("threads", options.get(b"threads", 0))
    return int(value) if isinstance(value, bytes | str | int) else 0


def _waitress() -> int:
    return sum(thread.name.startswith(_WAITRESS) for thread in threading.enumerate())


def _granian() -> int:
    """Return what its command line says; its threads are not Python's, and its workers know no number."""
    arguments = sys.argv
    for at, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--blocking-threads":
            value = value or (arguments[at + 1] if at + 1 < len(arguments) else "")
            return int(value) if value.isdigit() else 0
    return int(os.environ.get("GRANIAN_BLOCKING_THREADS", "0") or 0)


class Threads:
    """The threads of one server process, and how many of them wait for sites."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.held = 0
        self.reserve = max(1, count // 4)
        self.changed = threading.Condition()
