"""Which sites need somebody, why, and what helps, in the order of need (pure; from the rows of ``--json status``)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from multisite.status.needs import FAILED

SLOW = 2.0  # seconds that requests take on average
MOST_WAITING = 1  # requests that wait at once without being worth a word

Row = dict[str, Any]
#: what is the matter, the most urgent first
CANNOT_START, OLD_SERVES, WAITING, SLOWLY, OVER, OUT = (
    "Cannot start",
    "Old version serves",
    "Requests wait",
    "Slow",
    "Over its budget",
    "Out of service",
)
ORDER = (CANNOT_START, OLD_SERVES, WAITING, SLOWLY, OVER, OUT)


@dataclass(frozen=True)
class Need:
    """What is the matter with one site.

    Attributes:
        what: one of `ORDER`.
        cause, remedy: sentences; a remedy may be a command, "" where nobody knows one.
        incident: its id, "" for none.
        at: Unix seconds, 0.0 where that is not known.
    """

    site: str
    what: str
    cause: str
    remedy: str = ""
    incident: str = ""
    at: float = 0.0


def needs(rows: Iterable[Row]) -> list[Need]:
    """Return what needs somebody, the most urgent first."""
    found = [need for row in rows if row.get("enabled") for need in of_site(row)]
    return sorted(found, key=lambda need: (ORDER.index(need.what), -need.at, need.site))


def of_site(row: Row) -> list[Need]:
    """Return what is the matter with one site."""
    return [need for need in (_fault(row), *_use(row)) if need]


def _fault(row: Row) -> Need | None:
    """What is wrong with its newest version, or with its upstreams."""
    name, failure = str(row["name"]), row.get("failure") or {}
    fault: Row = next((one for one in row.get("problems") or () if one.get("severity", "error") == "error"), {})
    cause = str(failure.get("failure") or fault.get("reason") or row.get("reason") or "")
    remedy = str(failure.get("remedy") or fault.get("remedy") or "")
    more = (str(failure.get("incident") or ""), float(failure.get("at") or 0.0))
    if row.get("state") in FAILED:
        return Need(name, CANNOT_START, cause, remedy or f"multisite explain {name}", *more)
    if failure.get("serving") or row.get("replace_failure"):
        cause = str(failure.get("failure") or row.get("replace_failure"))
        return Need(name, OLD_SERVES, cause, remedy or f"multisite restart --wait {name}", *more)
    if remedy and failure:
        return Need(name, OVER if "memory" in cause else SLOWLY, cause, remedy, *more)
    return None


def _use(row: Row) -> Iterable[Need]:
    name, waiting = str(row["name"]), int(row.get("waiting") or 0)
    if waiting > MOST_WAITING:
        more = f"multisite set {name} processes={len(row.get('pids') or ()) + 1}"
        yield Need(name, WAITING, f"{waiting} requests wait for a process", more)
    whole = (row.get("latency") or {}).get("whole") or {}
    took = whole.get("seconds", 0.0) / whole["count"] if whole.get("count") else 0.0
    if took > SLOW:
        yield Need(name, SLOWLY, f"its requests take {took:.1f} s on average", f"multisite logs {name}")
    if row.get("service") == "expired":
        yield Need(name, OUT, "its date of expiry has passed", f"multisite set {name} expires=")
