"""Log files: opened with care, appended to by one write(2) a line, opened anew when they were renamed.

Several processes append to the same file; O_APPEND and one write for a line keep their lines whole.

A process that runs as root never writes through a link that a site's user made. It opens the folder by the rule of
owners (`beneath`), the file itself only if it is no link, and, in a folder that is somebody else's, only a plain
file that has no other name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Callable

from multisite.config.safefiles import open_folder

LOOK_EVERY = 1.0  # seconds from a file's new name until lines go to a new file

#: links to what a container's runtime collects
STREAMS = ("/dev/stdout", "/dev/stderr")
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def open_append(path: str, *, root: bool | None = None) -> int:
    """Open a log file for appending, made with mode 0640 where there is none; a FIFO nobody reads fails.

    Raises:
        OSError: it cannot be opened, or, as root, may not be.
    """
    if not (os.geteuid() == 0 if root is None else root) or path in STREAMS:
        return os.open(path, _FLAGS, 0o640)
    folder = open_folder(os.fsencode(os.path.dirname(os.path.abspath(path))), trusting=False)
    try:
        descriptor = os.open(os.path.basename(path), _FLAGS | os.O_NOFOLLOW, 0o640, dir_fd=folder)
        try:
            _refuse_odd(os.fstat(descriptor), os.fstat(folder), path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link, which root does not follow", path) from None
        raise
    finally:
        os.close(folder)


def _refuse_odd(file: os.stat_result, folder: os.stat_result, path: str) -> None:
    """Refuse what a folder's owner may have put there in place of a log."""
    others = folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not folder.st_mode & stat.S_ISVTX
    if not folder.st_uid and not others:
        return
    if not stat.S_ISREG(file.st_mode) or file.st_nlink > 1 or file.st_uid not in (0, folder.st_uid):
        raise PermissionError(errno.EACCES, "it is no plain file of its own, in a folder that is not root's", path)


class LogFile:
    """Appends lines to the file at `path`; a fault is told once, and writing is tried again.

    The descriptor keeps its number as long as this lives, so that a thread that is about to write never hits another
    file.

    Raises:
        OSError: the file cannot be opened when this is made.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._told = ""  # what of a fault that lasts was told already
        self._file = -1
        self._file = open_append(path)
        self._stamp = _stamp(os.fstat(self._file))
        self._look_at = clock() + LOOK_EVERY

    def __repr__(self) -> str:
        return f"<LogFile {self.path}>"

    def write(self, line: str) -> None:
        """Append one line, to a new file if it is time to look for one."""
        if self._clock() >= self._look_at:
            self.look()
        self.append(f"{line}\n".encode("ascii", "backslashreplace"))

    def append(self, data: bytes) -> None:
        """Append a line that has its end; whoever does so calls `look` once a second."""
        try:
            if os.write(self._file, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._told:
                self._told = "" if self._told == "write" else self._told
        except OSError as error:
            self._tell("write", error)

    def look(self) -> None:
        """Open the file anew if it has been renamed or removed."""
        self._look_at = self._clock() + LOOK_EVERY
        with contextlib.suppress(OSError):
            if _stamp(os.stat(self.path)) == self._stamp:
                self._told = self._told if self._told == "write" else ""
                return
        try:
            new = open_append(self.path)
        except OSError as error:
            self._tell("open", error)
            return
        self._told = ""
        try:
            self._stamp = _stamp(os.fstat(new))
            os.dup2(new, self._file, inheritable=False)
        finally:
            os.close(new)

    def _tell(self, what: str, error: OSError) -> None:
        if not self._told:
            self._told = what
            print(f"multisite: cannot write to the log {self.path}: {error.strerror}", file=sys.stderr)

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
