"""``/events``: what changes, told as it happens, without a thread that is held for ever.

Where a thread can be spared, an answer lasts some seconds and tells what changes meanwhile. Where none can, it tells
what has changed since the browser asked last, and ends; the browser asks again after `happenings.RETRY`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from multisite.sites.server import find_worker
from multisite.status.web.happenings import RETRY, told

LASTS = 20.0  # seconds of one answer
EVERY = 1.0  # seconds between two looks
MOST = 4  # streams of one process
SPARE = 4  # of so many threads, one may be held
SEEN = 32  # looks that are remembered, for those who ask again

Rows = dict[str, dict[str, Any]]


class Streams:
    """The streams of one process.

    Args:
        document: returns what ``--json status`` prints.
        sleep: waits so many seconds.
    """

    def __init__(self, document: Callable[[], dict[str, Any]], sleep: Callable[[float], object] = time.sleep) -> None:
        self._document, self._sleep = document, sleep
        self._lock = threading.Lock()
        self._held = 0
        self._seen: dict[str, Rows] = {}  # by their ids, the newest last

    def answer(
        self, environ: dict[str, Any], start_response: Any, fields: Iterable[tuple[str, str]]
    ) -> Iterable[bytes]:
        """Answer with events (PEP 3333)."""
        start = [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-store")]
        begun, number = self._look(str(environ.get("HTTP_LAST_EVENT_ID", ""))[:40])
        if not self._take(environ):
            start_response("200 OK", [*start, ("Content-Length", str(len(begun))), *fields])
            return [begun]
        start_response("200 OK", [*start, ("X-Accel-Buffering", "no"), *fields])
        return _Stream(self._told(begun, number), self._release)

    def _look(self, last: str) -> tuple[bytes, str]:
        """Return the events since the look of an id, and the id of this one; without that look there are no events."""
        now = time.time()
        rows = {row["name"]: row for row in self._document()["sites"]}
        number = f"{now:.6f}"
        with self._lock:
            before = self._seen.get(last, rows)
            self._seen[number] = rows
            for old in list(self._seen)[:-SEEN]:
                del self._seen[old]
        return f"retry: {RETRY}\n{told(before, list(rows.values()), now)}id: {number}\ndata:\n\n".encode(), number

    def _told(self, begun: bytes, number: str) -> Iterator[bytes]:
        yield begun
        until = time.monotonic() + LASTS
        while time.monotonic() < until:
            self._sleep(EVERY)
            text, number = self._look(number)
            yield text

    def _take(self, environ: dict[str, Any]) -> bool:
        """Take one of the threads, if one can be spared."""
        worker = find_worker()
        threads = worker.threads if worker else (2 * SPARE if environ.get("wsgi.multithread") else 1)
        with self._lock:
            if self._held >= min(MOST, threads // SPARE):
                return False
            self._held += 1
            return True

    def _release(self) -> None:
        with self._lock:
            self._held -= 1


class _Stream:
    """The body of an answer that holds a thread until it is closed."""

    def __init__(self, pieces: Iterator[bytes], release: Callable[[], None]) -> None:
        self._pieces, self._release = pieces, release

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Give the thread back; once."""
        release, self._release = self._release, lambda: None
        release()
