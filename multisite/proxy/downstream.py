"""The client's connection, if the server lets us have it.

gunicorn puts the socket of the client into the environ. Code that takes it can answer later, from another thread, while
the worker serves the next request. gunicorn then needs something that it can close: the sync worker accepts a closed
socket; the gthread worker calls methods that fail on a closed one, and would count the connection twice, so it gets the
end of a dead socket pair under its own descriptor. `Ended`, raised out of the callable, ends the request in either (a
StopIteration, which both treat as the end of a connection).

What gunicorn has read ahead of the request's body is taken with the connection, and the rest of the body is read from
it. That goes for a body that has not all come: waiting for it is no thread's job. One that has is read by gunicorn,
which then knows where the next request begins.

We do not take a TLS socket, whose keys gunicorn has; HTTP/2, where the connection carries several requests; the uwsgi
protocol; gevent's sockets, where a greenlet may wait as long as it likes anyway.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import socket
import sys
import termios
from typing import Any, NoReturn

from multisite.sites.server import Worker, dead_end, find_worker

Environ = dict[str, Any]

_AT_ONCE = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

SMALL = 65536  # bytes of a body that gunicorn reads if they have come
_DIGITS = 5

PROTOCOLS = ("HTTP/1.0", "HTTP/1.1")


class Connection:
    """The connection of one client, which has sent its request and waits.

    Attributes:
        worker: whose it is.
        said_last: the client has announced that it sends no other request here.
        ends: no other request would be answered here, whoever answers this one.
    """

    __slots__ = ("_sock", "_unreader", "ends", "said_last", "worker")

    def __init__(self, sock: socket.socket, worker: Worker, said_last: bool, unreader: Any = None) -> None:
        self._sock = sock
        self._unreader = unreader
        self.worker = worker
        self.said_last = said_last
        self.ends = said_last or worker.is_single

    def take_descriptor(self) -> int:
        """Return the connection as our own descriptor; gunicorn does not have it any more.

        Raises:
            OSError: no descriptor is left; nothing has changed.
        """
        sock = self._sock
        if self.worker.is_single:
            return sock.detach()
        dead = dead_end()
        ours = os.dup(sock.fileno())
        os.dup2(dead, sock.fileno(), inheritable=False)
        return ours

    def body(self, environ: Environ) -> bytes | None:
        """Return the whole body of the request if it is there and small; else read it from the connection later."""
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
        """Return the part of the body that gunicorn has read, for the taker of the connection."""
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

    def send(self, data: bytes, taken: int = -1) -> int:
        """Send what the client takes of `data` without waiting; return how much that was.

        Args:
            data: the bytes.
            taken: the descriptor, if it has been taken.
        """
        sock = self._sock if taken < 0 else self.opened(taken)
        try:
            return sock.send(data, _AT_ONCE)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # it left; nobody can be told
        finally:
            if taken >= 0:
                sock.detach()

    def close(self) -> None:
        """Close it at once, so that the client need not be waited for."""
        if self.worker.is_single:
            self._sock.close()
        else:
            os.dup2(dead_end(), self._sock.fileno(), inheritable=False)


class Ended(StopIteration):
    """Raised out of the WSGI callable: the connection has been handled."""


def end() -> NoReturn:
    """Make gunicorn forget a request whose connection it does not have any more."""
    raise Ended


def connection(environ: Environ) -> Connection | None:
    """Return the client's connection if it can be taken."""
    sock = environ.get("gunicorn.socket")
    if sock is None or type(sock).__module__ != "socket":  # gevent's classes are elsewhere, TLS is in ssl
        return None
    if environ["SERVER_PROTOCOL"] not in PROTOCOLS:
        return None
    worker = find_worker()
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


def nobody() -> socket.socket:
    """Return a connection with nobody at the other end, to be closed in place of one that was taken.

    Raises:
        OSError: no descriptor is left.
    """
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=os.dup(dead_end()))


def flush(sock: socket.socket, data: bytes | memoryview) -> bytes | memoryview:
    """Send what is taken of `data` without waiting; return the rest.

    Raises:
        OSError: the other side has left; nobody can be told.
    """
    while data:
        try:
            sent = sock.send(data, _AT_ONCE)
        except BlockingIOError:
            break
        data = memoryview(data)[sent:] if sent < len(data) else b""
    return data


def unread(descriptor: int) -> int:
    """Return how many bytes have come on a connection that nobody has read (tcp(7), unix(7))."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


def has_left(sock: socket.socket) -> bool:
    """Tell whether the client has closed its sending side, which may mean that it has gone."""
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno in (errno.ECONNRESET, errno.ENOTCONN)
