"""The listening socket and its connections, which know how long they have waited and for whom.

A request that makes no progress for too long is the site's fault or the peer's. While a connection waits for its
peer, its own limit bounds it and costs no more than the connection; all other time is the site's, and the `Watchdog`
looks at `RequestConnection.since`. System calls are tried without waiting first, so that a quick exchange sets no
timers.

A site may replace functions of the standard library by its own, which run its greenlets while they wait (gevent,
eventlet). If it has, we wait with its `select.select` as well: its greenlets keep running between two requests, as
under gunicorn's sync worker. So this module has to be imported before the site.
"""

from __future__ import annotations

import _thread
import errno
import os
import select
import socket
import struct
import sys
from time import monotonic

from .forks import leave_if_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from _typeshed import ReadableBuffer


FOREVER = float("inf")
HEAD_LIMIT = 10.0  # seconds that a connection may stay silent before its request
LINGER = 2.0  # seconds to wait for the peer to close, where it may still send a body that nobody reads
RECEIVE = 16384

_recv = socket.socket.recv
_recvmsg = socket.socket.recvmsg
_send = socket.socket.send
_sendall = socket.socket.sendall
# Plain numbers: the operators of an IntFlag would take a tenth of the time of a small request.
_DONTWAIT = int(socket.MSG_DONTWAIT)
_PEEK = int(socket.MSG_PEEK)
ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
ONE_DESCRIPTOR = socket.CMSG_LEN(4)  # the kernel closes what does not fit
_SELECT, _START = select.select, _thread.start_new_thread


def descriptor_in(ancillary: list[Any]) -> int:
    """The descriptor that came with a message (`ONE_DESCRIPTOR` at most), or -1."""
    return int.from_bytes(ancillary[0][2], sys.byteorder) if ancillary else -1


