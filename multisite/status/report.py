"""The state of a site: where it runs, its state and the reason, found without asking the workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from multisite.config.endpoint import Endpoint
from multisite.config.model import Home, Site, SiteFile
from multisite.config.read import make_site
from multisite.errors import ConnectFailed, MultisiteError, NeedsProcess, Problem
from multisite.proxy.upstream import connect
from multisite.sites import changes, figures, htpasswd, outages, relativepaths, sharing, troubles
from multisite.sites.failures import MEMORY, part
from multisite.sites.placement import (
    CAN_SPAWN,
    CHANGED,
    NOT_EXAMINED,
    UNSHARED,
    Heat,
    Placement,
    Saving,
    basis,
    of_another,
    settle,
)
from multisite.status.fence import fenced
from multisite.status.places import log_problems, socket_problem
from multisite.status.project.faults import site_problems, static_problems
from multisite.status.project.sessions import problem as storage_problem
from multisite.status.sight import UNKNOWN, as_seen, hidden_problems

if TYPE_CHECKING:
    from multisite.sites.failures import Failure
    from multisite.sites.outages import Outage
    from multisite.sites.placements import Row
    from multisite.status.inventory import Inventory

FIGURES = ("pids", "in_flight", "memory", "waiting", "idle", "up_since", "journey", "failure", "replace_failure")
USED = ("starts", "cold_starts", "cpu", "alive", "first_start", "last_use")
COUNTED = (*figures.COUNTED, *figures.STARTED, "history_file")
DAY = 86400
MAY_HAVE_MOVED = "this user may not see whether it has moved into the workers"
REACHED_WITHIN = 1.0  # seconds
_UNSERVED = ("stopped", "starting", "stopping")  # the supervisor's words for a site that no process serves
PROXY = "proxy"  # the state of a site that only relays to upstreams, so there is no process to start or stop


@dataclass
class SiteReport:
    """All that is known about one site; each command prints the part that it needs.

    Values that need the supervisor or a sum are computed only when they are used.

    Attributes:
        placement: "in-process", "spawned" or "proxy"; None for a site whose file has errors, or that is not enabled.
        at_rest: the state as far as it is known without the supervisor: one of the contract's words.
        problems: problems of its file, and those that keep it from being served or started.
        faults: only the latter.
        doubts: problems that only concern ordinary users, and warnings from the workers.
        failure: the note of the workers or the supervisor, if the last attempt to load or start it failed.
        saving: memory that the site would save if it shared, if that is known.
    """

    inventory: Inventory
    site: Site
    placement: str | None
    reason: str
    at_rest: str
    problems: tuple[Problem, ...] = ()
    faults: tuple[Problem, ...] = ()
    doubts: tuple[Problem, ...] = ()
    failure: Failure | None = None
    saving: Saving | None = None
    enabled: bool = True

    @property
    def state(self) -> str:
        """One of the contract's words; if the supervisor manages the site, its word counts.

        A site whose last start failed is "broken" during the next one, too, until a process serves.
        """
        if self.inventory.hidden and self.at_rest not in ("broken", PROXY):
            return UNKNOWN
        known = self.inventory.known.get(self.site.name, {}).get("state")
        if known in _UNSERVED and self.failure and self.failure.broken:
            return "broken"
        spawned = self.placement == "spawned" and self.at_rest != "broken"
        return known if known and (spawned or self.inventory.is_held(self.site.name)) else self.at_rest

    @cached_property
    def outage(self) -> Outage | None:
        """Why the site is out of service, None if it is in service."""
        return self.inventory.outages.of(self.site) if self.enabled else None

    @cached_property
    def trouble(self) -> Failure | None:
        """A lasting failure while the site served: an upstream that is down, or a process that is too large."""
        grown = self.inventory.failed_starts.get(part(self.site.name, MEMORY))
        since = self.figures.get("up_since") or 0.0
        found = [one for one in _troubles(self.inventory, self.site) if one.unreachable or one.at > since]
        return next(iter([*found, *([grown] if grown and not grown.outdated else [])]), None)

    @property
    def lost(self) -> list[Problem]:
        """The upstreams that cannot be reached now, even if no request has noticed it."""
        site, remedy = self.site, "start the server that listens there, or correct upstreams"
        reasons = {one: _unreached(site, one) for one in site.upstreams} if self.placement == "proxy" else {}
        return [
            Problem("MS812", site.file, f"it cannot be reached: {reason}", "service", "upstreams", one, remedy)
            for one, reason in reasons.items()
            if reason
        ]

    @property
    def service(self) -> str | None:
        """The kind of outage in one word, None if the site is in service."""
        return self.outage.kind if self.outage else None

    @cached_property
    def figures(self) -> dict[str, Any]:
        """The supervisor's report on the site's processes, or the saved one; {} if there is none."""
        known = self.inventory.known.get(self.site.name, {})
        if "state" not in known:
            return {**known, **self._counted} if known else known
        found = {key: known[key] for key in (*FIGURES, *USED)}
        if self.site.exclusive:
            found["lease"] = known.get("lease")  # an older supervisor's document has none
        if found["failure"]:
            serving = self.inventory.is_in_workers(self.site.name) or bool(known["replace_failure"])
            found["failure"] = {**found["failure"], "serving": serving}
        return {**found, **self._counted}

    @property
    def may_save(self) -> dict[str, float] | None:
        """The saving, for ``--json``."""
        return asdict(self.saving) if self.saving else None

    def as_dict(self, figures: bool = True) -> dict[str, Any]:
        """Return the site in the form of the contract's document; a figure that is not measured is null.

        Args:
            figures: whether to include figures; a site that is not enabled has none.
        """
        site = self.site
        failure = _failure(self.failure or (self.trouble if figures else None))
        row = {
            "name": site.name,
            "file": site.file,
            "domains": list(site.domains),
            "mount": site.mount,
            "location": site.location,
            "application": site.application,
            "mode": site.mode,
            "share": site.share,
            "saving": self.may_save,
            "enabled": self.enabled,
            "placement": self.placement,
            "reason": self.reason,
            "state": self.at_rest,
            "service": self.service,
            "failure": failure,
            **({"host": site.host, "template": site.template} if site.host else {}),
            **({"lease": None} if site.exclusive else {}),
            "pids": [],
            "in_flight": None,
            "memory": None,
            "up_since": None,
            **dict.fromkeys((*USED, *COUNTED)),
            "problems": [problem.as_dict() for problem in self.problems],
        }
        if not figures:
            return row
        measured = {} if self.inventory.hidden else self._measured()
        state = self.state
        stands = not measured.get("pids") or not self.failure or state == "broken"  # notes are written later
        last = measured.get("failure") or (failure if stands else _failure(self.trouble))
        return {**row, **measured, "state": state, "failure": last}

    def _measured(self) -> dict[str, Any]:
        """Return the figures: what the workers counted, and what the site's own processes did."""
        known = self.inventory.known.get(self.site.name, {})
        return {**{key: known[key] for key in USED if key in known}, **self.figures, **self._counted}

    @cached_property
    def _counted(self) -> dict[str, Any]:
        sums, known = self.inventory.usage[0].get(self.site.name), self.inventory.known.get(self.site.name, {})
        return {
            **figures.counted(sums, known),
            **figures.started(known),
            "last_use": figures.last_use(sums, known),
            "cpu": figures.cpu(sums, known),
            "history_file": self.inventory.histories.get(self.site.name),
        }


