"""Hours of the week, as ``warm =`` has them: ``mon-fri 8-18, sat 10-14`` (pure).

Hours without days are those of the days before them, or of every day. Hours that end before they begin end on the next
day. All of it is local time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
EVERY_DAY = frozenset(range(7))
DAY = 24 * 60  # minutes

_HOURS = re.compile(r"(\d{1,2})(?::(\d\d))?-(\d{1,2})(?::(\d\d))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Hours:
    """From a minute of each of some days until another, which may be of the day after.

    Attributes:
        days: 0 is Monday.
    """

    days: frozenset[int]
    begin: int
    end: int

    def hold(self, day: int, minute: int) -> bool:
        """Tell whether a minute of a day is among them."""
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        return (day in self.days and minute >= self.begin) or ((day - 1) % 7 in self.days and minute < self.end)


@lru_cache(maxsize=1024)
def parse(text: str) -> tuple[Hours, ...]:
    """Return what a text says.

    Raises:
        ValueError: it says no hours; the reason completes "KEY = VALUE: …".
    """
    found: list[Hours] = []
    days: frozenset[int] = frozenset()
    is_new = True  # the next days begin another list
    for item in filter(None, map(str.strip, re.split(r"[,;\n]", re.sub(r"\s*-\s*", "-", text.lower())))):
        for word in item.split():
            if hours := _HOURS.fullmatch(word):
                found.append(Hours(days or EVERY_DAY, *_minutes(hours)))
                is_new = True
            else:
                days, is_new = (frozenset() if is_new else days) | frozenset(_days(word)), False
    if not found or not is_new:
        raise ValueError("names no hours such as mon-fri 8-18")
    return tuple(found)


def hold(hours: tuple[Hours, ...], day: int, minute: int) -> bool:
    """Tell whether a minute of a day, 0 for Monday, is among `hours`."""
    return any(one.hold(day, minute) for one in hours)


def _days(word: str) -> Iterator[int]:
    first, dash, last = word.partition("-")
    begin = _day(first)
    yield begin
    end = _day(last) if dash else begin
    while begin != end:
        begin = (begin + 1) % 7
        yield begin


def _day(name: str) -> int:
    if name in NAMES:
        return NAMES.index(name)
    if name not in DAYS:
        raise ValueError(f"{name!r} is neither a day such as mon nor hours such as 8-18 or 8:30-18:00")
    return DAYS.index(name)


def _minutes(hours: re.Match[str]) -> tuple[int, int]:
    begin, end = (int(hours[at]) * 60 + int(hours[at + 1] or 0) for at in (1, 3))
    if max(begin, end) > DAY or any(int(hours[at] or 0) > 59 for at in (2, 4)) or begin == DAY:
        raise ValueError(f"{hours[0]} is no time of day; a day ends at 24")
    if begin == end:
        raise ValueError(f"{hours[0]} ends when it begins; the whole day is 0-24")
    return begin, end % DAY if begin > end else end
