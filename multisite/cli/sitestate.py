"""Where a site runs and what its state is, as far as can be told without asking the workers."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from multisite.cli.group import fenced
from multisite.cli.places import socket_problem
from multisite.cli.project.faults import site_problems
from multisite.config import hosting
from multisite.config.model import Home, Site
from multisite.errors import NeedsProcess, Problem
from multisite.sites import codeversion, relativepaths, sharing
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

if TYPE_CHECKING:
    from multisite.cli.session import Session
    from multisite.sites.placements import Row
    from multisite.sites.verdicts import Verdict

DAY = 86400
PROXY = "proxy"  # the state of a site whose processes are somebody else's: nothing of ours runs, or is stopped


@dataclass(frozen=True)
class Judgement:
    """What there is to say of an enabled site.

    Attributes:
        placement: "in-process", "spawned" or "proxy"; None for a site whose file has errors.
        state: one of the contract's words.
        faults: what is wrong with what the file promises to serve, or keeps it from being started.
        doubts: what only root could do, and what the workers have told the site.
        saving: what it would save to let it share, where that is known.
        failure: what the workers or the supervisor noted, if it could not be loaded or started the last time.
    """

    placement: str | None
    reason: str
    state: str
    faults: tuple[Problem, ...] = ()
    failure: Verdict | None = None
    doubts: tuple[Problem, ...] = ()
    saving: Saving | None = None

    @property
    def may_save(self) -> dict[str, float] | None:
        """The saving, for ``--json``."""
        return asdict(self.saving) if self.saving else None


def judge(session: Session, site: Site) -> Judgement:
    """Judge an enabled site; one that cannot be judged is broken."""
    return fenced(session, site.name, lambda: _judged(session, site), lambda said: _unjudged(site, said))


def _unjudged(site: Site, said: str) -> Judgement:

    return Judgement(None, said, "broken", (Problem(site.file, said),))


def _judged(session: Session, site: Site) -> Judgement:
    failure = session.verdicts.get(site.name)
    if session.catalogue.entries[site.entry_name].broken:
        return Judgement(None, "its file has errors", "broken", failure=failure)
    placement, problems = _placement(site, session), site_problems(site)
    if not problems and not hosting.is_hosting(site.location):
        problems = start_problems(site, session.home)
    faults = tuple(problem for problem in problems if problem.is_error)
    doubts = tuple(problem for problem in problems if not problem.is_error)
    doubts += relativepaths.problems(site, session.home) if placement.shareable else ()
    if failure and placement.shareable and _keeps_out(failure, session):
        placement = Placement("spawned", failure.reason.removeprefix(NeedsProcess.opening))
    if not placement.shareable:
        failure = session.failed_starts.get(site.name)
    state = _state(site, session, placement, faults, failure)
    return Judgement(placement.kind, placement.reason, state, faults, failure, doubts, saving(session, site))


def _state(
    site: Site, session: Session, placement: Placement, faults: tuple[Problem, ...], failure: Verdict | None
) -> str:
    """Say what state the site is in; what is wrong with its newest version matters where no older one serves."""
    if (failure and failure.broken) or (faults and not _has_older(site, session, placement, failure)):
        return "broken"
    return {"in-process": "in-process", "proxy": PROXY}.get(placement.kind, "stopped")


def _has_older(site: Site, session: Session, placement: Placement, failure: Verdict | None) -> bool:
    """Tell whether the workers serve an older version than that on disk."""
    if not placement.shareable:
        return False
    row = session.placements.of(site.name)
    if row and row.is_here and row.version and sharing.is_examined(site, session.home):
        return row.version != codeversion.version_of(site, session.home)
    return failure is not None and failure.serving


def _keeps_out(failure: Verdict, session: Session) -> bool:
    """Tell whether the workers have found that the site needs a process, and what its files say is as it was then."""
    return failure.own_process and not failure.outdated and failure.basis == basis(session.home)


def _placement(site: Site, session: Session) -> Placement:
    """Say where `site` runs: where it has been put, if it is examined."""
    if not CAN_SPAWN or not sharing.is_examined(site, session.home):
        return sharing.place_among(site, session.home, session.ledger.others(site.name))
    row = session.placements.of(site.name)
    if not row or not row.is_here or not site.share:
        return Placement("spawned", _why_not_here(site, session, row))
    when = time.localtime(row.since)
    since = time.strftime("%H:%M" if time.time() - row.since < DAY else "%Y-%m-%d %H:%M", when)
    return Placement("in-process", f"since {since}: {row.reason}")


def _why_not_here(site: Site, session: Session, row: Row | None) -> str:
    """Say why a site that is examined lives in a process of its own."""
    from multisite.supervisor.process import launch

    other = launch.stranger(site, session.home)
    if other:
        return "it " + of_another(other, sharing.facts(site).user)
    if not site.share:
        return _why_apart(site, session, row)
    if not row or not (row.found.findings or row.held):
        among = sharing.place_among(site, session.home, session.ledger.others(site.name))
        if not among.shareable:
            return among.reason
    if not row:
        return NOT_EXAMINED
    return row.reason if row.version == codeversion.version_of(site, session.home) else CHANGED


def _why_apart(site: Site, session: Session, row: Row | None) -> str:
    """Say what is known of a site that may not share."""
    if not row or row.version != codeversion.version_of(site, session.home):
        return UNSHARED
    known = (row.found, Heat(), session.home.supervisor)
    return settle(*known, here=False, idle_timeout=0.0, share=False, saving=row.saving).reason


def saving(session: Session, site: Site) -> Saving | None:
    """Return what it would save to say ``share = yes`` in the file of an enabled site; None where that is not known."""
    row = session.placements.of(site.name)
    if not row or not row.saving or site.share or not sharing.is_examined(site, session.home):
        return None
    return row.saving if row.version == codeversion.version_of(site, session.home) else None


def start_problems(site: Site, home: Home) -> list[Problem]:
    """Return why whoever types the command could not start a process of `site`, as the supervisor would.

    What root alone could do is a warning: the service may well run as root.
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
