"""The figures of one site: what the workers counted, and what its own processes counted, each request once.

A worker counts what it answers itself and what it relays. A site's processes count everything that they get, and what
is relayed apart from the rest (`multisite.runner.board`). The supervisor reports that rest: what was handed over with
its client's connection, and what came straight to the site's socket. `status`, `stats` and everything else that shows
figures take them from here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from multisite.runner import board
from multisite.runner.board import STATUSES
from multisite.sites.tally import KINDS

ENOUGH = 20  # measured requests below which a percentile says nothing
MOST_SHOWN = 100  # requests in flight
COUNTED = (
    "requests_in_flight",
    "requests",
    "errors",
    "received",
    "sent",
    "busy",
    "in_flight",
    "statuses",
    "latencies",
    "latency",
)
STARTED = ("starts_by_kind", "start_seconds", "start_failures", "stops_by_reason")


@dataclass
class Sums:
    """What all workers so far have counted for one site.

    Attributes:
        measured: how many of the requests the bytes and times are about.
        busy: seconds between requests and the ends of their answers, of all requests together.
        latencies: of the measured ones, a count for each of `board.LATENCIES` and one for what took longer.
        statuses: how many have ended, for each of `board.STATUSES`.
        last_use: Unix seconds, 0.0: never, as far as that is known.
        cpu: seconds of processor time that measured requests took in workers, the import that one waited for included.
        relays: of how many the application has said how long it took.
        relay_time: seconds that the relay has added to those, until their answers began.
    """

    requests: int = 0
    errors: int = 0
    sent: int = 0
    busy: float = 0.0
    in_flight: int = 0
    latencies: list[int] = field(default_factory=lambda: [0] * (len(board.LATENCIES) + 1))
    statuses: list[int] = field(default_factory=lambda: [0] * len(board.STATUSES))
    received: int = 0
    last_use: float = 0.0
    cpu: float = 0.0
    relays: int = 0
    relay_time: float = 0.0
    flights: tuple[tuple[str, str, float], ...] = ()

    @property
    def measured(self) -> int:
        """How many requests have been measured to their end."""
        return sum(self.latencies)

    def add(self, record: board.Record) -> None:
        """Add what one worker counted."""
        self.requests += record.requests
        self.errors += record.errors
        self.sent += record.sent
        self.received += record.received
        self.busy += record.busy
        self.cpu += record.cpu
        self.relays += record.relays
        self.relay_time += record.relay_time
        self.latencies = [a + b for a, b in zip(self.latencies, record.latencies, strict=True)]
        self.statuses = [a + b for a, b in zip(self.statuses, record.statuses, strict=True)]
        if record.last_use:
            self.last_use = max(self.last_use, time.time() - (time.monotonic() - record.last_use))

    def all_of_them(self) -> Sums:
        """Return the figures of all requests, as those that were measured suggest; errors are known of all.

        An earlier release knew those of the measured ones only.
        """
        known = sum(self.statuses)
        ended = known or self.requests - self.in_flight
        if not self.measured or ended <= self.measured:
            return self
        share = ended / self.measured
        errors = self.errors if known else round(self.errors * share)
        sent, received = round(self.sent * share), round(self.received * share)
        return replace(self, errors=errors, sent=sent, received=received, busy=self.busy * share, cpu=self.cpu * share)


def counted(sums: Sums | None, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return `COUNTED` for one site: bytes, seconds, and counts; None for what nobody has measured.

    Args:
        sums: what the workers counted, None where they have not seen the site.
        told: what the supervisor reports of it, or what it wrote down last; {} where it knows nothing.
    """
    seen = (sums or Sums()).all_of_them()
    own = told if told.get("requests") is not None else {}
    statuses = _added(seen.statuses, own.get("statuses"))
    latencies = _added(seen.latencies, own.get("latencies"))
    return {
        "requests": seen.requests + (own.get("requests") or 0),
        "errors": seen.errors + (own.get("errors") or 0),
        "received": seen.received + (own.get("received") or 0),
        "sent": seen.sent + (own.get("sent") or 0),
        "busy": round(seen.busy + (own.get("busy") or 0.0), 6),
        "in_flight": _in_flight(seen, told),
        "requests_in_flight": _shown([*seen.flights, *(told.get("requests_in_flight") or ())]),
        "statuses": dict(zip(STATUSES[1:], statuses[1:], strict=True)),
        "latencies": latencies if any(latencies) else None,
        "latency": _split(sums, told),
    }


def started(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return `STARTED` for one site; arguments as of `counted`."""
    kinds = told.get("starts_by_kind") or {}
    return {
        "starts_by_kind": {kind: kinds.get(kind, 0) for kind in KINDS},
        "start_seconds": {"count": told.get("ready") or 0, "sum": told.get("start_seconds") or 0.0},
        "start_failures": told.get("start_failures") or 0,
        "stops_by_reason": dict(told.get("stops_by_reason") or {}),
    }


def last_use(sums: Sums | None, told: Mapping[str, Any]) -> float | None:
    """Return when a site was last used, in Unix seconds; None: never, as far as that is known."""
    return round(max(sums.last_use if sums else 0.0, told.get("last_use") or 0.0), 3) or None


def cpu(sums: Sums | None, told: Mapping[str, Any]) -> float | None:
    """Return the seconds of processor time of a site: of its processes, and of the workers; None: not known."""
    workers = sums.all_of_them().cpu if sums else 0.0
    return round(workers + (told.get("cpu") or 0.0), 6) if workers or told.get("cpu") is not None else None


def _shown(flights: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    """Describe requests in flight, the oldest first; their texts are those of visitors."""
    oldest = sorted(flights, key=lambda flight: -flight[2])[:MOST_SHOWN]
    return [{"method": method, "path": path, "age": round(age, 3)} for method, path, age in oldest]


def _in_flight(seen: Sums, told: Mapping[str, Any]) -> int:
    """Return how many requests there are; what is relayed is in flight in a worker and in a process."""
    theirs = told.get("in_flight") or 0
    if told.get("requests") is None:  # the kernel's count of connections, on which everything comes
        return max(seen.in_flight, theirs)
    return seen.in_flight + max(0, theirs - (told.get("relayed_now") or 0))


def _split(sums: Sums | None, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the time of requests went: sums of seconds, and of how many; None where nobody measures."""
    return {
        "queued": _spans(told.get("queued"), told.get("queued_seconds")),
        "start": _spans(told.get("ready"), told.get("start_seconds")),
        "relay": _spans(sums.relays, sums.relay_time) if sums else None,
        "app": _spans(told.get("app"), told.get("app_seconds")),
        "whole": _spans(sums.measured, sums.busy) if sums else None,
    }


def _spans(count: int | None, seconds: float | None) -> dict[str, Any] | None:
    return {"count": count, "seconds": round(seconds or 0.0, 6)} if count else None


def _added(ours: list[int], theirs: Any) -> list[int]:
    """Return the sums of two rows of counts; a row of another length counts nothing."""
    if not isinstance(theirs, Sequence) or len(theirs) != len(ours):
        return list(ours)
    return [a + b for a, b in zip(ours, theirs, strict=True)]
