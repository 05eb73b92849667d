"""The body of a request, read from the server a piece at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from multisite.errors import BackendUnavailable, BadRequest, BodyTooLarge, ClientDisconnected

PIECE = 65536  # bytes read at once
IN_MEMORY = 1 << 20  # bytes of a body without a length that are kept in memory
IN_ALL = 1 << 30  # and on disk
LONGEST_LENGTH = 18  # digits; int() refuses thousands of them


class Upload:
    """What of a request's body is still to be sent.

    The first piece is read at once, before any backend is asked for: a client that is slow with a small body keeps
    nobody busy. It stays, so that another endpoint can be tried as long as nothing was sent.

    Attributes:
        first: the first piece, b"" where the request has no body.
        length: of the body in bytes; None where the request says none.
        chunked: whether the body ends where the server says so, rather than after `length`.

    Raises:
        BadRequest: the length is no number.
        ClientDisconnected: the body is not all there.
    """

    __slots__ = ("_left", "_read", "_spool", "chunked", "first", "length")

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._read: Callable[[int], bytes] = environ["wsgi.input"].read
        self._spool: Any = None
        self.length = _length(environ.get("CONTENT_LENGTH", ""))
        self.chunked = self.length is None and _ends_by_itself(environ)
        self._left = self.length or 0
        self.first = self.read()
        while self._left and len(self.first) < PIECE:  # some servers return what has arrived
            self.first += self.read()

    @property
    def has_more(self) -> bool:
        """Tell whether `read` may return something."""
        return self._left > 0 or self.chunked

    def read(self) -> bytes:
        """Return the next piece, b"" at the end."""
        if not self._left and not self.chunked:
            return b""
        try:
            piece = self._read(PIECE if self.chunked else min(PIECE, self._left))
        except OSError as error:  # mod_wsgi, uWSGI and gunicorn say it so
            raise ClientDisconnected("The request ended before its body was whole") from error
        if self.chunked:
            self.chunked = bool(piece)
        elif not piece:
            raise ClientDisconnected(f"The request ended {self._left} bytes before its Content-Length")
        else:
            self._left -= len(piece)
        return piece

    def measure(self) -> None:
        """Take the whole body in if its length is not known, for a protocol that has to say it first.

        Raises:
            BodyTooLarge: it is larger than may be kept.
        """
        if not self.chunked:
            return
        spool = self._spooled(self.first)
        if self.chunked:
            raise BodyTooLarge("The request body has no length and is too large to be kept")
        self.length = self._left = spool.tell()
        spool.seek(0)
        self._read = spool.read
        self.first = self.read()

    def keep(self) -> bool:
        """Take in what is left, so that `read` never waits for the client again.

        Returns:
            False where there is more of it than may be kept; nothing is lost, and `read` waits in the end.
        """
        if not self.has_more or self._spool:
            return True
        if self._left > IN_ALL:
            return False
        without_end, server = self.chunked, self._read
        spool = self._spooled(b"")
        whole = not self.chunked
        self.chunked, self._left = without_end, 0 if without_end else spool.tell()
        spool.seek(0)
        self._read = spool.read if whole else _both(spool.read, server)
        return whole

    def _spooled(self, begun: bytes) -> Any:
        """Return what is left of the body after `begun`, or as much of it as may be kept, in a temporary file."""
        self._spool = spool = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  `close` closes it
        piece = begun
        while True:
            try:
                spool.write(piece)
            except OSError as error:
                raise BackendUnavailable(f"the body of a request cannot be kept: {error.strerror}") from error
            if not self.has_more or spool.tell() > IN_ALL:
                return spool
            piece = self.read()

    def close(self) -> None:
        """Forget what was kept; the rest of the body is left unread."""
        if self._spool:
            self._spool.close()


def _both(first: Callable[[int], bytes], second: Callable[[int], bytes]) -> Callable[[int], bytes]:
    return lambda size: first(size) or second(size)


def _length(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > LONGEST_LENGTH:  # int() would take "+1" and "1_0" too
        raise BadRequest("The Content-Length of the request is no number")
    return int(text)


def _ends_by_itself(environ: Mapping[str, Any]) -> bool:
    """Tell whether the server marks the end of a body without a length.

    An HTTP/1 request has such a body only if it says so (RFC 9112 section 6.3); HTTP/2 has another sign.
    """
    said = "HTTP_TRANSFER_ENCODING" in environ or not environ.get("SERVER_PROTOCOL", "HTTP/1").startswith("HTTP/1")
    return said and bool(environ.get("wsgi.input_terminated"))
