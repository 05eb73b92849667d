"""The WSGI server around us, as far as we know it: gunicorn's worker, its threads and their calls of applications."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from multisite.sites.placement import MANY, Calls

Environ = dict[str, Any]

# gunicorn's names of hooks
BETWEEN_REQUESTS, AT_THE_END = ("pre_request", "post_request"), ("worker_int", "worker_abort", "worker_exit")


class Worker:
    """What we know about the gunicorn worker in this process.

    Attributes:
        is_single: it is a sync worker: one thread, which closes each connection after one answer.
        usable: we know how to take a connection from it.
        threads: how many answer requests.
        has_siblings: other workers accept on the same sockets.
        logs_access: it writes an access log, or counts in its place.
        runs_hooks: its threads may run code of the administrator's between two requests.
        grace: seconds that it has for its last requests.
        head_limits: how large the head of a request may be, as its settings say it.
        claims: keys of the fields by which a front end tells it the scheme and more (secure_scheme_headers,
            forwarder_headers).
        is_introduced_to: its peers may say for whom they speak before the request (PROXY protocol).
        recycles: it ends because it has answered as many requests as it may, and nobody waits for its end.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self.pid = os.getpid()
        names = {kind.__name__ for kind in type(worker).__mro__}
        self.is_single = "SyncWorker" in names
        self.usable = (self.is_single or "ThreadWorker" in names) and _speaks_http(worker.cfg)
        self.threads = int(worker.cfg.threads) if "ThreadWorker" in names else 1
        self.has_siblings = worker.cfg.workers > 1
        self.grace = float(worker.cfg.graceful_timeout)
        self.claims = _claims(worker.cfg)
        self.head_limits = {name: int(getattr(worker.cfg, name)) for name in HEAD_LIMITS}
        self.is_introduced_to = str(getattr(worker.cfg, "proxy_protocol", False)) not in ("False", "off")
        log = worker.log
        own = type(log).access.__module__ == "gunicorn.glogging"
        known = self.is_single or "ThreadWorker" in names
        hooks = any(map(self._is_set, BETWEEN_REQUESTS))
        self.runs_hooks = not known or hooks or not type(log).__module__.startswith("gunicorn.")
        self.logs_access = not own or getattr(log, "access_log_enabled", True)

    @property
    def recycles(self) -> bool:
        """Whether it ends by itself, after `max_requests`."""
        return bool(self._worker.nr >= self._worker.max_requests)

    def is_ending(self) -> bool:
        """Tell whether it accepts no more, and ends when its own requests are answered."""
        return not self._worker.alive

    def log_access(self, told: Any, environ: Environ, seconds: float) -> None:
        """Write the line of a request whose answer gunicorn has not seen."""
        from datetime import timedelta

        fields = [(key[5:].replace("_", "-"), value) for key, value in environ.items() if key[:5] == "HTTP_"]
        self._worker.log.access(told, fields, environ, timedelta(seconds=seconds))

    def _is_set(self, hook: str) -> bool:
        setting = self._worker.cfg.settings[hook]
        return setting.get() is not setting.default

    def before_its_end(self, call: Any) -> None:
        """Call `call` before the administrator's hooks that run when the worker ends."""
        for name in filter(self._is_set, AT_THE_END):
            self._worker.cfg.set(name, _after(call, getattr(self._worker.cfg, name), name == "worker_exit"))

    @property
    def deferred(self) -> object:
        """What its `handle` says of a connection that is to wait for its client without a thread; None where none can.

        That is so of the gthread worker of gunicorn 25 and later, for HTTP/1.
        """
        module = sys.modules.get("gunicorn.workers.gthread")
        plain = set(getattr(self._worker.cfg, "http_protocols", ["h1"])) <= {"h1"}
        return getattr(module, "_DEFER", None) if plain and hasattr(self._worker, "pending_conns") else None

    def wrap(self, name: str, around: Callable[..., Any]) -> None:
        """Call `around` instead of one of its methods, with that method before the arguments."""
        setattr(self._worker, name, partial(around, getattr(self._worker, name)))

    def when_interrupted(self, call: Any) -> None:
        """Call `call` when the worker has to end at once."""
        self._worker.cfg.set("worker_int", _after(call, self._worker.cfg.worker_int, has_arbiter=False))

    def when_ending(self, call: Any) -> None:
        """Call `call` when the worker has stopped accepting and its own requests are answered."""
        before = self._worker.cfg.worker_exit

        def hook(arbiter: Any, worker: Any) -> None:
            try:
                call()
            finally:
                before(arbiter, worker)

        self._worker.cfg.set("worker_exit", hook)

    def listeners(self) -> tuple[int, ...]:
        """Return the descriptors of the sockets on which it accepts."""
        return tuple(listener.fileno() for listener in self._worker.sockets)

    def close_listeners(self) -> None:
        """Close the sockets on which it accepted."""
        for listener in self._worker.sockets:
            listener.close()


HEAD_LIMITS = ("limit_request_line", "limit_request_fields", "limit_request_field_size")


def _claims(cfg: Any) -> frozenset[str]:
    names = [*getattr(cfg, "secure_scheme_headers", ()), *getattr(cfg, "forwarder_headers", ())]
    return frozenset("HTTP_" + str(name).upper().replace("-", "_") for name in names)


def _after(call: Any, hook: Any, has_arbiter: bool) -> Any:
    """Return `hook` behind `call`; gunicorn counts its parameters."""

    def of_worker(worker: Any) -> None:
        call()
        hook(worker)

    def of_both(arbiter: Any, worker: Any) -> None:
        call()
        hook(arbiter, worker)

    return of_both if has_arbiter else of_worker


def _speaks_http(cfg: Any) -> bool:
    return str(getattr(cfg, "protocol", "http")) == "http" and not cfg.is_ssl


def find_worker() -> Worker | None:
    """Return the gunicorn worker that this process is; its signal handlers belong to it."""
    global _worker
    if _worker is None:
        owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if not all(hasattr(owner, name) for name in ("cfg", "log", "nr", "max_requests")):
            return None
        worker = Worker(owner)
        if not worker.is_single:
            dead_end()  # which `close` must not have to make when a request has been answered already
        _worker = worker
    return _worker


_worker: Worker | None = None


def head_limits() -> dict[str, int]:
    """Return how large the head of a request may be in this worker, by gunicorn's names; empty where nobody knows."""
    worker = find_worker()
    return worker.head_limits if worker else {}


def _forget() -> None:
    global _worker
    _worker = None


_end: socket.socket | None = None


def dead_end() -> int:
    """Return a descriptor at whose other end nobody is.

    Raises:
        OSError: the first time, no descriptor is left.
    """
    global _end
    if _end is None:
        ours, other = socket.socketpair()
        other.close()
        _end = ours
    return _end.fileno()


os.register_at_fork(after_in_child=_forget)


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
    monkey = sys.modules.get("gevent.monkey")
    if monkey and monkey.is_module_patched("threading"):
        return 0  # a greenlet that waits holds nothing
    worker = find_worker()
    if worker:
        return worker.threads
    return _mod_wsgi() or _uwsgi() or _waitress() or _granian()


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


def site_exits(error: BaseException) -> bool:
    """Distinguish a site's ``sys.exit()`` from a server's own way to end a worker.

    gunicorn raises SystemExit from its signal handlers, in the middle of whatever runs.
    """
    if not isinstance(error, SystemExit):
        return False
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    raised_in = str(trace.tb_frame.f_globals.get("__name__", "")) if trace else ""
    return raised_in.partition(".")[0] not in ("gunicorn", "gevent", "granian", "waitress")
