"""Points in time as people type them: ``10m``, ``14:30``, ``yesterday``, ``2026-11-29 14:30``."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta

FORMS = "a duration (90s, 10m, 2h, 1d, 1h30m), a time (14:30), a day (today, yesterday, 2026-11-29), or day and time"
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)"
_DURATION = re.compile(rf"{_PART}(?:\s*{_PART})*")
_TIME = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")


def point_in_time(text: str, now: float) -> float:
    """Return the time that a text means, in seconds since 1970; without a zone it is local time.

    Args:
        text: one of `FORMS`; a duration, with or without a ``-`` before it, counts back from now.
        now: seconds since 1970.

    Raises:
        ValueError: it has none of these forms.
    """
    words = text.strip()
    bare = words.removeprefix("-").removesuffix(" ago").strip().lower()
    if _DURATION.fullmatch(bare):
        return now - sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, bare))
    here = datetime.fromtimestamp(now)
    if words.lower() == "now":
        return now
    day, rest = _day(words, here)
    clock = _TIME.fullmatch(rest)
    if day is not None and (clock or not rest):
        hour, minute, second = (int(part or 0) for part in clock.groups()) if clock else (0, 0, 0)
        moment = time(hour, minute, second)
        found = datetime.combine(day, moment)
        if not clock or rest != words or found <= here:
            return found.timestamp()
        return (found - timedelta(days=1)).timestamp()  # the most recent one
    return datetime.fromisoformat(re.sub(r"[Zz]\Z", "+00:00", words)).timestamp()


def _day(words: str, here: datetime) -> tuple[datetime | None, str]:
    """Return the day at the beginning, and the text after it."""
    first, _, rest = words.partition(" ")
    days = {"today": 0, "yesterday": 1}
    if first.lower() in days:
        return here - timedelta(days=days[first.lower()]), rest.strip()
    return (here, words) if _TIME.fullmatch(words) else (None, words)
