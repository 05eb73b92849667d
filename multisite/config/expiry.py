"""When a site's time is over, as ``expires =`` says: at a date, or so long after the site was enabled (pure)."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

#: seconds before the end from which a check warns; of a short time, its last quarter
NEAR = 3 * 86400.0

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?) ?(Z|[+-]\d\d:\d\d)?", re.ASCII | re.IGNORECASE)


def parse(text: str, duration: Callable[[str], float]) -> float | datetime:
    """Return seconds from the time of enabling, or the moment; a day without a time is the last one.

    Args:
        text: ``7d``, ``2026-12-31``, ``2026-12-31 18:00`` or the same with ``Z`` or an offset (RFC 3339); without
            either it is local time.
        duration: reads the first form.

    Raises:
        ValueError: it is none of these; the reason completes "KEY = VALUE: …".
    """
    try:
        if _DAY.fullmatch(text):
            return datetime.fromisoformat(text) + timedelta(days=1)
        if found := _MOMENT.fullmatch(text):
            day, time, offset = found[1], found[2], (found[3] or "").upper().replace("Z", "+00:00")
            return datetime.fromisoformat(f"{day}T{time}{offset}")
    except (ValueError, OverflowError):
        raise ValueError("is no date that there is") from None
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
