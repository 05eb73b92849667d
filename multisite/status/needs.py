"""Which sites in the document of a home need attention, and which command helps (pure)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

FAILED = ("broken", "backoff", "fatal")  # states in which a site's visitors get an error page
CANNOT_START, OLD_VERSION, FAILING, WAITING, SLOW, OVER_BUDGET = KINDS = (
    "cannot start",
    "old version serves",
    "requests fail",
    "waiting",
    "slow",
    "over budget",
)
SLOWNESS = 1.0  # seconds that requests usually take before somebody should look
LONG = 10.0  # seconds after which a request counts as slow


@dataclass(frozen=True)
class Need:
    """A trouble of a site.

    Attributes:
        name: name of the site.
        kind: one of `KINDS`, the most urgent first.
        cause: a sentence; its text may be hostile.
        remedy: a command, or another remedy.
        incident: the id on the visitor's page and in the log, "" if there is none.
    """

    name: str
    kind: str
    cause: str
    remedy: str
    incident: str = ""

    def as_dict(self) -> dict[str, str]:
        """Describe it for ``--json``."""
        return {"kind": self.kind, "cause": self.cause, "remedy": self.remedy, "incident": self.incident}


def needs(site: dict[str, Any]) -> list[Need]:
    """Return the troubles of an enabled site, the most urgent first.

    Args:
        site: its row of the document.
    """
    if not site["enabled"]:
        return []
    failed = _failed(site)
    return [one for one in ((failed,) if failed else (_noted(site), _waiting(site), _slow(site))) if one]


def of_all(document: dict[str, Any]) -> list[Need]:
    """Return the troubles of all sites in a document, the most urgent first."""
    return [need for site in ordered(document["sites"]) for need in needs(site)]


def ordered(sites: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows by urgency; sites without trouble follow by their cost."""
    return sorted(sites, key=_rank)


def _rank(site: dict[str, Any]) -> tuple[Any, ...]:
    first = next(iter(needs(site)), None)
    urgency = KINDS.index(first.kind) if first else len(KINDS)
    costs = (-(site.get(key) or 0) for key in ("memory", "cpu", "requests"))
    return (not site["enabled"], urgency, *costs, site["name"])


def _failed(site: dict[str, Any]) -> Need | None:
    if site["state"] not in FAILED:
        return None
    name, failure = site["name"], site["failure"]
    if failure and not failure.get("serving"):
        remedy = failure.get("remedy") or _explain(name)
        return Need(name, CANNOT_START, failure["failure"], remedy, failure["incident"])
    wrong = [problem for problem in site["problems"] if problem.get("severity") != "warning"] or site["problems"]
    if not wrong:
        return Need(name, CANNOT_START, site["reason"], _explain(name))
    cause = wrong[0]["reason"] + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else "")
    key = wrong[0].get("key")
    place = f"{key} = {wrong[0].get('value')}: " if key and wrong[0].get("value") else f"{key}: " if key else ""
    return Need(name, CANNOT_START, place + cause, wrong[0].get("remedy") or f"multisite check {shlex.quote(name)}")


def _noted(site: dict[str, Any]) -> Need | None:
    failure, name = site["failure"], site["name"]
    if failure and failure.get("serving"):
        return Need(name, OLD_VERSION, failure["failure"], failure.get("remedy") or _explain(name), failure["incident"])
    if site.get("replace_failure"):
        incident = failure["incident"] if failure else ""
        return Need(name, OLD_VERSION, site["replace_failure"], _explain(name), incident)
    if failure and site["state"] not in FAILED:  # an upstream that is down, or a process that was too large
        kind = OVER_BUDGET if "memory_limit" in failure["failure"] else FAILING
        return Need(name, kind, failure["failure"], failure.get("remedy") or _explain(name), failure["incident"])
    return None


def _waiting(site: dict[str, Any]) -> Need | None:
    count, name = site.get("waiting") or 0, shlex.quote(site["name"])
    if not count:
        return None
    what = f"{count} request{'' if count == 1 else 's'} wait{'s' if count == 1 else ''}"
    if site["state"] == "starting":
        return Need(site["name"], WAITING, f"{what} until it has started", f"multisite logs -f {name}")
    return Need(site["name"], WAITING, f"{what} for a free process", f"multisite set {name} processes=N")


def _slow(site: dict[str, Any]) -> Need | None:
    oldest = max(site.get("requests_in_flight") or (), key=lambda one: one["age"], default=None)
    if not oldest or oldest["age"] < LONG:
        return _usually_slow(site)
    cause = f"{oldest['method']} {oldest['path']} has been running for {oldest['age']:.0f} seconds"
    return Need(site["name"], SLOW, cause, f"multisite status {shlex.quote(site['name'])}")


def _usually_slow(site: dict[str, Any]) -> Need | None:
    latency, name = site.get("latency_lately") or 0.0, site["name"]
    if latency < SLOWNESS:
        return None
    cause = f"its requests have taken up to {latency:.1f} seconds in the last five minutes"
    return Need(name, SLOW, cause, f"multisite stats {shlex.quote(name)}")


def _explain(name: str) -> str:
    return f"multisite explain {shlex.quote(name)}"


def state_of(site: dict[str, Any]) -> str:
    """Return the state for a table: that of the processes, and the kind of outage, if the site is out of service."""
    return f"{site['state']}, {site['service']}" if site["service"] else str(site["state"])
