"""What is said about one file: its validators, its type, and the header fields that follow from them."""

from __future__ import annotations

import os
import time
from email.utils import formatdate

Headers = list[tuple[str, str]]


class Representation:
    """One file in one coding, as it was when it was opened.

    Attributes:
        stamp: what changes when the file does.
        headers: the fields of a 200 answer.
        kept: those that a 304 answer repeats (RFC 9110 section 15.4.5).
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
    """Return what tells a file from another, and from itself before a change."""
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


class Expires:
    """The Expires field, whose text is made once a second."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, str]] = {}

    def at(self, fresh: int) -> tuple[str, str]:
        """Return the field for an answer that stays fresh for so many seconds."""
        now = int(time.time())
        known = self._known.get(fresh)
        if known is None or known[0] != now:
            known = self._known[fresh] = (now, formatdate(now + fresh, usegmt=True))
        return "Expires", known[1]