def _failure(failure: Failure | None) -> dict[str, Any] | None:
    """Return a failure in the supervisor's form: its reason, and for a start its steps and the last output."""
    if not failure or failure.own_process:
        return None
    steps = [{"step": step, "seconds": round(seconds, 4)} for step, seconds in failure.steps]
    document = {"failure": failure.reason, "incident": failure.incident, "at": failure.at, "serving": failure.serving}
    return {**document, "remedy": failure.remedy, "steps": steps, "output": list(failure.output)}


def _troubles(inventory: Inventory, site: Site) -> list[Failure]:
    """Return the failures of relayed requests that are not over."""
    if not any(part(site.name, upstream) in inventory.failed_loads for upstream in ("", *site.upstreams)):
        return []
    return troubles.lasting(
        inventory.failed_loads, site, inventory.usage[0].get(site.name), lambda upstream: not _unreached(site, upstream)
    )


def _unreached(site: Site, upstream: str) -> str:
    """Return why an upstream cannot be reached, "" if it can."""
    try:
        connect(Endpoint.parse(upstream, site.protocol), REACHED_WITHIN).close()
    except ConnectFailed as error:
        return error.reason.rpartition(": ")[2]
    except MultisiteError:  # its queue is full
        return ""
    return ""


def judge(inventory: Inventory, site: Site) -> SiteReport:
    """Judge an enabled site; one that cannot be judged is broken."""
    with inventory.waiting(f"examining {site.name}"):
        return fenced(inventory, site.name, partial(_judged, inventory, site), partial(_unjudged, inventory, site))


