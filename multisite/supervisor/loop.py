"""The supervisor's one loop: descriptors and what to call when they are ready."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Callable
from typing import Any


class Loop:
    """A selector whose keys are callbacks, and the monotonic clock."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = os.pipe()
        for end in (self._wake, self._waker):
            os.set_blocking(end, False)
        self.watch(self._wake, self._woken)
        self.signals: set[int] = set()  # that have come since they were last looked at

    @staticmethod
    def now() -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def catch(self, *numbers: int) -> None:
        """Have these signals wake the loop and wait in `signals`."""
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda got, _frame: self.signals.add(got))

    def _woken(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)

    def watch(self, file: Any, callback: Callable[[int], None], *, write: bool = False) -> None:
        """Call `callback` with the events whenever `file` can be read (and written, with `write`)."""
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
        """Watch `file` no more; call it before closing."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(file)

    def turn(self, timeout: float) -> None:
        """Wait at most so many seconds, and call what is ready."""
        for key, events in self._selector.select(max(0.0, timeout)):
            if self.watches(key.fd) and self._selector.get_key(key.fd) is key:
                key.data(events)

    def close(self) -> None:
        """Close the selector and its pipe."""
        self._selector.close()
        os.close(self._wake)
        os.close(self._waker)
