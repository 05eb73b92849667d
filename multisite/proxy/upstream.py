"""The socket to an endpoint: connect, send and receive, each within its time.

Sockets never block; `select.poll` waits for them, and is looked up when it is used because gevent replaces it.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import math
import os
import select
import socket
import termios
import time
from collections.abc import Sequence
from typing import Any

from multisite.config.endpoint import Endpoint
from multisite.errors import (
    SCARCE,
    BackendUnavailable,
    ConnectFailed,
    ConnectTimeout,
    MultisiteError,
    NoAnswer,
    UpstreamError,
    UpstreamTimeout,
)
from multisite.proxy.body import Upload
from multisite.proxy.wire.framing import LAST_CHUNK, chunk
from multisite.proxy.wire.responses import Incoming

PIECE = 65536  # bytes received at once

_NONBLOCKING = socket.SOCK_STREAM | socket.SOCK_NONBLOCK  # at no further system call
_NOSIGNAL = int(socket.MSG_NOSIGNAL)  # the operators of an IntFlag are slow
_IN, _OUT = 1, 4  # select.POLLIN and POLLOUT, the same on every Linux


def connect(endpoint: Endpoint, timeout: float) -> socket.socket:
    """Return a socket connected to `endpoint`, which never blocks.

    Args:
        endpoint: whom to connect to.
        timeout: seconds for all its addresses together.

    Raises:
        ConnectFailed: nobody listens there.
        BackendUnavailable: somebody does, and as many requests wait as may.
    """
    return _connect_unix(endpoint) if endpoint.path else _connect_any(endpoint, timeout)


def begin(endpoint: Endpoint, timeout: float, first: bytes) -> tuple[socket.socket, int]:
    """Connect to `endpoint` and send what it takes of `first` at once.

    Both in one, since the connection alone wakes the endpoint already, which should find something to read.

    Returns:
        the socket, and how many bytes were sent.

    Raises:
        ConnectFailed: as `connect`; or it was gone before a byte could be sent.
        BackendUnavailable: as `connect`.
    """
    sock = connect(endpoint, timeout)
    try:
        return sock, sock.send(first, _NOSIGNAL)
    except BlockingIOError:
        return sock, 0
    except OSError as error:
        sock.close()
        if error.errno in SCARCE:
            raise _unreached(endpoint, error) from error
        raise ConnectFailed(f"the connection was closed before it was used: {error.strerror}") from error


def _connect_any(endpoint: Endpoint, timeout: float) -> socket.socket:
    """Connect to the first address of a host that answers."""
    deadline = time.monotonic() + timeout
    found: Sequence[Any] = _numeric(endpoint.host, endpoint.port)
    if not found:
        try:
            found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ConnectFailed(f"{endpoint}: {error.strerror}") from error
    failure: MultisiteError | None = None
    for family, _type, _protocol, _name, address in found:
        try:
            return _connect_tcp(family, address, deadline)
        except OSError as error:
            failure = _unreached(endpoint, error)
            if error.errno in SCARCE:
                raise failure from error
    raise failure or ConnectFailed(f"{endpoint}: no address")


@functools.lru_cache(maxsize=4096)
def _numeric(host: str, port: int) -> Sequence[Any]:
    """Return what `socket.getaddrinfo` says of a host that is an address; nothing for a name, which may move."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return ()


def _unreached(endpoint: Endpoint, error: OSError) -> MultisiteError:
    """Return what an error of a connection means: the endpoint is not to blame if this machine lacks something."""
    if error.errno in SCARCE:
        return BackendUnavailable(f"{endpoint}: {error.strerror}")
    kind = ConnectTimeout if error.errno == errno.ETIMEDOUT else ConnectFailed
    return kind(f"{endpoint}: {error.strerror or error}")


