"""At which hours of the day sites are used: learned by the hour, forgotten by the day; pure but for the caller's clock.

A site is expected in an hour of the day if it was used in it on most of the last days: each day counts for
`LEARNING`, and what was before for the rest. So two days in a row make an hour expected, and two without it do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from multisite.supervisor.handover import Handed

HOURS = 24
LEARNING = 0.3
EXPECTED_FROM = 0.5
LEAD = 120.0  # seconds before the hour at which a process is started
FORGOTTEN_BELOW = 0.05
MOST_SITES = 10_000


class Habits(Handed):
    """The days of all sites.

    Args:
        known: what `as_json` returned once, or anything else, which is taken for nothing.
        local: from Unix seconds to the local time.
    """

    HANDED = ("_days", "_used", "_hour")
    ANEW = ("_local",)

    def __init__(self, known: Any = None, local: Callable[[float], time.struct_time] = time.localtime) -> None:
        self._days: dict[str, list[float]] = _believed(known)
        self._used: set[str] = set()
        self._hour: list[int] = []  # since 1970, and of the local day
        self._local = local

    def look(self, wall: float, used: Iterable[str]) -> bool:
        """Note which sites have been used a moment ago; tells whether anything has been learned.

        Args:
            wall: Unix seconds now.
            used: by name.
        """
        hour = [int(wall // 3600), self._local(wall).tm_hour]
        over = bool(self._hour) and hour[0] != self._hour[0]
        if over:
            self._learn(self._hour[1])
        self._hour = hour
        self._used.update(used)
        return over

    def _learn(self, hour: int) -> None:
        """An hour of the day is over."""
        for name in self._used - self._days.keys():
            if len(self._days) < MOST_SITES:
                self._days[name] = [0.0] * HOURS
        for name, day in list(self._days.items()):
            day[hour] += LEARNING * ((name in self._used) - day[hour])
            if max(day) < FORGOTTEN_BELOW:
                del self._days[name]
        self._used.clear()

    def is_due(self, name: str, wall: float) -> bool:
        """Tell whether an hour begins soon in which the site is expected."""
        now, soon = self._local(wall), self._local(wall + LEAD)
        day = self._days.get(name)
        return bool(day) and now.tm_hour != soon.tm_hour and self._days[name][soon.tm_hour] >= EXPECTED_FROM

    def as_json(self) -> dict[str, list[float]]:
        """Return what a successor learns from."""
        return {name: [round(share, 3) for share in day] for name, day in self._days.items()}


def _believed(known: Any) -> dict[str, list[float]]:
    pairs = known.items() if isinstance(known, dict) else ()
    return {str(name): list(map(float, day)) for name, day in list(pairs)[:MOST_SITES] if _is_day(day)}


def _is_day(day: Any) -> bool:
    return isinstance(day, list) and len(day) == HOURS and all(isinstance(one, int | float) for one in day)
