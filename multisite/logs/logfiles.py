"""Log files: opened with care, appended to by one write(2) a line, reopened after a rename, and read back.

Several processes append to the same file; O_APPEND and one write for a line keep their lines whole.

A process that runs as root never writes through a link that a site's user made. It opens the folder by the rule of
owners (`safefiles`), the file itself only if it is not a link, and, in another user's folder, only a plain file that
has no other name. It reads by the same rule.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from multisite.config.safefiles import open_folder

MOMENT = 0.02  # seconds
AT_ONCE = 4  # lines of a moment that are written at once
MOST = 512  # records that wait
LAST = 65536  # bytes of a file whose last lines are wanted; more, where these are not enough
MOST_READ = 64 << 20  # bytes of a file that are looked through for its last lines
LINES = 40
PIECE = 65536
LOOK_FOR_MORE_EVERY = 0.2  # seconds between two looks for new lines
LONGEST = 1 << 20  # bytes of an unfinished line that are kept
LOOK_EVERY = 1.0  # seconds from the rename of a file until lines go to a new file

#: links to the streams that a container's runtime collects
STREAMS = ("/dev/stdout", "/dev/stderr")
Record = TypeVar("Record")
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
        return open_in(folder, os.path.basename(path), path)[0]
    finally:
        os.close(folder)


def open_in(folder: int, name: str, path: str) -> tuple[int, bool]:
    """Open the log file `name` of an open folder for appending; returns whether it is empty, too.

    Raises:
        OSError: it cannot be opened, is a link, or nothing that root may write.
    """
    try:
        descriptor = os.open(name, _FLAGS | os.O_NOFOLLOW, 0o640, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link, and root does not follow links", path) from None
        raise
    try:
        status = os.fstat(descriptor)
        if os.geteuid() == 0:
            _refuse_odd(status, os.fstat(folder), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, not status.st_size


def _refuse_odd(file: os.stat_result, folder: os.stat_result, path: str) -> None:
    """Refuse an object that a folder's owner may have put in place of a log."""
    others = folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not folder.st_mode & stat.S_ISVTX
    if not folder.st_uid and not others:
        return
    if not stat.S_ISREG(file.st_mode) or file.st_nlink > 1 or file.st_uid not in (0, folder.st_uid):
        raise PermissionError(
            errno.EACCES, "it is not a plain file with a single name, and the folder is not root's", path
        )


