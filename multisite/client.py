"""The client's connection, where the server lets us have it.

gunicorn puts the socket of the client into the environ. Whoever takes it can answer later, from another thread, while
the worker goes on to the next request. gunicorn then has to be left with something that it can close: the sync worker
is content with a closed socket; the gthread worker calls methods of it that fail on a closed one, and would count
the connection twice, so it gets the end of a dead socket pair under its own descriptor. `Ended` out of the
callable ends the request in either (a StopIteration, which both take for the end of a connection).

What gunicorn has read ahead of the request's body is taken with the connection, and the rest of the body is read from
it. That goes for a body that has not all come: waiting for it is no thread's job. One that has is read by gunicorn,
which then knows where the next request begins.

Not taken: a TLS socket, whose keys are gunicorn's; HTTP/2, where the connection is not one client's request; the
uwsgi protocol; gevent's sockets, where a greenlet may wait as long as it likes anyhow.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import signal
import socket
import sys
import termios
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

Environ = dict[str, Any]

_AT_ONCE = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

SMALL = 65536  # bytes of a body that gunicorn reads if they have come
_DIGITS = 5

PROTOCOLS = ("HTTP/1.0", "HTTP/1.1")

# gunicorn's names of hooks
BETWEEN_REQUESTS, AT_THE_END = ("pre_request", "post_request"), ("worker_int", "worker_abort", "worker_exit")


class Worker:
    """What we know of the gunicorn worker that this process is.

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
        """Write the line of a request whose answer gunicorn knows nothing of."""
        from datetime import timedelta

        fields = [(key[5:].replace("_", "-"), value) for key, value in environ.items() if key[:5] == "HTTP_"]
        self._worker.log.access(told, fields, environ, timedelta(seconds=seconds))

    def _is_set(self, hook: str) -> bool:
        setting = self._worker.cfg.settings[hook]
        return setting.get() is not setting.default

    def before_its_end(self, call: Any) -> None:
        """Have `call` called before those hooks of the administrator's that run when the worker ends."""
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
        """Have `around` called in place of a method of it, with that method before the arguments."""
        setattr(self._worker, name, partial(around, getattr(self._worker, name)))

    def when_interrupted(self, call: Any) -> None:
        """Have `call` called when the worker is told to end at once."""
        before = self._worker.cfg.worker_int

        def hook(worker: Any) -> None:
            call()
            before(worker)

        self._worker.cfg.set("worker_int", hook)

    def when_ending(self, call: Any) -> None:
        """Have `call` called when the worker has stopped to accept and its own requests are answered."""
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
        """Let go of the sockets on which it accepted."""
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
            _dead()  # which `close` must not have to make when a request has been answered already
        _worker = worker
    return _worker


_worker: Worker | None = None


def _forget() -> None:
    global _worker
    _worker = None


os.register_at_fork(after_in_child=_forget)


class Connection:
    """The connection of one client, which has sent its request and waits.

    Attributes:
        worker: whose it is.
        said_last: the client has said that it sends no other request here.
        ends: none would be answered, whoever answers this one.
    """

    __slots__ = ("_sock", "_unreader", "ends", "said_last", "worker")

    def __init__(self, sock: socket.socket, worker: Worker, said_last: bool, unreader: Any = None) -> None:
        self._sock = sock
        self._unreader = unreader
        self.worker = worker
        self.said_last = said_last
        self.ends = said_last or worker.is_single

    def take(self) -> int:
        """Return the connection as a descriptor of ours; gunicorn has it no more.

        Raises:
            OSError: no descriptor is left; nothing has changed.
        """
        sock = self._sock
        if self.worker.is_single:
            return sock.detach()
        dead = _dead()
        ours = os.dup(sock.fileno())
        os.dup2(dead, sock.fileno(), inheritable=False)
        return ours

    def body(self, environ: Environ) -> bytes | None:
        """Return the whole body of the request if it is there and small; else it is to be read from the connection."""
        if self._unreader is None:
            return b""
        length = environ.get("CONTENT_LENGTH", "")
        if not length.isdecimal() or len(length) > _DIGITS or int(length) > SMALL:
            return None
        size = int(length)
        held = len(self._unreader.buf.getvalue())
        if held < size and held + unread(self._sock.fileno()) < size:
            return None
        body: bytes = environ["wsgi.input"].read(size)
        return body

    def ahead(self) -> bytes:
        """Return what gunicorn has read of the body, for whoever has taken the connection."""
        data: bytes = self._unreader.buf.getvalue()
        return data

    def fileno(self) -> int:
        """Return its descriptor, which stays gunicorn's."""
        return self._sock.fileno()

    def opened(self, descriptor: int) -> socket.socket:
        """Return a socket, which never waits, for what was taken."""
        sock = self._sock
        ours = socket.socket(sock.family, sock.type, sock.proto, fileno=descriptor)
        ours.setblocking(False)
        return ours

    @property
    def has_more(self) -> bool:
        """Whether the client has sent something that nobody has read."""
        return unread(self._sock.fileno()) > 0

    def send(self, data: bytes) -> int:
        """Send what the client takes of `data` without waiting; return how much that was."""
        try:
            return self._sock.send(data, _AT_ONCE)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # it left; nobody can be told

    def close(self) -> None:
        """Close it at once, so that the client need not be waited for."""
        if self.worker.is_single:
            self._sock.close()
        else:
            os.dup2(_dead(), self._sock.fileno(), inheritable=False)


