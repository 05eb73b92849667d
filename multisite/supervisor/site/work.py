"""What a site does without requests: background work, which is not idleness.

A process reports it (``BUSY=1``, and ``BUSY=0`` when it is done), or is seen to use the processor while no request is
in flight. Work keeps it from being stopped as idle and from being evicted, but only for `busy_timeout` after the last
request.
"""

from __future__ import annotations

from collections.abc import Callable

from multisite.supervisor.reexec import Handed, kept

WINDOW, LONGEST_WINDOW = 2.0, 30.0  # seconds over which processor use is measured
SHARE = 0.1  # of one processor, or of what one process gets of it: more than timers and open connections take
LEAST = 0.1  # of that, however busy the machine is


def idle_since(last_use: float, worked_at: float, is_working: bool, busy_timeout: float, now: float) -> float | None:
    """Return since when a site without requests has been idle, None while it is at work (pure).

    Args:
        last_use: of the last request, in monotonic seconds like all others.
        worked_at: when it was last seen at work.
        is_working: whether it is now.
        busy_timeout: seconds after the last request during which work counts.
        now: the present moment.
    """
    if now - last_use >= busy_timeout:
        return last_use
    return None if is_working else max(last_use, worked_at)


def window(idle: float, idle_timeout: float) -> float:
    """Return over how many seconds to measure: the longer no request comes, the longer, until it matters (pure)."""
    least = min(WINDOW, idle_timeout / 4) if idle_timeout else WINDOW
    return least if idle >= idle_timeout > 0 else max(least, min(LONGEST_WINDOW, idle / 8))


class Work(Handed):
    """The background work of one site.

    Attributes:
        worked_at: monotonic second at which it was last seen; 0.0: never.
        is_working: whether it was at work at the last look.
    """

    KEPT = kept("worked_at is_working")
    ANEW = ("_began", "_spent", "_uses", "_told")

    def __init__(self) -> None:
        self.worked_at = 0.0
        self.is_working = False
        self._began = self._spent = 0.0  # of the current measurement
        self._uses = False  # the processor, by the last measurement
        self._told = ""

    def look(
        self,
        now: float,
        last_use: float,
        says_so: bool,
        idle_timeout: float,
        spent: Callable[[], float],
        had: Callable[[], float],
    ) -> None:
        """Take note of what the site is doing now.

        Args:
            now: monotonic seconds.
            last_use: of the last request; a measurement that includes one shows nothing.
            says_so: one of its processes has reported that it is busy.
            idle_timeout: of the site.
            spent: returns the seconds of processor time that its processes have used.
            had: returns how much of a processor one process can have (`multisite.supervisor.process.kernel`).
        """
        seconds = now - self._began
        if seconds >= window(now - last_use, idle_timeout):
            used = spent()
            least = SHARE * max(LEAST, had()) * seconds
            self._uses = last_use < self._began and used - self._spent >= least
            self._began, self._spent = now, used
        elif last_use >= self._began:
            self._uses = False
        self.is_working = says_so or self._uses
        if self.is_working:
            self.worked_at = now

    def done(self, now: float) -> None:
        """Take note that a process has reported that it is no longer busy."""
        self.worked_at = now

    def news(self, last_use: float, idle_timeout: float, busy_timeout: float, now: float) -> str:
        """Return what to log about it, each message once after each request: "" for nothing."""
        what = ""
        if self.is_working and idle_timeout and now - last_use >= idle_timeout:
            what = "keeps running without requests, because it is at work"
            if now - last_use >= busy_timeout:
                what = f"is at work, and has had no request for busy_timeout ({busy_timeout:g} s), so it counts as idle"
        news, self._told = what if what != self._told else "", what
        return news
