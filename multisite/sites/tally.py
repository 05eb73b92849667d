"""What spawned sites have used so far: counted by the supervisor, kept over its restarts, read by the command line.

Each site has one `Tally`, by its name. Whoever keeps them writes the whole document, and seldom. How long requests
took is reported in the form of the table that load testers print.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import zip_longest
from operator import add
from typing import Any

from multisite.config.model import Home
from multisite.runner.board import LATENCIES, STATUSES
from multisite.sites.statefile import StateFile

MOST = 10_000  # sites that are remembered; of more, those that were used last


KINDS = ("cold", "warm", "deploy", "recycle")
REASONS = (
    *(
        "idle",
        "evicted",
        "asked",
        "restart",
        "reload",
        "memory",
        "max_requests",
        "disabled",
        "expired",
        "elsewhere",
        "drained",
    ),
    *("moved", "owner", "crash", "other"),
)
_REQUESTS = ("requests", "errors", "busy", "received", "sent", "latencies", "statuses")


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over all processes that a site has had. Times are Unix seconds, 0.0: never.

    Requests are those that no worker has counted, with their errors, seconds and bytes (`multisite.sites.figures`).

    Attributes:
        starts: processes, cold_starts those of them that somebody waited for while nothing ran.
        requests: None where nobody counts them, because a server of its own serves the site.
        busy: seconds spent on requests.
        cpu: seconds of processor time.
        alive: seconds that processes have served or were ready to.
        received, sent: bytes.
        latencies: requests by how long they took (`multisite.runner.board.LATENCIES`).
        statuses: requests that have ended by the class of their status (`multisite.runner.board.STATUSES`).
        starts_by_kind: processes for each of `KINDS`.
        stops_by_reason: processes that had served and have ended, for each of `REASONS`.
        start_failures: processes that have ended before they were ready, or could not be made.
        ready, start_seconds: processes that became ready, and how long they took for that.
        queued, queued_seconds: times that somebody waited while nothing ran, until a process was being made.
        app, app_seconds: requests that the processes have answered, those included that a worker counts.
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
    statuses: tuple[int, ...] = ()
    starts_by_kind: Mapping[str, int] = field(default_factory=dict)
    stops_by_reason: Mapping[str, int] = field(default_factory=dict)
    start_failures: int = 0
    ready: int = 0
    start_seconds: float = 0.0
    queued: int = 0
    queued_seconds: float = 0.0
    app: int = 0
    app_seconds: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{name: _SUMS.get(name, add)(getattr(self, name), getattr(other, name)) for name in _FIELDS})

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON takes."""
        return {name: round(value, 6) if type(value) is float else value for name, value in asdict(self).items()}


_FIELDS = tuple(field.name for field in fields(Tally))
_COUNTED = {"latencies": len(LATENCIES) + 1, "statuses": len(STATUSES)}
_NAMED = {"starts_by_kind": KINDS, "stops_by_reason": REASONS}


def _requests(one: int | None, other: int | None) -> int | None:
    return None if one is other is None else (one or 0) + (other or 0)


def _earliest(one: float, other: float) -> float:
    return min(filter(None, (one, other)), default=0.0)


def _counts(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(sum, zip_longest(one, other, fillvalue=0)))


def _by_name(one: Mapping[str, int], other: Mapping[str, int]) -> Mapping[str, int]:
    return {
        name: one.get(name, 0) + other.get(name, 0) for name in (*one, *(each for each in other if each not in one))
    }


_SUMS: dict[str, Callable[[Any, Any], Any]] = {
    "requests": _requests,
    "first_start": _earliest,
    "last_use": max,
    "latencies": _counts,
    "statuses": _counts,
    "starts_by_kind": _by_name,
    "stops_by_reason": _by_name,
}


def tally_of(row: Any) -> Tally | None:
    """Return what `Tally.as_dict` was made of; None where that cannot be.

    Earlier releases counted the requests that workers count, too; they knew no statuses.
    """
    if not isinstance(row, dict):
        return None
    values = {name: row[name] for name in _FIELDS if name in row and name not in (*_COUNTED, *_NAMED)}
    if not all(type(value) in (int, float) or (value is None and name == "requests") for name, value in values.items()):
        return None
    for name, size in _COUNTED.items():
        counts = row.get(name)
        if isinstance(counts, list) and len(counts) == size and {*map(type, counts)} == {int}:
            values[name] = tuple(counts)  # of other buckets nothing can be said
    for name, known in _NAMED.items():
        counts = row.get(name)
        if isinstance(counts, dict):
            values[name] = {each: count for each, count in counts.items() if each in known and type(count) is int}
    if "statuses" not in row:
        values = {name: value for name, value in values.items() if name not in _REQUESTS}
    return Tally(**values)


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


def percentiles(bounds: Sequence[float], counts: Sequence[int], least: int = 1) -> dict[float, float | None]:
    """Return within how many seconds each share of the requests was answered.

    Args:
        bounds: upper bounds of the buckets in seconds, rising.
        counts: requests in each bucket, and in the one above the last bound, of which no more is known.
        least: how many requests there have to be.

    Returns:
        share in per cent → seconds, between the bounds of its bucket as if its requests were spread evenly; None
        where there were fewer requests, or infinity above the last bound.
    """
    total = sum(counts)
    return {share: _at(bounds, counts, total * share / 100) if total >= least else None for share in SHARES}


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Return within how many seconds `share` per cent of the requests were answered; otherwise as `percentiles`."""
    total = sum(counts)
    return _at(bounds, counts, total * share / 100) if total else None


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
