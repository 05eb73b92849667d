"""Where a message body ends (RFC 9112 section 6): one class for each kind of framing.

`feed` takes the bytes as they come and returns those of the content; `done` is true when it is complete; call `end`
when no more will come.
"""

from __future__ import annotations

import re
from typing import Protocol

from multisite.errors import BadRequest, MultisiteError, UpstreamProtocolError

LAST_CHUNK = b"0\r\n\r\n"
LONGEST_LINE = 4096  # bytes of a chunk's size with its extensions
MOST_TRAILERS = 65536  # bytes of fields after the last chunk

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
# RFC 9112 section 7.1.1, with token and quoted-string of RFC 9110 section 5.6
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb"[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_STRICT_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:" + _EXTENSION + rb")*")
_TRAILER = re.compile(_TOKEN + rb":[\t\x20-\x7e\x80-\xff]*")
#: of these a trailer would say something else than the head did (RFC 9110 section 6.5.1)
_NO_TRAILERS = frozenset({b"host", b"content-length", b"transfer-encoding", b"trailer", b"authorization", b"te"})


class Body(Protocol):
    """What the three have in common."""

    done: bool

    def feed(self, data: bytes) -> bytes:
        """Return the content that is in `data`.

        Raises:
            UpstreamProtocolError: it is framed wrongly.
        """

    def end(self, reset: bool) -> None:
        """Take note that the connection was closed, or reset.

        Raises:
            UpstreamProtocolError: that is not the end of the body.
        """


class Sized:
    """A body of a length that is known before."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = not length

    def feed(self, data: bytes) -> bytes:
        """Return the content that is in `data`; bytes after the end are ignored."""
        data = data[: self._left] if len(data) > self._left else data
        self._left -= len(data)
        self.done = not self._left
        return data

    def end(self, reset: bool) -> None:
        """Raise an error with the number of missing bytes."""
        raise UpstreamProtocolError(f"the answer ended {self._left} bytes before its Content-Length")


class UntilClose:
    """A body that ends where the connection does, or what another protocol says after a 101.

    With `forgive`, a reset ends it too. The kernel makes a reset out of a close if the other side has not read
    everything it was sent, as when it answers a request whose body it does not want.
    """

    def __init__(self, forgive: bool) -> None:
        self._forgive = forgive
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Return `data`."""
        return data

    def end(self, reset: bool) -> None:
        """Take a close as the end."""
        if reset and not self._forgive:
            raise UpstreamProtocolError("the connection was reset in the middle of the answer")
        self.done = True


class Chunked:
    """A body in chunks, each with its size before it (RFC 9112 section 7.1); trailers are dropped."""

    _size = _SIZE

    def __init__(self) -> None:
        self.done = False
        self._left = 0  # bytes of the current chunk that are still to come
        self._rest = b""  # a line that is not whole yet
        self._in_trailers = False
        self._after_data = False
        self._trailers = 0

    def feed(self, data: bytes) -> bytes:
        """Return the content that is in `data`."""
        content = []
        data, self._rest = self._rest + data if self._rest else data, b""
        at = 0
        while at < len(data) and not self.done:
            if self._left:
                piece = data[at : at + self._left]
                content.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._after_data = not self._left
                continue
            end = data.find(b"\r\n", at, at + LONGEST_LINE)
            if end < 0:
                self._keep(data[at:])
                break
            self._line(data[at:end])
            at = end + 2
        return content[0] if len(content) == 1 else b"".join(content)

    def end(self, reset: bool) -> None:
        """Raise an error: the last chunk is missing."""
        raise UpstreamProtocolError("the answer ended before its last chunk")

    def _wrong(self, reason: str) -> MultisiteError:
        return UpstreamProtocolError(reason)

    def _keep(self, line: bytes) -> None:
        if len(line) >= LONGEST_LINE:
            raise self._wrong("a chunk's size or a trailer is a line without end")
        if self._after_data and line != b"\r":
            raise self._wrong("a chunk is longer than its size")
        self._rest = line

    def _line(self, line: bytes) -> None:
        if self._in_trailers:
            self._trailer(line)
        elif self._after_data:
            if line:
                raise self._wrong("a chunk is longer than its size")
            self._after_data = False
        else:
            size = self._size.fullmatch(line)
            if not size:
                raise self._wrong(f"{line[:20]!r} is not the size of a chunk")
            self._left = int(size[1], 16)
            self._in_trailers = not self._left

    def _trailer(self, line: bytes) -> None:
        self._trailers += len(line)
        if self._trailers > MOST_TRAILERS:
            raise self._wrong("the trailers have no end")
        self.done = not line


class ChunkedRequest(Chunked):
    """A request's body in chunks; anything that another server might read differently is refused."""

    _size = _STRICT_SIZE

    def _wrong(self, reason: str) -> MultisiteError:
        return BadRequest(f"The body of the request is framed wrongly: {reason}")

    def _keep(self, line: bytes) -> None:
        if b"\n" in line:
            raise self._wrong("a line ends without a carriage return")
        super()._keep(line)

    def _trailer(self, line: bytes) -> None:
        if line and (not _TRAILER.fullmatch(line) or line.partition(b":")[0].lower() in _NO_TRAILERS):
            raise self._wrong(f"{line[:20]!r} is not a trailer")
        super()._trailer(line)


def chunk(data: bytes) -> bytes:
    """Return `data`, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)
