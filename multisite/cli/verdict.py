"""Where a site runs and what its state is, as far as can be told without asking the workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from multisite import claims, sharing
from multisite.cli.target import site_problems
from multisite.errors import AppLoadError, NeedsProcess
from multisite.placement import Placement

if TYPE_CHECKING:
    from multisite.cli.session import Session
    from multisite.model import Problem, Site
    from multisite.verdicts import Verdict


@dataclass(frozen=True)
class Judgement:
    """What there is to say of an enabled site.

    Attributes:
        placement: "in-process", "spawned" or "proxy"; None for a site whose file has errors.
        state: one of the contract's words.
        faults: what is wrong with what the file promises to serve.
        failure: what the workers noted, if they could not load it when they last tried.
    """

    placement: str | None
    reason: str
    state: str
    faults: tuple[Problem, ...] = ()
    failure: Verdict | None = None


def judge(session: Session, site: Site) -> Judgement:
    """Judge an enabled site."""
    failure = session.verdicts.get(site.name)
    if session.catalogue.entries[site.entry_name].broken:
        return Judgement(None, "its file has errors", "broken", failure=failure)
    placement, faults = placement_of(site, session), tuple(site_problems(site))
    if failure and failure.own_process and placement.shareable:
        placement = Placement("spawned", failure.reason.removeprefix(NeedsProcess.opening))
    if failure and failure.serving:
        state = "in-process"
    elif faults or (failure and failure.broken):
        state = "broken"
    else:  # one with a process of its own has no state that we know
        state = "in-process" if placement.shareable else "stopped"
    return Judgement(placement.kind, placement.reason, state, faults, failure)


def placement_of(site: Site, session: Session) -> Placement:
    """Decide where `site` runs, clashes with the modules of other sites included."""
    placement = sharing.place(site, session.home)
    if not placement.shareable or site.files_only:
        return placement
    try:
        names = sharing.wanted(site).names
    except NeedsProcess as error:
        return Placement("spawned", error.why)
    except AppLoadError:
        return placement
    clash = claims.conflict(names, session.ledger.others(site.name))
    return Placement("spawned", clash) if clash else placement
