"""The supervisor's one loop: descriptors, and what to call when they are ready.

A callback may fail, for want of descriptors or because of a bug. The failure costs its own work and a moment; it never
ends the loop, because all sites depend on it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SET_ASIDE, LONGEST_ASIDE = 1.0, 60.0  # seconds without a descriptor whose callback failed, growing
BREATH = 0.1  # seconds at least that a turn waits after one in which anything failed
TOLD_EVERY = 60.0  # seconds between two tracebacks of one place
MOST_PLACES = 1000

_log = logging.getLogger("multisite.supervisor")


class Loop:
    """A selector whose keys are callbacks, and the monotonic clock."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._aside: dict[Any, _Aside] = {}
        self._told: dict[tuple[type, str, int], float] = {}
        self._has_failed = False
        self._wake, self._waker = os.pipe()
        for end in (self._wake, self._waker):
            os.set_blocking(end, False)
        self.watch(self._wake, self._woken)
        self.signals: set[int] = set()  # received since the last look

    @staticmethod
    def now() -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def catch(self, *numbers: int) -> None:
        """Make these signals wake the loop; they wait in `signals`."""
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda got, _frame: self.signals.add(got))

    def _woken(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)

    def watch(self, file: Any, callback: Callable[[int], None], *, write: bool = False) -> None:
        """Call `callback` with the events whenever `file` can be read (or written, with `write`)."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)
        if self.watches(file):
            self._selector.modify(file, events, callback)
        else:
            self._selector.register(file, events, callback)

    def watches(self, file: Any) -> bool:
        """Tell whether `file` is watched."""
        try:
            return file in self._selector.get_map()
        except ValueError:  # it is closed
            return False

    def forget(self, file: Any) -> None:
        """Stop watching `file`; call it before closing."""
        self._aside.pop(file, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(file)

    def turn(self, timeout: float) -> bool:
        """Wait at most this many seconds, and call what is ready; returns whether anything was."""
        timeout = max(timeout, BREATH if self._has_failed else 0.0)
        self._has_failed = False
        ready = self._selector.select(min([timeout, *self._bring_back()]))
        for key, events in ready:
            if self.watches(key.fd) and self._selector.get_key(key.fd) is key:
                if self.attempt(key.data, events):
                    self._aside.pop(key.fileobj, None)
                elif self.watches(key.fd) and self._selector.get_key(key.fd) is key:
                    self._set_aside(key)
        return bool(ready)

    # Failures

    def attempt(self, call: Callable[..., object], *args: object) -> bool:
        """Call it and tell whether it succeeded. A failure is logged, with its traceback once in a while."""
        try:
            call(*args)
        except Exception as error:
            self._has_failed = True
            self._tell(error)
            return False
        return True

    def _tell(self, error: Exception) -> None:
        last = error.__traceback__
        while last and last.tb_next:
            last = last.tb_next
        place = type(error), last.tb_frame.f_code.co_filename if last else "", last.tb_lineno if last else 0
        if self.now() < self._told.get(place, 0.0):
            return
        if len(self._told) >= MOST_PLACES:
            self._told.clear()
        self._told[place] = self.now() + TOLD_EVERY
        _log.error("MS561 an error in the supervisor, which keeps running: %r", error, exc_info=error)

    def _set_aside(self, key: selectors.SelectorKey) -> None:
        """Watch it again after a while: otherwise a file that cannot be read would start each turn at once."""
        self._selector.unregister(key.fileobj)
        known = self._aside.get(key.fileobj)
        pause = min(LONGEST_ASIDE, 2 * known.pause) if known else SET_ASIDE
        self._aside[key.fileobj] = _Aside(self.now() + pause, pause, key)

    def _bring_back(self) -> list[float]:
        """Watch again the files whose time has come; returns the seconds until each of the others."""
        if not self._aside:
            return []
        now = self.now()
        for file, aside in [(file, one) for file, one in self._aside.items() if one.is_out and now >= one.until]:
            aside.is_out = False
            try:
                if not self.watches(file):
                    self._selector.register(file, aside.key.events, aside.key.data)
            except (OSError, ValueError):  # it has been closed
                del self._aside[file]
        return [max(0.0, one.until - now) for one in self._aside.values() if one.is_out]

    def close(self) -> None:
        """Close the selector and its pipe."""
        self._selector.close()
        os.close(self._wake)
        os.close(self._waker)


@dataclass
class _Aside:
    """A descriptor whose callback failed: until when it is not watched, and whether it is unwatched now."""

    until: float
    pause: float
    key: selectors.SelectorKey
    is_out: bool = True