class LogFile:
    """Appends lines to the file at `path`; a fault is reported once, and writing is tried again.

    The descriptor keeps its number as long as this lives, so that a thread that is about to write never hits another
    file.

    Raises:
        OSError: the file cannot be opened when this is made.
    """

    def __init__(self, path: str, clock: Callable[[], float] = monotonic) -> None:
        self.path = path
        self._clock = clock
        self._told = ""  # the lasting fault that was reported already
        self._file = -1
        self._file = open_append(path)
        self._stamp = _stamp(os.fstat(self._file))
        self._look_at = clock() + LOOK_EVERY

    def __repr__(self) -> str:
        return f"<LogFile {self.path}>"

    def write(self, line: str) -> None:
        """Append one line, to a new file if the old one was renamed."""
        if self._clock() >= self._look_at:
            self.check_renamed()
        self.append(f"{line}\n".encode("ascii", "backslashreplace"))

    def append(self, data: bytes) -> None:
        """Append a line with its end; the caller also calls `check_renamed` once a second."""
        try:
            if os.write(self._file, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._told:
                self._told = "" if self._told == "write" else self._told
        except OSError as error:
            self._tell("write", error)

    def check_renamed(self) -> None:
        """Reopen the file if it has been renamed or removed."""
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


class Batch(Generic[Record]):
    """Appends the lines of records, nearly in the order in which they arrive.

    Under load, a line is most expensive if it is made and written between other work: nothing of it is in the
    processor's caches, and write(2) releases the interpreter's lock. So the first lines of a moment are written at
    once, which are all lines of a quiet site, and further ones are kept as records until the moment is over. Each write
    consists of whole lines. A process that is killed loses the lines of its last moment.

    Args:
        line: makes the line of a record, with its end.
        write: appends whole lines.
        at_once: whether each line is written at once.

    Attributes:
        append: takes a record.
    """

    def __init__(self, line: Callable[[Record], bytes], write: Callable[[bytes], None], at_once: bool = False) -> None:
        self._line = line
        self._write = write
        self._ends = 0.0  # of this moment, monotonic
        self._left = 0  # lines that it may still write at once
        self._waiting: deque[Record] = deque()
        self._is_expected = False
        # uWSGI stops the interpreter between requests by default, so no thread of ours would run.
        self.append = self._at_once if at_once or "uwsgi" in sys.modules else self._append
        _batches.add(self)

    def _at_once(self, record: Record) -> None:
        self._write(self._line(record))

    def _append(self, record: Record) -> None:
        waiting = self._waiting
        if not waiting and self._is_time():
            self._at_once(record)
            return
        waiting.append(record)
        if not self._is_expected:
            self._is_expected = True
            if not _flusher.expect(self):
                self.flush()
        elif len(waiting) >= MOST:
            self.flush()

    def _is_time(self) -> bool:
        now = monotonic()
        if now >= self._ends:
            self._ends, self._left = now + MOMENT, AT_ONCE
        self._left -= 1
        return self._left >= 0

    def flush(self) -> None:
        """Write the waiting records; those that arrive meanwhile are written, too, or wait for the next time."""
        self._is_expected = False  # first, so that no thread adds a record unnoticed
        lines = []
        with contextlib.suppress(IndexError):
            while True:
                lines.append(self._line(self._waiting.popleft()))
        if lines:
            self._write(b"".join(lines))

    def forget(self) -> None:
        """Drop the waiting records: the process that this one was forked from writes them."""
        self._is_expected = False
        self._waiting.clear()


class _Flusher:
    """One thread of a process, started when lines wait for the first time."""

    def __init__(self) -> None:
        self._expecting: deque[Batch[Any]] = deque()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._flushing = threading.RLock()  # objects that an application left in its environ may log lines

    def expect(self, batch: Batch[Any]) -> bool:
        """Flush `batch` when a moment is over; return False if the system has no thread for that."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="multisite-log", daemon=True)
                    try:
                        thread.start()
                    except RuntimeError:
                        return False
                    self._thread = thread
        self._expecting.append(batch)
        self._wake.set()
        return True

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            time.sleep(MOMENT)
            self.flush()

    def flush(self) -> None:
        """Flush all; when this returns, other threads have finished writing, too."""
        with self._flushing:
            while self._expecting:
                self._expecting.popleft().flush()


_flusher = _Flusher()
_batches: WeakSet[Batch[Any]] = WeakSet()


def flush() -> None:
    """Write all lines that wait in this process."""
    _flusher.flush()


def _forked() -> None:
    global _flusher
    _flusher = _Flusher()
    for batch in list(_batches):
        batch.forget()


atexit.register(flush)
os.register_at_fork(after_in_child=_forked)


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
    raise OSError(errno.EINVAL, "it is not a plain file, so it cannot be read back", path)


def last_lines(path: str) -> list[str]:
    """Return the last lines of a file, of its last 64 KiB at most.

    Raises:
        OSError: there is none, or none that may be read.
    """
    with Tail(path) as tail:
        return tail.begin()[-LINES:]


class Tail:
    """The end of a file, and the lines appended to it; a context manager.

    Args:
        path: of the file.
        waits: whether to wait for a file that does not exist yet.
        sleep: waits for a number of seconds.

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

    def begin(self, is_enough: Callable[[list[str]], bool] = lambda lines: len(lines) >= LINES) -> list[str]:
        """Return the last lines of now, `LINES` if not told otherwise; what follows comes from `more`.

        Args:
            is_enough: tells whether no earlier lines are wanted, and is asked before more of the file is read.
        """
        if self._file < 0:
            return []
        size, last = os.fstat(self._file).st_size, LAST
        while True:
            start = max(0, size - last)
            os.lseek(self._file, start, os.SEEK_SET)
            self._rest = b""
            found = list(self._read())[1 if start else 0 :]
            if not start or last >= MOST_READ or is_enough(found):
                return found
            last *= 8

    def more(self) -> Iterator[list[str]]:
        """Yield new lines as they come, for ever; a new file under the same name is read from its beginning.

        Raises:
            OSError: the file that has the name now may not be read.
        """
        while True:
            lines, has_changed = self.look()
            if lines:
                yield lines
            if not has_changed:
                self._sleep(LOOK_FOR_MORE_EVERY)

    def look(self) -> tuple[list[str], bool]:
        """Return the lines that have come since the last look, and whether another file has taken the name over."""
        successor = self._successor()  # looked for first: what was appended until then is read below
        lines = list(self._read()) if self._file >= 0 else []
        if successor >= 0:
            lines += self._take(successor)
        return lines, successor >= 0

    def _take(self, file: int) -> list[str]:
        """Continue with another file; return the unfinished line of the old one."""
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
        """Return an unfinished line."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []

    def _successor(self) -> int:
        """Open the new file under the same name; return -1 while there is none."""
        with contextlib.suppress(FileNotFoundError):
            file = open_log(self.path)
            if self._file < 0 or not os.path.samestat(os.fstat(file), os.fstat(self._file)):
                return file
            os.close(file)
        return -1


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
