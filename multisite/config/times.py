"""Times that a site's file names: when its time is over (``expires``), and hours of the week (``warm``). Pure.

Hours without days are those of the days before them, or of every day. Hours that end before they begin end on the next
day. All times are local unless they have a zone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

#: seconds before the end from which a check warns; of a short time, its last quarter
NEAR = 3 * 86400.0

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?) ?(Z|[+-]\d\d:\d\d)?", re.ASCII | re.IGNORECASE)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
EVERY_DAY = frozenset(range(7))
DAY = 24 * 60  # minutes

_HOURS = re.compile(r"(\d{1,2})(?::(\d\d))?-(\d{1,2})(?::(\d\d))?", re.ASCII)


def parse_end(text: str, duration: Callable[[str], float]) -> float | datetime:
    """Return seconds from the time of enabling, or the moment; a day without a time is the last one.

    Args:
        text: ``7d``, ``2026-12-31``, ``2026-12-31 18:00`` or the same with ``Z`` or an offset (RFC 3339); without
            either it is local time.
        duration: reads the first form.

    Raises:
        ValueError: it is none of these; the reason completes "KEY = VALUE: …".
    """
    try:
        if _DATE.fullmatch(text):
            return datetime.fromisoformat(text) + timedelta(days=1)
        if found := _MOMENT.fullmatch(text):
            day, time, offset = found[1], found[2], (found[3] or "").upper().replace("Z", "+00:00")
            return datetime.fromisoformat(f"{day}T{time}{offset}")
    except (ValueError, OverflowError):
        raise ValueError("is not a valid date") from None
    try:
        return duration(text)
    except ValueError:
        raise ValueError("is neither a date such as 2026-12-31 or 2026-12-31 18:00 nor a duration such as 7d") from None


def end_of(told: float | datetime, enabled_at: float) -> float:
    """Return when it is over, in Unix seconds."""
    if not isinstance(told, datetime):
        return enabled_at + told
    try:
        return told.timestamp()
    except (ValueError, OverflowError):  # before the epoch, or after what the system's clock can tell
        return 0.0 if told.year < 2000 else float("inf")


def is_near(told: float | datetime, left: float) -> bool:
    """Tell whether so many seconds are few."""
    return left < (NEAR if isinstance(told, datetime) else min(NEAR, told / 4))


@dataclass(frozen=True, slots=True)
class Hours:
    """The time from one minute to another on some days of the week; it may end on the next day.

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
def parse_hours(text: str) -> tuple[Hours, ...]:
    """Read hours of the week.

    Raises:
        ValueError: it has no hours; the reason completes "KEY = VALUE: …".
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
        raise ValueError(f"{hours[0]} is not a time of day; a day ends at 24")
    if begin == end:
        raise ValueError(f"{hours[0]} ends when it begins; the whole day is 0-24")
    return begin, end % DAY if begin > end else end