class ListeningSocket(socket.socket):
    """The inherited listening socket; it never waits."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(fileno=descriptor)
        self.setblocking(False)
        self._kind = (self.family, self.type, self.proto)

    def accept(self) -> tuple[RequestConnection, Any]:
        """The next connection and its address.

        Raises:
            BlockingIOError: there is none.
        """
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        return RequestConnection(*self._kind, fileno=descriptor), address


class RequestConnection(socket.socket):
    """One connection, for one request.

    Attributes:
        since: when the site last made progress with the request; `FOREVER` while we wait for the peer.
        limit: seconds to wait for the peer at a time, 0 for ever.
        environ: the request, once it is known.
        ahead: what has been received and not yet read.
        gone: the peer left, or was too slow, before all was read or written.
        failed: the site's answer is an error.
        status: of the answer, 0 as long as there is none.
        place: where it is shown as being in flight (`board.Flights`), -1 where it is not; None: not yet.
        received, sent: bytes of the bodies of the request and its answer.
        is_taken: it belongs to the site from now on (a WebSocket).
        taken_at: when the request was taken, in nanoseconds of the monotonic clock; begun_at: that of `WsgiAnswer`.
    """

    __slots__ = (
        "_limited",
        "ahead",
        "begun_at",
        "environ",
        "failed",
        "gone",
        "is_taken",
        "limit",
        "place",
        "received",
        "sent",
        "since",
        "status",
        "taken_at",
    )

    def __init__(self, family: int, kind: int, proto: int, fileno: int) -> None:
        super().__init__(family, kind, proto, fileno)
        self.since = monotonic()
        self.limit = HEAD_LIMIT
        self.environ: Mapping[str, Any] = {}
        self.ahead = b""
        self.gone = self.failed = self.is_taken = False
        self.received = self.sent = self.status = self.taken_at = self.begun_at = 0
        self.place: int | None = None
        self._limited = -1.0

    def first(self) -> tuple[bytes, int]:
        """Return the first bytes, and the descriptor that comes with them (unix(7)), or -1.

        Raises:
            OSError: as of `recv`.
        """
        try:
            data, ancillary, _, _ = _recvmsg(self, RECEIVE, ONE_DESCRIPTOR, _DONTWAIT | ON_EXEC)
        except BlockingIOError:
            data, ancillary, _, _ = self._later(_recvmsg, RECEIVE, ONE_DESCRIPTOR, ON_EXEC)
        except OSError:
            self.gone = True
            raise
        return data, descriptor_in(ancillary)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Up to `size` bytes.

        Raises:
            TimeoutError: the peer sent nothing within the limit.
            OSError: it is gone.
        """
        if self.ahead:
            data = self.ahead[:size]
            if not flags & _PEEK:
                self.ahead = self.ahead[size:]
            return data
        try:
            data = _recv(self, size, flags | _DONTWAIT)
        except BlockingIOError:
            data = self._later(_recv, size, flags)
        except OSError:
            self.gone = True
            raise
        return data

    def _later(self, receive: Any, *arguments: int) -> Any:
        try:
            self._wait(reads=self)
            return receive(self, *arguments)
        except BlockingIOError as error:
            raise self._too_slow("sent", error) from None
        except OSError:
            self.gone = True
            raise
        finally:
            self._go_on()

    def become(self, descriptor: int) -> None:
        """Become the connection of `descriptor`, which is ours, and close the old one."""
        os.dup2(descriptor, self.fileno(), inheritable=False)
        os.close(descriptor)

    @property
    def has_more(self) -> bool:
        """Whether the peer has sent something that nobody read."""
        try:
            return bool(_recv(self, 1, _PEEK | _DONTWAIT))
        except OSError:
            return False

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Send all of `data`.

        Raises:
            TimeoutError: the peer took nothing within the limit.
            OSError: it is gone.
        """
        leave_if_child()
        view = memoryview(data)
        try:
            sent = _send(self, view, flags | _DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.gone = True
            raise
        if sent < len(view):
            self._send_later(view[sent:], flags)
        else:
            self._go_on()

    def _send_later(self, view: memoryview, flags: int) -> None:
        try:
            self._wait(writes=self)
            while waits_are_the_sites():
                view = view[_send(self, view, flags | _DONTWAIT) :]
                if not view:
                    break
                self._wait(writes=self)
            if view:
                _sendall(self, view, flags)
        except BlockingIOError as error:
            raise self._too_slow("took", error) from None
        except OSError:
            self.gone = True
            raise
        finally:
            self._go_on()

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """As of `socket.socket`, within the limit."""
        leave_if_child()
        self.since = FOREVER
        try:
            self.settimeout(self.limit or None)
            sent = super().sendfile(file, offset, count)
        except OSError:
            self.gone = True
            raise
        finally:
            self._go_on()
            self.settimeout(None)
        return sent

    def cut(self) -> None:
        """End with a reset: the only sign that an answer which ends with its connection is incomplete."""
        self.gone = True
        self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))

    def hang_up(self) -> None:
        """End it for all descriptors: a thread that is receiving would keep it open."""
        try:
            self.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def linger(self) -> None:
        """Signal that the answer is complete, and wait until the peer has read it.

        Closing with bytes unread would reset the connection, and the answer might be lost with it.
        """
        if self.gone:
            return
        try:
            self.shutdown(socket.SHUT_WR)
            self.limit = LINGER
            deadline = monotonic() + LINGER
            while monotonic() < deadline and self.recv(65536):
                pass
        except OSError:
            pass

    def be_taken(self) -> None:
        """Leave it to the site, which may take as long as it likes."""
        self.is_taken, self.since = True, FOREVER

    def forget_limits(self) -> None:
        """Remove the system's time limits, for another socket on the same connection."""
        if self._limited >= 0:
            self._limited = -1.0
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", 0, 0))

    def _wait(self, **ready: RequestConnection) -> None:
        """Start waiting for the peer; if the site has replaced our waits, wait here with what it has.

        Raises:
            BlockingIOError: the site's wait was in vain.
        """
        self.since = FOREVER
        if waits_are_the_sites():
            if not wait_as_the_site_does(**ready, seconds=self.limit):
                raise BlockingIOError
            return
        if self._limited != self.limit and self.gettimeout() is None:
            self._limited = self.limit
            os.set_blocking(self.fileno(), True)  # one handed over is as the process wanted it that had it
            whole = int(self.limit)
            interval = struct.pack("@ll", whole, int((self.limit - whole) * 1_000_000))
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
            self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)

    def _go_on(self) -> None:
        """Stop waiting for the peer, whatever the result, and start waiting for the site."""
        self.since = FOREVER if self.is_taken else monotonic()

    def _too_slow(self, did: str, error: OSError) -> OSError:
        if self.gettimeout() == 0:
            return error  # an app that took the socket over has made it so
        self.gone = True
        return TimeoutError(errno.ETIMEDOUT, f"the peer {did} nothing for {self.limit:g} s")

    def __str__(self) -> str:
        """Return what it serves, for the log."""
        environ = self.environ
        host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME", "")
        target = environ.get("RAW_URI") or environ.get("PATH_INFO", "")
        return f"{environ.get('REQUEST_METHOD', 'request')} {host}{target}"


def waits_are_the_sites() -> bool:
    """Return whether the site has replaced `select.select`."""
    return select.select is not _SELECT


def threads_are_the_sites() -> bool:
    """Return whether the site has replaced threads: by greenlets, which would wait for each other.

    An examination, which only observes, starts a real thread all the same.
    """
    start = _thread.start_new_thread
    return getattr(start, "__wrapped__", start) is not _START


def wait_as_the_site_does(reads: Any = None, writes: Any = None, seconds: float = 0) -> bool:
    """Wait with the site's own `select.select` until one of them is ready; return whether one is.

    Args:
        reads, writes: objects whose descriptors are to be read from, or written to.
        seconds: at most; 0 for ever.
    """
    to_read, to_write = ([each.fileno()] if each is not None else [] for each in (reads, writes))
    ready = select.select(to_read, to_write, [], seconds or None)
    return bool(ready[0] or ready[1])
