"""The end of a log file, and what is appended to it afterwards, whichever file has its name then.

A log may lie in a folder of a site's user. Root opens it as it would for writing (`logfile`): no link that a user made
is followed, and only a plain file is read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator

from multisite.config.safefiles import open_folder

LAST = 65536  # bytes of a file whose last lines are wanted
LINES = 40
PIECE = 65536
LOOK_EVERY = 0.2  # seconds between two looks for more
LONGEST = 1 << 20  # bytes of a line that is waited for


def open_log(path: str, *, root: bool | None = None) -> int:
    """Open a log file for reading.

    Raises:
        OSError: there is none, or none that may be read.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    if os.geteuid() == 0 if root is None else root:
        folder = open_folder(os.fsencode(os.path.dirname(os.path.abspath(path))), trusting=False)
        try:
            file = os.open(os.path.basename(path), flags | os.O_NOFOLLOW, dir_fd=folder)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        finally:
            os.close(folder)
    else:
        file = os.open(path, flags)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise OSError(errno.EINVAL, "it is no plain file, so it cannot be read back", path)


def last_lines(path: str) -> list[str]:
    """Return the last lines of a file, of its last 64 KiB at most.

    Raises:
        OSError: there is none, or none that may be read.
    """
    with Tail(path) as tail:
        return tail.begin()


class Tail:
    """What stands at the end of a file, and what is appended; a context manager.

    Args:
        path: of the file.
        waits: whether a file that is not there yet is waited for.
        sleep: waits so many seconds.

    Raises:
        OSError: there is none, or none that may be read.
    """

    def __init__(self, path: str, *, waits: bool = False, sleep: Callable[[float], object] = time.sleep) -> None:
        self.path = path
        self._sleep = sleep
        self._rest = b""
        self._file = -1
        try:
            self._file = open_log(path)
        except FileNotFoundError:
            if not waits:
                raise

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file >= 0:
            os.close(self._file)

    def begin(self) -> list[str]:
        """Return the last lines of now; what follows comes from `more`."""
        if self._file < 0:
            return []
        start = max(0, os.fstat(self._file).st_size - LAST)
        os.lseek(self._file, start, os.SEEK_SET)
        found = list(self._read())
        return found[1 if start else 0 :][-LINES:]

    def more(self) -> Iterator[list[str]]:
        """Yield new lines as they come, for ever; a file that takes the name over is read from its beginning.

        Raises:
            OSError: the file that has the name now may not be read.
        """
        while True:
            successor = self._successor()  # looked for first: what was appended until then is read below
            lines = list(self._read()) if self._file >= 0 else []
            if successor >= 0:
                lines += self._take(successor)
            if lines:
                yield lines
            if successor < 0:
                self._sleep(LOOK_EVERY)

    def _take(self, file: int) -> list[str]:
        """Go on with another file; returns the line that nobody ended in the old one."""
        if self._file >= 0:
            os.close(self._file)
        self._file = file
        return self._end()

    def _read(self) -> Iterator[str]:
        """Yield the whole lines up to the end of the file."""
        if os.fstat(self._file).st_size < os.lseek(self._file, 0, os.SEEK_CUR):
            os.lseek(self._file, 0, os.SEEK_SET)  # it was emptied (copytruncate)
        while data := os.read(self._file, PIECE):
            *lines, self._rest = (self._rest + data).split(b"\n")
            yield from map(_text, lines)
            if len(self._rest) > LONGEST:
                yield from self._end()

    def _end(self) -> list[str]:
        """Return a line that nobody has ended."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []

    def _successor(self) -> int:
        """Open the file that has taken the name over; -1 while there is none."""
        with contextlib.suppress(FileNotFoundError):
            file = open_log(self.path)
            if self._file < 0 or not os.path.samestat(os.fstat(file), os.fstat(self._file)):
                return file
            os.close(file)
        return -1


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
