"""The answer with a file: its validators and header fields, conditional and partial answers, and its body.

Conditions and ranges (RFC 9110 sections 13 and 14) in which a client repeats what it received are answered by comparing
text; werkzeug reads all others, and is imported for the first of them.
"""

from __future__ import annotations

import io
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from email.utils import formatdate
from typing import Any

Headers = list[tuple[str, str]]


class Representation:
    """One file in one coding, as it was when it was opened.

    Attributes:
        stamp: changes when the file does.
        headers: the fields of a 200 answer.
        kept: the fields that a 304 answer repeats (RFC 9110 section 15.4.5).
    """

    __slots__ = ("coding", "etag", "fresh", "headers", "kept", "media_type", "modified", "seconds", "size", "stamp")

    def __init__(
        self, status: os.stat_result, media_type: str, coding: str, fresh: int | None, *, varies: bool
    ) -> None:
        self.stamp = stamp_of(status)
        self.size = status.st_size
        self.media_type = media_type
        self.coding = coding
        self.fresh = fresh
        self.seconds = int(status.st_mtime)
        self.modified = formatdate(self.seconds, usegmt=True)
        suffix = f"-{coding}" if coding else ""
        self.etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}{suffix}"'
        self.kept: Headers = [("ETag", self.etag), ("Last-Modified", self.modified)]
        if varies:
            self.kept.append(("Vary", "Accept-Encoding"))
        if fresh is not None:
            self.kept.append(("Cache-Control", f"max-age={fresh}" if fresh else "no-cache"))
        self.headers: Headers = [("Content-Type", media_type), ("Content-Length", str(self.size)), *self.kept]
        self.headers.append(("Accept-Ranges", "bytes"))
        if coding:
            self.headers.append(("Content-Encoding", coding))


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """Return what distinguishes a file from others, and from itself before a change."""
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


class Expires:
    """The Expires field; its text is made once a second."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, str]] = {}

    def at(self, fresh: int) -> tuple[str, str]:
        """Return the field for an answer that stays fresh for this many seconds."""
        now = int(time.time())
        known = self._known.get(fresh)
        if known is None or known[0] != now:
            known = self._known[fresh] = (now, formatdate(now + fresh, usegmt=True))
        return "Expires", known[1]


MOST_RANGES = 8  # more in one request get the whole file: nobody needs them, and each costs more than it saves

Span = tuple[int, int]  # first byte, and the one after the last


def status_of(environ: dict[str, Any], told: Representation) -> int:
    """Return 200, 304 or 412 for a GET or HEAD request, by the precedence of RFC 9110 section 13.2.2."""
    if_match = environ.get("HTTP_IF_MATCH")
    if if_match:
        if not _names(if_match, told.etag, weakly=False):
            return 412
    elif (since := environ.get("HTTP_IF_UNMODIFIED_SINCE")) and _is_newer(told, since):
        return 412
    none_match = environ.get("HTTP_IF_NONE_MATCH")
    if none_match:
        return 304 if _names(none_match, told.etag, weakly=True) else 200
    since = environ.get("HTTP_IF_MODIFIED_SINCE")
    return 304 if since and _is_newer(told, since) is False else 200


def _names(field: str, etag: str, *, weakly: bool) -> bool:
    if field == etag:
        return True
    from werkzeug.http import parse_etags

    tags = parse_etags(field)
    return tags.contains_weak(etag[1:-1]) if weakly else tags.contains(etag[1:-1])


def _is_newer(told: Representation, date: str) -> bool | None:
    """Tell whether the file was changed after `date`; None if that is not a date."""
    if date == told.modified:
        return False
    from werkzeug.http import parse_date

    parsed = parse_date(date)
    return None if parsed is None else told.seconds > int(parsed.timestamp())


def spans_of(environ: dict[str, Any], told: Representation) -> list[Span] | None:
    """Return the requested parts of the file: None for the whole, no parts for a 416 answer."""
    field = environ.get("HTTP_RANGE")
    if not field or environ["REQUEST_METHOD"] != "GET":
        return None
    unless_changed = environ.get("HTTP_IF_RANGE")  # RFC 9110 section 13.1.5
    if unless_changed and unless_changed.strip() not in (told.etag, told.modified):
        return None
    from werkzeug.http import parse_range_header

    parsed = parse_range_header(field)
    if parsed is None or parsed.units != "bytes" or len(parsed.ranges) > MOST_RANGES:
        return None
    size = told.size
    spans = [
        (start, size if stop is None else min(stop, size)) if start >= 0 else (max(0, size + start), size)
        for start, stop in parsed.ranges
    ]
    return [span for span in spans if span[0] < span[1]]


IN_MEMORY = 65536  # bytes; reading a smaller file at once costs less than what servers do to send a file
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
    """Return the body of a large file, sent by the server itself if it can; the body owns the descriptor now."""
    wrapper = environ.get("wsgi.file_wrapper")
    if wrapper is None:
        return Parts(descriptor, [(0, size)])
    body: Iterable[bytes] = wrapper(io.FileIO(descriptor), PIECE)
    return body


def part(descriptor: int, span: Span, environ: dict[str, Any]) -> Iterable[bytes]:
    """Return the body of one part.

    gunicorn sends as many bytes as Content-Length states from the file's position; no other server promises that.
    """
    start, stop = span
    if stop - start > IN_MEMORY and environ.get("SERVER_SOFTWARE", "")[:8] == "gunicorn":
        os.lseek(descriptor, start, os.SEEK_SET)
        return whole(descriptor, stop - start, environ)
    return Parts(descriptor, [span])


class Parts:
    """Parts of a file one after another, each behind its `heads`, and `tail` at the end.

    A file that has become shorter meanwhile raises, so that the client sees that the answer is incomplete.
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
        """Return the body; the body owns the descriptor now."""
        return Parts(descriptor, self._spans, self._heads, self._tail)