class Exchange:
    """One request being sent and its answer being received, in whatever order the endpoint wants.

    An endpoint may answer before it took the whole request, and may need its answer taken before it reads on.
    So what is left of the body is sent between two parts of the answer.

    Attributes:
        upload: the body of the request, ours.
        sending: not all of the request was sent yet.
        sent_at: monotonic seconds when something of the request was last sent.
        deadline: monotonic seconds by which the next sign of life is due.
        patience: seconds that an endpoint has once it has taken the request; 0 for no limit.
        limited_by: the option with this value.
        timeout: the time that was last allowed, in seconds.
        held: objects that end with the exchange.
        was_reset: whether the answer ended by an error of the connection rather than a close.
    """

    __slots__ = (
        *("_out", "_sock"),
        *("deadline", "held", "limited_by", "patience", "sending", "sent_at", "timeout", "upload", "was_reset"),
    )

    def __init__(
        self,
        endpoint: Endpoint,
        connect_timeout: float,
        head: bytes,
        upload: Upload,
        timeout: float,
        patience: float | None = None,
        limited_by: str = "request_timeout",
    ) -> None:
        """Connect, and send the head and the first piece of the body.

        Args:
            endpoint: who is to answer.
            connect_timeout: seconds to reach it.
            head: of the request.
            upload: its body, ours unless we raise.
            timeout: seconds between two signs of life while the request is sent, and from then to an answer; 0 for
                no limit.
            patience: as the attribute; None for the same as `timeout`.
            limited_by: as the attribute.

        Raises:
            ConnectFailed, BackendUnavailable: as `begin`; nothing was sent.
        """
        self.upload = upload
        self.held: object = None
        out = head + self._framed(upload.first)
        self._sock, sent = begin(endpoint, connect_timeout, out)
        self.sent_at = now = time.monotonic()
        self._out: bytes | memoryview = memoryview(out)[sent:] if sent < len(out) else b""
        self.sending = bool(self._out) or upload.has_more
        self.was_reset = False
        self.timeout = timeout
        self.patience = timeout if patience is None else patience
        self.limited_by = limited_by
        self.deadline = now + timeout if timeout else math.inf

    def fileno(self) -> int:
        """Return the descriptor, for those who wait for many."""
        return self._sock.fileno()

    @property
    def connection(self) -> socket.socket:
        """The connection; it stays ours."""
        return self._sock

    def allow(self, timeout: float) -> None:
        """Give the endpoint `timeout` seconds from now on."""
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout if timeout else math.inf

    def taken(self) -> None:
        """Note that the endpoint has taken the request: from now on its time counts."""
        self.allow(self.patience)

    def explain(self, error: MultisiteError) -> MultisiteError:
        """Return what happened: an endpoint that closes without an answer when its time is over has hung."""
        since = time.monotonic() - self.sent_at
        if isinstance(error, NoAnswer) and 0 < self.patience <= since:
            return UpstreamTimeout(f"{error} after {since:.1f} s ({self._limit})")
        return error

    def receive(self, incoming: Incoming) -> bytes:
        """Wait for the next part of the answer; return the content in it, b"" where there is none.

        Raises:
            UpstreamTimeout: the time that was allowed is over.
            ClientDisconnected, BadRequest: as `Upload.read`.
            MultisiteError: as `collect`.
        """
        while self.sending and not self._wait(_IN | _OUT) & ~_OUT:
            self.push()
        if not self.sending:
            self._wait(_IN)
        return self.collect(incoming) or b""

    def wait(self, seconds: float) -> bool:
        """Wait so long for something of the answer; tell whether there is."""
        poll = select.poll()
        poll.register(self._sock, _IN)
        return bool(poll.poll(seconds * 1000))

    @property
    def has_body(self) -> bool:
        """Whether the request has a body, which the endpoint may not want."""
        return bool(self.upload.first) or self.upload.has_more

    @property
    def waits_for_client(self) -> bool:
        """Whether nothing of the request can be sent until more of its body has come."""
        return self.sending and not self._out and self.upload.arrives

    def push(self) -> None:
        """Send what the endpoint takes of the request just now, one piece at most.

        Raises:
            UpstreamError: the connection is of no use any more.
            ClientDisconnected, BadRequest: as `Upload.read`.
        """
        out = self._out or self._framed(self.upload.read())
        if not out:
            self.sending = self.upload.has_more
            return
        try:
            sent = self._sock.send(out, _NOSIGNAL)
        except BlockingIOError:
            self._out = out
            return
        except ConnectionError:  # it wants no more; what it has to say can still be received
            self.sending = False
            return
        except OSError as error:
            raise UpstreamError(f"cannot send the rest of the request: {error.strerror}") from error
        self._out = memoryview(out)[sent:] if sent < len(out) else b""
        self.sending = bool(self._out) or self.upload.has_more
        self.sent_at = now = time.monotonic()
        self.deadline = now + self.timeout if self.timeout else math.inf

    def collect(self, incoming: Incoming) -> bytes | None:
        """Take what has arrived of the answer, at most 64 KiB; return the content in it, None if nothing has arrived.

        Raises:
            UpstreamError: it cannot be received, though the endpoint has ended nothing; or as `Incoming.take_data`.
        """
        try:
            data = self._sock.recv(PIECE)
        except BlockingIOError:
            return None
        except ConnectionError:
            self.was_reset = True
            data = b""
        except OSError as error:
            raise UpstreamError(f"cannot receive the answer: {error.strerror}") from error
        return incoming.take_data(data, self.was_reset)

    def is_taken(self) -> bool:
        """Tell whether the endpoint has read what was sent; of a unix socket only the kernel knows (unix(7))."""
        if self._sock.family != socket.AF_UNIX:
            return True
        try:
            left = fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            return True
        return not any(left)

    def detach(self) -> socket.socket:
        """Return the connection, which is the caller's from now on."""
        self.upload.close()
        return self._sock

    def close(self) -> None:
        """Free the endpoint, which may be in the middle of its answer."""
        self._sock.close()
        self.upload.close()

    def _framed(self, piece: bytes) -> bytes:
        """Return a piece of the body as it is sent, with the end of the body if that is known now."""
        upload = self.upload
        if not upload.in_chunks:
            return piece
        out = chunk(piece) if piece else b""
        return out if upload.has_more else out + LAST_CHUNK

    def _wait(self, events: int) -> int:
        left = self.deadline - time.monotonic()
        poll = select.poll()
        poll.register(self._sock, events)
        ready = poll.poll(None if left == math.inf else max(0, math.ceil(left * 1000)))
        if not ready:
            raise self.late()
        return ready[0][1]

    def late(self) -> UpstreamTimeout:
        """Return the error for an endpoint that let its time pass."""
        is_limit = self.timeout == self.patience
        return UpstreamTimeout(f"nothing arrived for {self.timeout:g} s" + (f" ({self._limit})" if is_limit else ""))

    @property
    def _limit(self) -> str:
        return f"{self.limited_by} = {self.patience:g}s"


def _connect_unix(endpoint: Endpoint) -> socket.socket:
    try:
        sock = _new(socket.AF_UNIX)
    except OSError as error:  # no descriptor is left
        raise BackendUnavailable(f"{endpoint}: {error.strerror}") from error
    try:
        sock.connect(endpoint.path)
    except BlockingIOError:
        sock.close()
        raise BackendUnavailable(f"{endpoint}: its queue is full") from None
    except OSError as error:
        sock.close()
        raise _unreached(endpoint, error) from error
    return sock


def _connect_tcp(family: int, address: object, deadline: float) -> socket.socket:
    sock = _new(family)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address)  # type: ignore[arg-type]
        if code == errno.EINPROGRESS:  # on this machine it is done by now, which asking again tells (connect(2))
            code = sock.connect_ex(address)  # type: ignore[arg-type]
        if code == errno.EALREADY:
            poll = select.poll()
            poll.register(sock, _OUT)
            if not poll.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000))):
                code = errno.ETIMEDOUT
            else:
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def _new(family: int) -> socket.socket:
    sock = socket.socket(family, _NONBLOCKING)
    if sock.gettimeout() != 0:  # a socket of gevent's
        sock.setblocking(False)
    return sock