class Ended(StopIteration):
    """Raised out of the WSGI callable: the connection has been taken care of."""


def end() -> NoReturn:
    """Have gunicorn forget a request whose connection it has no more."""
    raise Ended


def connection(environ: Environ) -> Connection | None:
    """Return the client's connection if it can be taken."""
    sock = environ.get("gunicorn.socket")
    if sock is None or type(sock).__module__ != "socket":  # gevent's classes are elsewhere, TLS is in ssl
        return None
    if environ["SERVER_PROTOCOL"] not in PROTOCOLS:
        return None
    worker = _worker or find_worker()
    if worker is None or not worker.usable:
        return None
    unreader = None
    if environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
        unreader = _unreader(environ["wsgi.input"])
        if unreader is None:
            return None
    return Connection(sock, worker, _says_close(environ), unreader)


def unreader(environ: Environ) -> Any:
    """Return where gunicorn receives the body of a request, and keeps what it has read ahead; None elsewhere."""
    found = _unreader(environ["wsgi.input"])
    return found if hasattr(found, "sock") else None


def _unreader(body: Any) -> Any:
    """Return where gunicorn keeps what it has read ahead; None where somebody has put another body in its place."""
    reader = getattr(body, "reader", None)
    unreader = getattr(reader, "unreader", None) or getattr(getattr(reader, "req", None), "unreader", None)
    return unreader if isinstance(getattr(unreader, "buf", None), io.BytesIO) else None


def fields(environ: Environ) -> list[tuple[str, str]]:
    """Return the header fields of a request as they came; none where the server does not let us see them.

    An environ joins what came more than once, and does not tell "_" from "-". gunicorn puts a function into it that
    holds the request.
    """
    hints = environ.get("wsgi.early_hints")
    try:
        request = hints.__closure__[hints.__code__.co_freevars.index("req")].cell_contents  # type: ignore[union-attr]
        found: list[tuple[str, str]] = request.headers
    except (AttributeError, TypeError, ValueError):
        return []
    return found


def _says_close(environ: Environ) -> bool:
    """Tell whether no other request can come on this connection (RFC 9112 section 9.3)."""
    said = environ.get("HTTP_CONNECTION", "").lower()
    if environ["SERVER_PROTOCOL"] == "HTTP/1.0":
        return "keep-alive" not in said
    return said == "close" or "close" in [option.strip() for option in said.split(",")]


_dead_end: socket.socket | None = None


def _dead() -> int:
    """Return a descriptor at whose other end nobody is.

    Raises:
        OSError: the first time, no descriptor is left.
    """
    global _dead_end
    if _dead_end is None:
        ours, other = socket.socketpair()
        other.close()
        _dead_end = ours
    return _dead_end.fileno()


def nobody() -> socket.socket:
    """Return a connection at whose other end nobody is, to be closed in the place of one that is gone.

    Raises:
        OSError: no descriptor is left.
    """
    return socket.socket(socket.AF_UNIX, fileno=os.dup(_dead()))


def unread(descriptor: int) -> int:
    """Return how many bytes have come on a connection that nobody has read (tcp(7), unix(7))."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


def has_left(sock: socket.socket) -> bool:
    """Tell whether the client has said that it sends nothing more, which may mean that it has gone."""
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno in (errno.ECONNRESET, errno.ENOTCONN)
