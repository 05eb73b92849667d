"""What spawned sites have used so far: counted by the supervisor, kept over its restarts, read by the command line.

Each site has one `Tally`, by its name. Whoever keeps them writes the whole document, and seldom. How long requests
took is reported in the form of the table that load testers print.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import zip_longest
from typing import Any

from multisite.config.model import Home
from multisite.runner.board import LATENCIES
from multisite.sites.statefile import StateFile

MOST = 10_000  # sites that are remembered; of more, those that were used last


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over all processes that a site has had. Times are Unix seconds, 0.0: never.

    Attributes:
        starts: processes, cold_starts those of them that somebody waited for while nothing ran.
        requests: None if they are not counted, because the site has its own server.
        busy: seconds spent on requests.
        cpu: seconds of processor time.
        alive: seconds that processes have served or were ready to.
        received, sent: bytes.
        latencies: requests by how long they took (`multisite.runner.board.LATENCIES`).
    """

    starts: int = 0
    cold_starts: int = 0
    requests: int | None = None
    errors: int = 0
    busy: float = 0.0
    received: int = 0
    sent: int = 0
    cpu: float = 0.0
    alive: float = 0.0
    first_start: float = 0.0
    last_use: float = 0.0
    latencies: tuple[int, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        counted = [one.requests for one in (self, other) if one.requests is not None]
        return Tally(
            self.starts + other.starts,
            self.cold_starts + other.cold_starts,
            sum(counted) if counted else None,
            self.errors + other.errors,
            self.busy + other.busy,
            self.received + other.received,
            self.sent + other.sent,
            self.cpu + other.cpu,
            self.alive + other.alive,
            min(filter(None, (self.first_start, other.first_start)), default=0.0),
            max(self.last_use, other.last_use),
            tuple(map(sum, zip_longest(self.latencies, other.latencies, fillvalue=0))),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON takes."""
        return {name: round(value, 6) if type(value) is float else value for name, value in asdict(self).items()}


_FIELDS = tuple(field.name for field in fields(Tally))


def tally_of(row: Any) -> Tally | None:
    """Return what `Tally.as_dict` was made of; None where that cannot be."""
    if not isinstance(row, dict):
        return None
    values = {name: row[name] for name in _FIELDS if name in row and name != "latencies"}
    latencies = row.get("latencies", ())
    if isinstance(latencies, list) and len(latencies) == len(LATENCIES) + 1 and {*map(type, latencies)} == {int}:
        values["latencies"] = tuple(latencies)  # of other buckets nothing can be said
    good = all(
        type(value) in (int, float) or (value is None and name == "requests") or name == "latencies"
        for name, value in values.items()
    )
    return Tally(**values) if good else None


class Tallies:
    """The document of one home."""

    def __init__(self, home: Home) -> None:
        self._file = StateFile(home, "statistics")

    def all(self) -> dict[str, Tally]:
        """Return the tallies that were kept, by site name."""
        return {name: tally for name, row in self._file.rows().items() if (tally := tally_of(row))}

    def keep(self, tallies: dict[str, Tally]) -> bool:
        """Put `tallies` in place of those that were kept; False where they cannot be written."""
        newest = sorted(tallies.items(), key=lambda item: -item[1].last_use)[:MOST]
        return self._file.store({name: tally.as_dict() for name, tally in sorted(newest)})


#: shares in per cent: those of ApacheBench's table, and what the slowest in a thousand see
SHARES = (50.0, 66.0, 75.0, 80.0, 90.0, 95.0, 98.0, 99.0, 99.9)


def percentiles(bounds: Sequence[float], counts: Sequence[int]) -> dict[float, float | None]:
    """Return within how many seconds each share of the requests was answered.

    Args:
        bounds: upper bounds of the buckets in seconds, rising.
        counts: requests in each bucket, and in the one above the last bound, of which no more is known.

    Returns:
        share in per cent → seconds, between the bounds of its bucket as if its requests were spread evenly; None
        where there were no requests, or infinity above the last bound.
    """
    total = sum(counts)
    return {share: _at(bounds, counts, total * share / 100) if total else None for share in SHARES}


def _at(bounds: Sequence[float], counts: Sequence[int], wanted: float) -> float:
    below = 0
    for number, count in enumerate(counts):
        if count and below + count >= wanted:
            if number == len(bounds):
                break
            lower = bounds[number - 1] if number else 0.0
            return lower + (bounds[number] - lower) * (wanted - below) / count
        below += count
    return float("inf")
