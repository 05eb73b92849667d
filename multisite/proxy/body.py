"""The body of a request on its way to a backend.

`Served` is read from the server, and `read` waits for it. `Arriving` is read from the client's own connection as it
comes, and never waits: the request can begin before any of it is there.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from multisite.errors import BackendUnavailable, BadRequest, BodyTooLarge, ClientDisconnected, TooSlow
from multisite.proxy.wire.framing import ChunkedRequest

PIECE = 65536  # bytes read at once
IN_MEMORY = 1 << 20  # bytes of a body without a length that are kept in memory
IN_ALL = 1 << 30  # and on disk
SILENCE = 60.0  # seconds within which something has to arrive; nginx's client_body_timeout
GRACE = 20.0  # seconds that a body may take whatever its rate
LONGEST_LENGTH = 18  # digits; int() refuses thousands of them


class Unmeasured(Exception):
    """The length of the body has to be sent first, and not all of it is there (see `Arriving.gather`)."""


class Upload:
    """A body; this one is there, and not larger than one piece.

    Attributes:
        first: the part sent together with the head; it is kept, so that another endpoint can be tried as long as
            nothing was sent.
        length: of the body in bytes; None if the request gives none.
        in_chunks: the body has no length, and marks its own end.
        has_more: `read` may return something, or find the end.
        arrives: what `read` returns comes from the client's connection, and may not be there yet.
    """

    __slots__ = ("arrives", "first", "has_more", "in_chunks", "length")

    def __init__(self, first: bytes, length: int | None) -> None:
        self.first = first
        self.length = length
        self.in_chunks = self.has_more = self.arrives = False

    def read(self) -> bytes:
        """Return the next piece; b"" at the end, or if nothing has arrived.

        Raises:
            ClientDisconnected: the body ends too early.
            BadRequest: it is framed wrongly.
        """
        return b""

    def measure(self) -> None:
        """Find out the length, for a protocol that has to send it first.

        Raises:
            Unmeasured: the body is still arriving.
            BodyTooLarge: it is larger than may be kept.
        """

    def check(self, unread: int) -> None:
        """Look whether one that sends no more has sent everything.

        Args:
            unread: bytes that came and were not read.

        Raises:
            ClientDisconnected: no.
        """

    def close(self) -> None:
        """Forget what was kept; the rest of the body is left unread."""


class _Received(Upload):
    """A body that is received a piece at a time, and can be kept until its length is known."""

    __slots__ = ("_left", "_spool")

    def __init__(self, length: int | None, in_chunks: bool) -> None:
        super().__init__(b"", length)
        self.in_chunks = in_chunks
        self.has_more = in_chunks or bool(length)
        self._left = length or 0  # bytes that are still to be received of a body with a length
        self._spool: Any = None

    def _receive(self) -> bytes:
        raise NotImplementedError

    def read(self) -> bytes:
        """Return the next piece."""
        if not self.has_more:
            return b""
        if self._spool is None:
            return self._receive()
        piece: bytes = self._spool.read(PIECE)
        self._left -= len(piece)
        self.has_more = self._left > 0
        return piece

    def _keep(self, piece: bytes) -> None:
        if self._spool is None:
            self._spool = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  `close` closes it
        try:
            self._spool.write(piece)
        except OSError as error:
            raise BackendUnavailable(f"cannot keep the body of a request: {error.strerror}") from error
        if self._spool.tell() > IN_ALL:
            raise BodyTooLarge("The request body has no length and is too large to be kept")

    def _measured(self) -> None:
        """Continue with the part that was kept, which is all."""
        self.in_chunks = self.arrives = False
        self.length = self._left = self._spool.tell()
        self._spool.seek(0)
        self.has_more = True
        self.first = self.read()

    def close(self) -> None:
        """Forget what was kept; the rest of the body is left unread."""
        if self._spool is not None:
            self._spool.close()


class Served(_Received):
    """A body as the server gives it; the first piece is read at once, before a backend is needed.

    Raises:
        BadRequest: the length is no number.
        ClientDisconnected: the body is not all there.
    """

    __slots__ = ("_read",)

    def __init__(self, environ: Mapping[str, Any]) -> None:
        length = length_of(environ)
        super().__init__(length, length is None and _ends_by_itself(environ))
        self._read = environ["wsgi.input"].read
        self.first = self.read()
        while self._left and len(self.first) < PIECE:  # some servers return what has arrived
            self.first += self.read()
        self.in_chunks = self.in_chunks and bool(self.first)  # over HTTP/2 nothing says that there is no body

    def _receive(self) -> bytes:
        try:
            piece: bytes = self._read(PIECE if self.in_chunks else min(PIECE, self._left))
        except OSError as error:  # mod_wsgi, uWSGI and gunicorn say it so
            raise ClientDisconnected("The request ended before its body was complete") from error
        except Exception as error:  # gunicorn's, of chunks that are none
            raise BadRequest("The body of the request cannot be read") from error
        if self.in_chunks:
            self.has_more = bool(piece)
        elif not piece:
            raise _cut(self._left)
        else:
            self._left -= len(piece)
            self.has_more = self._left > 0
        return piece

    def measure(self) -> None:
        """Take in the whole body if its length is not known."""
        if self.in_chunks:
            self._keep(self.first)
            while self.has_more:
                self._keep(self._receive())
            self._measured()


class Arriving(_Received):
    """A body that may not have arrived completely, on a client's connection that nobody else reads any more.

    Args:
        connection: descriptor of the connection, which never waits and stays the caller's.
        length: as the request says.
        rate: bytes a second at least (see `Tempo`).
    """

    __slots__ = ("_chunks", "_connection", "_tempo")

    def __init__(self, connection: int, length: int | None, rate: float) -> None:
        super().__init__(length, length is None)
        self.arrives = True
        self._connection = connection
        self._tempo = Tempo(rate)
        self._chunks = ChunkedRequest() if length is None else None

    def begin(self, ahead: bytes) -> None:
        """Take what was read of the connection after the head.

        Raises:
            BadRequest: it is framed wrongly.
        """
        self.first = self._content(ahead)

    def check(self, unread: int) -> None:
        """Look whether the rest of the body may be there; of chunks only reading them can tell."""
        if unread < self._left:
            raise _cut(self._left - unread)

    def _receive(self) -> bytes:
        try:
            data = os.read(self._connection, PIECE if self.in_chunks else min(PIECE, self._left))
        except BlockingIOError:
            return b""
        except OSError as error:
            raise ClientDisconnected("The client left before its request was complete") from error
        if not data:
            raise _cut(self._left)
        self._tempo.came(len(data), time.monotonic())
        return self._content(data)

    def _content(self, data: bytes) -> bytes:
        """Return what of the body is in `data`; what comes after its end is nobody's."""
        if self._chunks:
            data = self._chunks.feed(data)
            self.has_more = not self._chunks.done
            return data
        data = data[: self._left]
        self._left -= len(data)
        self.has_more = self._left > 0
        return data

    def deadline(self, now: float) -> float:
        """Return by when it has to send something, in monotonic seconds; the waiting begins now, or continues."""
        return self._tempo.deadline(now)

    def late(self) -> TooSlow:
        """Return the error for one that let its time pass."""
        return TooSlow(f"The request came too slowly: {self._tempo}")

    def measure(self) -> None:
        """Have it gathered if its length is not known."""
        if self.in_chunks:
            raise Unmeasured

    def gather(self) -> bool:
        """Take in what has come; tell whether that was the rest, so that `measure` has nothing more to do."""
        if self._spool is None:
            self._keep(self.first)
        while self.has_more:
            piece = self._receive()
            if not piece and self.has_more:
                return False
            self._keep(piece)
        self._measured()
        return True


