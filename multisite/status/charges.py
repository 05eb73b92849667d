"""What sites have used between two days, for the command line and the page (`multisite.sites.spending`)."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from typing import Any

from multisite.config.model import Home
from multisite.sites.spending import NOTHING, Days, Spending, added, day_of

SPAN = 30  # days, today included, where nobody names a month


def charges(home: Home, first: str, last: str, wanted: Callable[[str], bool] = lambda _name: True) -> dict[str, Any]:
    """Return the bill as JSON takes it: the sums of each site, of each day, and of all.

    Args:
        first, last: days, as ``2026-11-29``, of UTC; both belong to the bill.
        wanted: tells whether a site is on it.
    """
    days = Days(home)
    used = {
        day: {name: one for name, one in days.read(day)[0].items() if wanted(name)}
        for day in days.all()
        if first <= day <= last
    }
    sums = added(used.values())
    return {
        "from": first,
        "to": last,
        "sites": [
            {
                "name": name,
                **_as_dict(sums[name]),
                "days": [{"day": day, **_as_dict(rows[name])} for day, rows in used.items() if name in rows],
            }
            for name in sorted(sums, key=lambda name: (-sums[name].cpu, -sums[name].memory, name))
        ],
        "total": _as_dict(added({"": one} for one in sums.values()).get("", NOTHING)),
    }


def span(month: str, now: float) -> tuple[str, str]:
    """Return the first and the last day of a month, as ``2026-11``; of "" those of the last 30 days.

    Raises:
        ValueError: that is no month.
    """
    if not month:
        return day_of(now - (SPAN - 1) * 86400), day_of(now)
    if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month) or month < "1970":
        raise ValueError(f"{month!r} is no month; write it as {day_of(now)[:7]}")
    _, length = calendar.monthrange(int(month[:4]), int(month[5:]))
    return f"{month}-01", f"{month}-{length}"


def _as_dict(one: Spending) -> dict[str, float]:
    return one.rounded()._asdict()
