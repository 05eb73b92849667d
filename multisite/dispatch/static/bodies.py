"""The bodies of answers with files, and with parts of them."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

from multisite.dispatch.static.conditions import Span

IN_MEMORY = 65536  # bytes; a smaller file is read at once, which costs less than what servers do to send a file
PIECE = 65536


def read(descriptor: int, size: int) -> bytes:
    """Return a small file as it is now, up to `IN_MEMORY` bytes; usually `size`."""
    data = os.read(descriptor, size + 1)
    while 0 < len(data) <= IN_MEMORY and len(data) != size:
        more = os.read(descriptor, IN_MEMORY)
        if not more:
            break
        data += more
    return data[:IN_MEMORY]


def whole(descriptor: int, size: int, environ: dict[str, Any]) -> Iterable[bytes]:
    """Return the body of a large file, sent by the server itself where it can; the descriptor is the body's now."""
    wrapper = environ.get("wsgi.file_wrapper")
    if wrapper is None:
        return Parts(descriptor, [(0, size)])
    body: Iterable[bytes] = wrapper(io.FileIO(descriptor), PIECE)
    return body


def part(descriptor: int, span: Span, environ: dict[str, Any]) -> Iterable[bytes]:
    """Return the body of one part.

    gunicorn sends as many bytes as Content-Length says from where the file stands; no other server promises that.
    """
    start, stop = span
    if stop - start > IN_MEMORY and environ.get("SERVER_SOFTWARE", "")[:8] == "gunicorn":
        os.lseek(descriptor, start, os.SEEK_SET)
        return whole(descriptor, stop - start, environ)
    return Parts(descriptor, [span])


class Parts:
    """Parts of a file one after another, each behind its `heads`, and `tail` at the end.

    A file that has become shorter meanwhile raises, so that the answer is seen to be cut short.
    """

    def __init__(
        self, descriptor: int, spans: Iterable[Span], heads: Iterable[bytes] = (b"",), tail: bytes = b""
    ) -> None:
        self._descriptor = descriptor
        self._pieces = self._read(list(zip(heads, spans, strict=True)), tail)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def _read(self, parts: list[tuple[bytes, Span]], tail: bytes) -> Iterator[bytes]:
        for head, (start, stop) in parts:
            if head:
                yield head
            at = start
            while at < stop:
                data = os.pread(self._descriptor, min(PIECE, stop - at), at)
                if not data:
                    raise OSError("the file became shorter while it was sent")
                at += len(data)
                yield data
        if tail:
            yield tail

    def close(self) -> None:
        """Close the file; once or more often."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Multipart:
    """A multipart/byteranges body (RFC 9110 section 14.6): its type, its length, and itself."""

    def __init__(self, media_type: str, size: int, spans: list[Span]) -> None:
        boundary = secrets.token_hex(12)
        self._spans = spans
        self._heads = [
            (
                f"\r\n--{boundary}\r\nContent-Type: {media_type}\r\n"
                f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n\r\n"
            ).encode("latin-1")
            for start, stop in spans
        ]
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.media_type = f"multipart/byteranges; boundary={boundary}"
        self.length = sum(map(len, self._heads)) + sum(stop - start for start, stop in spans) + len(self._tail)

    def body(self, descriptor: int) -> Parts:
        """Return the body; the descriptor is the body's now."""
        return Parts(descriptor, self._spans, self._heads, self._tail)
