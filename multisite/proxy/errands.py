"""Helper threads for callers that must not wait: they ask the supervisor, look a name up, connect.

An errand owns nothing: it computes, and its sender owns the result, has its own deadline, and may be gone when the
errand is done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

MOST_THREADS = 8
MOST_ERRANDS = 1000  # under way or waiting for a thread

_log = logging.getLogger("multisite.errands")

Errand = Callable[[], None]  # which answers for its own errors


class Helpers:
    """The threads of one process, each started when it is needed.

    Args:
        errands: left by earlier helpers, those of the process that this one was forked from.
    """

    def __init__(self, errands: deque[Errand] | None = None) -> None:
        self._errands = errands or deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._running = 0
        self._resting = False

    def take_errand(self, errand: Errand) -> bool:
        """Run `errand` soon; return False if too many are under way, or if there is no thread for it."""
        with self._changed:
            if len(self._errands) + self._running >= MOST_ERRANDS or not (self._start() or self._threads):
                return False
            self._errands.append(errand)
            self._changed.notify()
        return True

    def rest(self, deadline: float) -> None:
        """Begin no other errand, and wait until those under way have ended, or the deadline (monotonic seconds)."""
        with self._changed:
            self._resting = True
            self._changed.wait_for(lambda: not self._running, max(0.0, deadline - time.monotonic()))

    def heirs(self) -> Helpers:
        """Return the helpers that do in a child what these have not begun: threads do not survive a fork."""
        heirs = Helpers(self._errands)
        with heirs._changed:
            for _ in range(min(MOST_THREADS, len(heirs._errands))):
                heirs._start()
        return heirs

    def _start(self) -> bool:
        """Start another thread if all would be busy; tell whether there is one more."""
        if self._threads >= min(MOST_THREADS, len(self._errands) + self._running + 1):
            return False
        try:
            threading.Thread(target=self._help, name="multisite-helper", daemon=True).start()
        except RuntimeError:  # the system has no thread left
            return False
        self._threads += 1
        return True

    def _help(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._errands and not self._resting)
                errand = self._errands.popleft()
                self._running += 1
            try:
                errand()
            except Exception:  # a helper serves all sites
                _log.exception("MS469 an errand failed")
            finally:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()
