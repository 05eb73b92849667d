"""When a site was used last."""

from __future__ import annotations

import time

from multisite.supervisor.scoreboard import Figures


class Activity:
    """The last use of a site: by the scoreboard, else by the kernel's time of the last connection."""

    def __init__(self, now: float) -> None:
        self.last_use = now  # monotonic seconds
        self._stamp = 0.0
        self._excused = 0

    def used(self, now: float) -> None:
        """Note that the site is used at this moment."""
        self.last_use = max(self.last_use, now)

    def excuse(self) -> None:
        """Note that a connection is about to come that is no use of the site.

        Processes that count tell such requests from others; for other servers a connection is forgiven.
        """
        self._excused += 1

    def look(self, now: float, busy: int, figures: Figures, stamp: float) -> None:
        """Move the last use on.

        Args:
            now: monotonic seconds.
            busy: requests in flight and connections that wait.
            figures: what the site's own processes count.
            stamp: Unix time of the last connection (`Listener.last_use`).
        """
        if figures.in_flight is None and self._excused:
            self._look_at_connections(now, busy, stamp)
        elif busy > figures.quiet:
            self.last_use = now
        elif figures.in_flight is not None:
            self.used(min(now, figures.last_use))  # a site can write anything there
        elif stamp != self._stamp:  # of the wall clock, whose jumps may not move it far
            self.used(now - min(2.0, max(0.0, time.time() - stamp)))
        self._stamp = stamp

    def _look_at_connections(self, now: float, busy: int, stamp: float) -> None:
        """Leave out as many connections as are excused; when those that came are gone, so is the excuse."""
        if busy > self._excused:
            self.last_use = now
        elif not busy and stamp != self._stamp:
            self._excused = 0