def length_of(environ: Mapping[str, Any]) -> int | None:
    """Return the length of a request's body in bytes, None where the request says none.

    Raises:
        BadRequest: it is no number.
    """
    text = environ.get("CONTENT_LENGTH", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > LONGEST_LENGTH:  # int() would take "+1" and "1_0" too
        raise BadRequest("The Content-Length of the request is not a number")
    return int(text)


def _cut(left: int) -> ClientDisconnected:
    where = f"{left} bytes before its Content-Length" if left else "before its last chunk"
    return ClientDisconnected(f"The request ended {where}")


def _ends_by_itself(environ: Mapping[str, Any]) -> bool:
    """Tell whether the server marks the end of a body without a length.

    An HTTP/1 request has such a body only if it says so (RFC 9112 section 6.3); HTTP/2 has another sign.
    """
    said = "HTTP_TRANSFER_ENCODING" in environ or not environ.get("SERVER_PROTOCOL", "HTTP/1").startswith("HTTP/1")
    return said and bool(environ.get("wsgi.input_terminated"))


class Tempo:
    """How slow a client may be with the body of its request.

    Only the time in which we wait for the client counts; a client that the site delays is not slow.

    Args:
        rate: bytes a second that have to come, all in all; 0 for any number.
    """

    __slots__ = ("_rate", "_received", "_since", "_waited")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._received = 0
        self._waited = 0.0
        self._since: float | None = None

    def deadline(self, now: float) -> float:
        """Begin to wait, or continue; return the monotonic seconds by which something has to arrive."""
        if self._since is None:
            self._since = now
        if not self._rate:
            return self._since + SILENCE
        return self._since + min(SILENCE, GRACE + self._received / self._rate - self._waited)

    def came(self, size: int, now: float) -> None:
        """Note that so many bytes came, and wait no more."""
        self._received += size
        if self._since is not None:
            self._waited += now - self._since
            self._since = None

    def __str__(self) -> str:
        return f"{self._received} bytes of the request's body arrived in {self._waited:.0f} s"
