"""What each site did between the last looks, for its curves (pure)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multisite.sites.history import Sample, summed

MOST = 120  # looks that are kept
STEADY = 5  # looks after which a change shows in full
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"


@dataclass
class Trend:
    """The curves of one site, oldest first.

    Attributes:
        rate, errors: requests and errors a minute.
        cpu: per cent of a processor.
        memory: bytes.
    """

    rate: deque[float] = field(default_factory=lambda: deque(maxlen=MOST))
    errors: deque[float] = field(default_factory=lambda: deque(maxlen=MOST))
    cpu: deque[float] = field(default_factory=lambda: deque(maxlen=MOST))
    memory: deque[float] = field(default_factory=lambda: deque(maxlen=MOST))


NO_TREND = Trend()


class Trends:
    """The curves of all sites, from one look to the next."""

    def __init__(self) -> None:
        self._last: dict[str, list[float]] = {}
        self._at = 0.0
        self._known: dict[str, Trend] = {}

    def of(self, name: str) -> Trend:
        """Return the curves of a site."""
        return self._known.get(name, NO_TREND)

    @property
    def requests_a_minute(self) -> float | None:
        """What all sites get; None before the second look."""
        known = [rate for trend in self._known.values() if (rate := now(trend.rate)) is not None]
        return sum(known) if known else None

    def begin(self, past: Mapping[str, Sequence[Sample]], seconds: int) -> None:
        """Take what sites did before the first look.

        Args:
            past: what each site did in each second, oldest first.
            seconds: between two looks.
        """
        for name, samples in past.items():
            trend = self._known.setdefault(name, Trend())
            for at in range(len(samples) % seconds, len(samples), seconds):
                done = summed(samples[at : at + seconds])
                trend.rate.append(done.requests * 60 / seconds)
                trend.errors.append(done.errors * 60 / seconds)
                trend.cpu.append(done.cpu * 100 / seconds)
                trend.memory.append(done.memory)

    def add(self, sites: list[dict[str, Any]], at: float) -> None:
        """Take what one look found.

        Args:
            sites: rows of the document.
            at: when it was, in seconds; later than the last look.
        """
        seconds = at - self._at if self._at else 0.0
        keys = ("requests", "errors", "cpu")
        sums = {site["name"]: [float(site.get(key) or 0) for key in keys] for site in sites}
        for site in sites:
            name = site["name"]
            trend = self._known.setdefault(name, Trend())
            trend.memory.append(float(site.get("memory") or 0))
            if seconds > 0 and name in self._last:
                grown = [max(0.0, now - then) for now, then in zip(sums[name], self._last[name], strict=True)]
                trend.rate.append(grown[0] * 60 / seconds)
                trend.errors.append(grown[1] * 60 / seconds)
                trend.cpu.append(grown[2] * 100 / seconds)
        self._last, self._at = sums, at
        self._known = {name: self._known[name] for name in sums}


def now(curve: deque[float]) -> float | None:
    """Return what a curve is at, the mean of its newest points; None where there is none."""
    newest = list(curve)[-STEADY:]
    return sum(newest) / len(newest) if newest else None


def sparkline(curve: deque[float], width: int, bars: str = BARS, least: float = 1.0) -> str:
    """Draw the last points of a curve, the newest at the right.

    Args:
        curve: the points.
        width: in columns.
        bars: from low to high.
        least: what a full bar stands for at least, so that noise stays low.
    """
    points = list(curve)[-width:] if width else []
    top = max([least, *points])
    drawn = "".join(bars[min(len(bars) - 1, int(point / top * len(bars)))] for point in points)
    return drawn.rjust(width)
