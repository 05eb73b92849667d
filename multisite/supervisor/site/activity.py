"""When a site was used last."""

from __future__ import annotations

import time

from multisite.supervisor.handover import Handed
from multisite.supervisor.site.scoreboard import Figures


class Activity(Handed):
    """The last use of a site: by the scoreboard, else by the kernel's time of the last connection."""

    HANDED = ("last_use", "asked", "_stamp")

    def __init__(self, now: float) -> None:
        self.last_use = now  # monotonic seconds
        self.asked = 0.0  # monotonic seconds of the last request as far as they are known; 0.0: there was none
        self._stamp = 0.0

    def asked_at(self, now: float) -> None:
        """Note that somebody has asked for the site then."""
        self.asked = max(self.asked, now)

    def used(self, now: float) -> None:
        """Note that the site is used at this moment."""
        self.last_use = max(self.last_use, now)

    def look(self, now: float, busy: int, figures: Figures, stamp: float) -> None:
        """Move the last use on.

        Args:
            now: monotonic seconds.
            busy: requests in flight and connections that wait, as far as they are a use of the site.
            figures: what the site's own processes count.
            stamp: Unix time of the last connection, or of the last that counts (`Listener`).
        """
        if busy:
            self.last_use = now
            self.asked_at(now)
        elif figures.in_flight is not None:
            self.used(min(now, figures.last_use))  # a site can write anything there
        elif stamp != self._stamp:  # of the wall clock, whose jumps may not move it far
            self.used(now - min(2.0, max(0.0, time.time() - stamp)))
            self.asked_at(now)
        self._stamp = stamp
