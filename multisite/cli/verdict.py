"""Where a site runs and what its state is, as far as can be told without asking the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multisite import claims, sharing
from multisite.errors import AppLoadError, NeedsProcess
from multisite.placement import Placement

if TYPE_CHECKING:
    from multisite.cli.session import Session
    from multisite.model import Site


def placement_of(site: Site, session: Session) -> Placement:
    """Decide where `site` runs, clashes with the modules of other sites included."""
    placement = sharing.place(site, session.home)
    if not placement.shareable:
        return placement
    try:
        names = sharing.wanted(site).names
    except NeedsProcess as error:
        return Placement("spawned", error.why)
    except AppLoadError:
        return placement
    clash = claims.conflict(names, session.ledger.others(site.name))
    return Placement("spawned", clash) if clash else placement


def state_of(broken: bool, placement: str | None) -> str:
    """Return an enabled site's state in the contract's words; one with a process of its own has none that we know."""
    if broken:
        return "broken"
    return "in-process" if placement == "in-process" else "stopped"