def _unjudged(inventory: Inventory, site: Site, reason: str) -> SiteReport:
    fault = Problem("MS813", site.file, reason)
    return SiteReport(inventory, site, None, reason, "broken", (*_read(inventory, site.entry_name), fault), (fault,))


def _judged(inventory: Inventory, site: Site) -> SiteReport:
    failure = inventory.failed_loads.get(site.name)
    if inventory.catalogue.entries[site.entry_name].broken:
        found = problems_of(inventory, site.entry_name)
        if not any(problem.is_error for problem in found):
            return SiteReport(inventory, site, None, "this user may not read its file", UNKNOWN, found)
        return SiteReport(inventory, site, None, "its file has errors", "broken", found, failure=failure)
    placement, problems = _placement(site, inventory), faults_of(site, inventory.home)
    faults = tuple(problem for problem in problems if problem.is_error)
    doubts = tuple(problem for problem in problems if not problem.is_error)
    doubts += relativepaths.problems(site, inventory.home, inventory.relative) if placement.shareable else ()
    # The workers have found that it needs a process, and its files have not changed since.
    is_kept_out = failure and failure.own_process and not failure.outdated and failure.basis == basis(inventory.home)
    if failure and placement.shareable and is_kept_out:
        placement = Placement("spawned", failure.reason.removeprefix(NeedsProcess.opening))
    if not placement.shareable:
        failure = inventory.failed_starts.get(site.name)
    state, found = (
        _state(site, inventory, placement, faults, failure),
        _problems_of(inventory, site.entry_name, problems, None if site.host else site),
    )
    more = (found, faults, doubts, failure, saving(inventory, site))
    if inventory.hidden and site.share and sharing.is_examined(site, inventory.home):
        return SiteReport(inventory, site, None, MAY_HAVE_MOVED, state, *more)
    return SiteReport(inventory, site, placement.kind, placement.reason, state, *more)


def problems_of(inventory: Inventory, name: str) -> tuple[Problem, ...]:
    """Return all problems of an enabled site, each once: `check` prints them, and `list` counts them.

    A problem of a key hides the problems that follow from it.
    """
    return _problems_of(inventory, name)


def _problems_of(
    inventory: Inventory, name: str, faults: list[Problem] | None = None, known: Site | None = None
) -> tuple[Problem, ...]:
    """Return what `problems_of` does; `known` and `faults`, those of its application, spare a second look."""
    path = inventory.catalogue.entries[name].path
    return _each_once(
        inventory, _read(inventory, name), path, name, lambda: known or inventory.catalogue.site(name), faults
    )


def problems_of_file(inventory: Inventory, file: SiteFile) -> tuple[Problem, ...]:
    """Return all problems of a site that is not enabled, as `problems_of` does."""
    return _each_once(inventory, file.problems, file.path, file.name, partial(make_site, file, inventory.home))


def _each_once(
    inventory: Inventory,
    found: tuple[Problem, ...],
    path: str,
    name: str,
    site: Callable[[], Site],
    faults: list[Problem] | None = None,
) -> tuple[Problem, ...]:
    """Add to the problems of a file those of the places that it names."""
    explained = {(problem.file, problem.key) for problem in found if problem.key}
    of_site = partial(problems_of_site, home=inventory.home, faults=faults, relative=inventory.relative)
    more = fenced(inventory, name, lambda: of_site(site()), partial(_unchecked, path, name))
    return (*found, *(one for one in dict.fromkeys(more) if (one.file, one.key) not in explained))


def _read(inventory: Inventory, name: str) -> tuple[Problem, ...]:
    """Return the problems in a site's file and in those that it extends."""
    entry = inventory.catalogue.entries[name]
    return tuple(dict.fromkeys((*inventory.seen(entry.problems), *inventory.problems.get(entry.path, ()))))


def problems_of_site(
    site: Site, home: Home, faults: list[Problem] | None = None, relative: dict[str, str] | None = None
) -> list[Problem]:
    """Return the problems of a site's folders and program, wherever its file is.

    Args:
        site, home: of which.
        faults: those of its application, where they are known already.
        relative: what `relativepaths.noted` returns, where that is known already.
    """
    sessions = storage_problem(site, site.processes)
    besides = [*([sessions] if sessions else []), *relativepaths.problems(site, home, relative)]
    found = [
        *(faults_of(site, home) if faults is None else faults),
        *static_problems(site),
        *log_problems(site),
        *besides,
    ]
    expiring = outages.expiry_problem(site)
    found += outages.pin_problems(site, home) if site.nodes else []
    return [*found, *htpasswd.problems(site), *([expiring] if expiring else [])]


