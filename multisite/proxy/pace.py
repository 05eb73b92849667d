"""How long a worker's thread waits for a site before it goes on to somebody else's request. Pure.

A quick answer costs least where the thread that sent the request waits for it. So a site is given some patience,
but none while it has just shown itself slow: the patience that its slow requests use up is then a small share of
the workers' time however many there are.
"""

from __future__ import annotations

PATIENCE = 0.005  # seconds to wait for a complete answer
FIRST_PAUSE = 0.1  # seconds without patience after a slow answer; they double with each further one
LONGEST_PAUSE = 10.0


class Pace:
    """What one site showed in this process; threads share it, and a lost update does no harm."""

    __slots__ = ("_patience", "_pause", "_until")

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._pause = 0.0
        self._until = 0.0

    def patience(self, now: float) -> float:
        """Return the seconds to wait for an answer."""
        return 0.0 if now < self._until else self._patience

    def was_slow(self, now: float) -> None:
        """Note that an answer did not come in time."""
        self._pause = min(LONGEST_PAUSE, 2 * self._pause or FIRST_PAUSE)
        self._until = now + self._pause

    def took(self, seconds: float, now: float) -> None:
        """Note how long an answer took that nobody waited for; quick ones win the patience back step by step."""
        if seconds < self._patience:
            self._pause = self._pause / 2 if self._pause > FIRST_PAUSE else 0.0
            self._until = min(self._until, now + self._pause)
        elif now >= self._until:
            self.was_slow(now)
