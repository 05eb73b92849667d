"""Lines of a log that come in quick succession, written together.

Under load a line costs a request most where it is made and written between everything else: nothing of it is in the
processor's caches, and write(2) gives the interpreter's lock away. So the first lines of a moment are written at once,
which is all that a quiet site ever has, and of those after them a record is kept until it is over. What is written at
one time is whole lines. A process that is killed loses what came in its last moment.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Generic, TypeVar
from weakref import WeakSet

MOMENT = 0.02  # seconds
AT_ONCE = 4  # lines of a moment that do not wait for its end
MOST = 512  # records that wait

Record = TypeVar("Record")


class Batch(Generic[Record]):
    """Appends the lines of records, nearly in the order in which they come.

    Args:
        line: makes the line of a record, with its end.
        write: appends whole lines.
        at_once: each is written at once.

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
        self.append = self._at_once if at_once or not _has_threads() else self._append
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
        """Write what waits; what comes meanwhile is written, too, or waits for the next time."""
        self._is_expected = False  # first, so that nobody leaves a record behind and goes
        lines = []
        with suppress(IndexError):
            while True:
                lines.append(self._line(self._waiting.popleft()))
        if lines:
            self._write(b"".join(lines))

    def forget(self) -> None:
        """Leave what waits to the process that this one was forked from."""
        self._is_expected = False
        self._waiting.clear()


class _Flusher:
    """One thread of a process, which is there when lines wait for the first time."""

    def __init__(self) -> None:
        self._expecting: deque[Batch[Any]] = deque()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._flushing = threading.RLock()  # what an application left in its environ may ask for lines of its own

    def expect(self, batch: Batch[Any]) -> bool:
        """Flush `batch` when a moment is over; False where the system has no thread for that."""
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
        """Flush all; what another thread is about to write has been written when this returns."""
        with self._flushing:
            while self._expecting:
                self._expecting.popleft().flush()


def _has_threads() -> bool:
    """Tell whether a thread of ours would run; uWSGI lets the interpreter rest between requests unless told."""
    return "uwsgi" not in sys.modules


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
