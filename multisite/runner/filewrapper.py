"""``wsgi.file_wrapper`` (PEP 3333, "Optional Platform-Specific File Handling"): what reading a file gives is sent.

A descriptor may hold something else than reading the object gives: a `gzip.GzipFile` has that of the compressed file,
a buffer may be ahead of where its reader stands, and what /proc and /sys tell of a size is not true. So only an object
whose reading is known to be that of its descriptor is left to the kernel; everything else is read.
"""

from __future__ import annotations

import io
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BLOCK = 8192
PIECE = 131072  # bytes of a plain file that are read at once, whatever the app suggests


class FileWrapper:
    """A file as the body of an answer. Whoever iterates closes it, if it can be closed."""

    def __init__(self, filelike: Any, blksize: int = BLOCK) -> None:
        self.filelike = filelike
        self._size = max(blksize, PIECE) if _is_plain(filelike) else blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        data = self.filelike.read(self._size)
        if not data:
            raise StopIteration
        encoding = getattr(self.filelike, "encoding", None) if type(data) is str else None
        encoded: bytes = data.encode(encoding) if encoding else data
        return encoded

    def span(self, most: int) -> tuple[int, int] | None:
        """Where the file stands, and how many of the next `most` bytes the kernel can send; None where it cannot."""
        file = self.filelike
        if not _is_plain(file):
            return None
        try:
            told = os.fstat(file.fileno())
            offset = file.tell()
        except (OSError, ValueError):  # closed, or a pipe
            return None
        count = min(most, told.st_size - offset)
        return (offset, count) if count > 0 and stat.S_ISREG(told.st_mode) else None


class ReadFile:
    """``wsgi.file_wrapper`` for an app behind a server that would send what the descriptor holds.

    Servers ask whether a body is an instance of the class that the app was given. None is one of this, so each is
    iterated.
    """

    def __new__(cls, filelike: Any, blksize: int = BLOCK) -> FileWrapper:  # type: ignore[misc]
        """What is iterated instead."""
        return FileWrapper(filelike, blksize)


def _is_plain(file: Any) -> bool:
    """Whether reading it gives what its descriptor holds, from where it says that it stands."""
    kind = type(file)
    return kind is io.FileIO or (kind is io.BufferedReader and type(file.raw) is io.FileIO)
