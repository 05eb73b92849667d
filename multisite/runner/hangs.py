"""Requests that hang: their Python stacks go to the log, and the process exits.

A thread looks at the active connections now and then. A request whose site has made no progress with it for the
request timeout hangs: the stacks of all threads are printed, nothing more is accepted, the other requests get
`GRACE` seconds to end, and the process exits with `STATUS`. Where the hung code does not even let this thread run (a
regular expression that never ends holds the interpreter), a timer outside the interpreter, wound up at each look,
prints the stacks and exits with `HELD_STATUS`.
"""

from __future__ import annotations

import faulthandler
import os
from _thread import start_new_thread
from time import monotonic, sleep

from .report import STDERR, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import RequestConnection
    from .report import Notifier

STATUS = 4
HELD_STATUS = 1  # faulthandler's own
GRACE = 5.0


def is_timer(line: str) -> bool:
    """Tell whether a line of the log is the first one from the timer outside the interpreter."""
    return line.startswith("Timeout (") and line.endswith(")!")


class Watchdog:
    """Watches `active` with its own thread, once started."""

    def __init__(
        self, timeout: float, active: dict[int, RequestConnection], stop: Callable[[], None], notifier: Notifier
    ) -> None:
        self._timeout = timeout
        self._active = active
        self._stop = stop
        self._notifier = notifier
        self._interval = min(max(timeout / 4, 0.05), 5.0)

    def start(self) -> None:
        """Begin to watch; without a timeout there is nothing to watch."""
        if self._timeout > 0:
            self._wind_up()  # here, since the first request may hold the interpreter before the thread has begun
            start_new_thread(self._watch, ())  # of the system, whatever the site has patched

    def _wind_up(self) -> None:
        faulthandler.dump_traceback_later(self._timeout + 2 * self._interval + GRACE, exit=True, file=STDERR)

    def _watch(self) -> None:
        while True:
            self._wind_up()
            hung = self._hung()
            if hung:
                self._leave(hung)
            sleep(self._interval)

    def _hung(self) -> list[RequestConnection]:
        latest = monotonic() - self._timeout
        return [connection for connection in list(self._active.values()) if connection.since < latest]

    def _leave(self, hung: list[RequestConnection]) -> None:
        limit = f"request_timeout = {self._timeout:g}s"
        what = f"no progress for {self._timeout:g} s with {', '.join(map(str, hung))} ({limit})"
        say(f"MS617 Replacing this process: {what}. The stacks of its threads:")
        faulthandler.dump_traceback(file=STDERR, all_threads=True)
        self._notifier.hangs(what)
        self._stop()
        deadline = monotonic() + min(GRACE, self._timeout)
        while monotonic() < deadline and len(self._active) > len(self._hung()):
            sleep(0.02)
        os._exit(STATUS)
