"""What sites did in the last minutes and the last hour, from their histories."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from multisite.sites import history

HOUR, MINUTE = 3600.0, 60
ENOUGH = 3  # seconds with requests from which a usual latency is known


@dataclass(frozen=True)
class Lately:
    """What a site did.

    Attributes:
        requests: in the last minute.
        errors: in the last hour.
        latency: seconds, as usual in the last five minutes; None where there were too few requests.
    """

    requests: float
    errors: float
    latency: float | None


def of(site: dict[str, Any], now: float) -> Lately | None:
    """Return what a site did; None where nobody keeps that, or it was not used within the last hour.

    Args:
        site: its row of the document.
        now: Unix seconds.
    """
    path = site.get("history_file")
    if not path or now - (site.get("last_use") or 0.0) > HOUR:
        return None
    seconds, minutes = history.read(path, 0, now), history.read(path, 1, now)
    slow = [one.latency for one in seconds if one.latency]
    return Lately(
        requests=sum(one.requests for one in seconds[-MINUTE:]),
        errors=sum(one.errors for one in minutes[-60:]),
        latency=statistics.median(slow) if len(slow) >= ENOUGH else None,
    )


def note(sites: Iterable[dict[str, Any]], now: float) -> tuple[float | None, int | None]:
    """Note in each row its usual latency (``latency_lately``).

    Returns:
        the requests of all of them in the last minute, and their errors in the last hour; None where nobody keeps that.
    """
    rows = [site for site in sites if site.get("history_file")]
    found = [one for site in rows if (one := _noted(site, now))]
    if not rows:
        return None, None
    return sum(one.requests for one in found), round(sum(one.errors for one in found))


def _noted(site: dict[str, Any], now: float) -> Lately | None:
    found = of(site, now)
    site["latency_lately"] = found.latency if found else None
    return found