def _unchecked(path: str, name: str, reason: str) -> list[Problem]:
    return [Problem("MS813", path, f"the site {name} cannot be checked: {reason}")]


def _state(
    site: Site, inventory: Inventory, placement: Placement, faults: tuple[Problem, ...], failure: Failure | None
) -> str:
    """Return the state of the site; faults of its newest version count only if no older one serves."""
    if (failure and failure.broken) or (faults and not _has_older(site, inventory, placement, failure)):
        return "broken"
    if placement.kind == "proxy":
        lost = {one.unreachable for one in _troubles(inventory, site)}
        return "broken" if lost.issuperset(site.upstreams) else PROXY
    return "in-process" if placement.kind == "in-process" else "stopped"


def _has_older(site: Site, inventory: Inventory, placement: Placement, failure: Failure | None) -> bool:
    """Tell whether the workers serve an older version than the one on disk."""
    if not placement.shareable:
        return False
    row = inventory.placements.of(site.name)
    if row and row.is_here and row.version and sharing.is_examined(site, inventory.home):
        return row.version != changes.version_of(site, inventory.home)
    return failure is not None and failure.serving


def _placement(site: Site, inventory: Inventory) -> Placement:
    """Return where `site` runs: if it is examined, the place that the examination chose."""
    if not CAN_SPAWN or not sharing.is_examined(site, inventory.home):
        return sharing.place_among(site, inventory.home, inventory.claims_beside(site.name))
    row = inventory.placements.of(site.name)
    if not row or not row.is_here or not site.share:
        return Placement("spawned", _why_not_here(site, inventory, row))
    when = time.localtime(row.since)
    since = time.strftime("%H:%M" if time.time() - row.since < DAY else "%Y-%m-%d %H:%M", when)
    return Placement("in-process", f"since {since}: {row.reason}")


def _why_not_here(site: Site, inventory: Inventory, row: Row | None) -> str:
    """Return why an examined site runs in its own process."""
    from multisite.supervisor.process import launch

    other = launch.stranger(site, inventory.home)
    if other:
        return "it " + of_another(other, sharing.facts(site).user)
    if not site.share:
        return _why_apart(site, inventory, row)
    if not row or not (row.found.findings or row.held):
        among = sharing.place_among(site, inventory.home, inventory.claims_beside(site.name))
        if not among.shareable:
            return among.reason
    if not row:
        return NOT_EXAMINED
    return row.reason if row.version == changes.version_of(site, inventory.home) else CHANGED


def _why_apart(site: Site, inventory: Inventory, row: Row | None) -> str:
    """Return what is known about a site that may not share."""
    if not row or row.version != changes.version_of(site, inventory.home):
        return UNSHARED
    known = (row.found, Heat(), inventory.home.supervisor)
    return settle(*known, here=False, idle_timeout=0.0, share=False, saving=row.saving).reason


def saving(inventory: Inventory, site: Site) -> Saving | None:
    """Return the memory that ``share = yes`` in an enabled site's file would save; None if that is unknown."""
    row = inventory.placements.of(site.name)
    if not row or not row.saving or site.share or not sharing.is_examined(site, inventory.home):
        return None
    return row.saving if row.version == changes.version_of(site, inventory.home) else None


def faults_of(site: Site, home: Home) -> list[Problem]:
    """Return why the application of `site` could not be served or started."""
    closed, found = htpasswd.unreadable(site), hidden_problems(site, home)
    if not found:
        found = site_problems(site)
        keys = {problem.key for problem in found}
        more = [] if "location" in keys else start_problems(site, home)
        found += [problem for problem in more if not problem.key or problem.key not in keys]
    return [*found, *([as_seen(closed, home)] if closed else [])]


def start_problems(site: Site, home: Home) -> list[Problem]:
    """Return why the user of this command could not start a process of `site` as the supervisor would.

    A start that needs root is a warning, since the service may run as root.
    """
    from multisite.supervisor.process import launch

    spawned = sharing.place(site, home).kind == "spawned" or (CAN_SPAWN and sharing.is_examined(site, home))
    if not spawned or "%" in site.location:
        return []
    too_long = socket_problem(site, home)
    if too_long:
        return [too_long]
    refused = launch.obstacle(site, home)
    return [refused.problem(site.file)] if refused else []
