"""A site as the planner sees it."""

from __future__ import annotations

from dataclasses import replace

from multisite.supervisor import planner
from multisite.supervisor.lifecycle import State
from multisite.supervisor.planner import SiteView
from multisite.supervisor.process import launch
from multisite.supervisor.process.kernel import Connections
from multisite.supervisor.site import deploy
from multisite.supervisor.site.backends import HELD
from multisite.supervisor.site.supervised import SupervisedSite


def at_a_glance(supervised: SupervisedSite, now: float) -> SiteView:
    """Describe a site for the planner by what is known at once; who is idle is not."""
    alive, lasting = supervised.backends.alive, supervised.backends.lasting
    missing = 0 if supervised.backends.any_in(*HELD) else max(0, launch.backends(supervised.site) - len(lasting))
    if deploy.is_first(supervised.backends):
        missing = min(missing, 0 if lasting else 1)
    return SiteView(
        supervised.site.name,
        missing=missing,
        wanted_since=supervised.queue.since,
        not_before=supervised.failures.not_before,
        processes=len(alive),
        leaving=sum(backend.leaving for backend in alive),
        starting=sum(one.state is State.STARTING and now - one.since < planner.BUSY_STARTING for one in alive),
        idle_timeout=supervised.site.idle_timeout,
        memory=sum(backend.memory or supervised.costs.size for backend in alive),
        start_cost=supervised.costs.start_cost,
        failures=supervised.failures.in_a_row,
        expected=supervised.costs.size,
        is_due=supervised.is_due,
        stays=supervised.site.warm == "always",
    )


def view(supervised: SupervisedSite, now: float, connected: Connections) -> SiteView:
    """Describe a site for the planner, and note by the way whether it is used."""
    alive = supervised.backends.alive
    running = bool(alive) and all(backend.state is State.RUNNING for backend in alive)
    busy = _note_use(supervised, now, connected)
    seen = at_a_glance(supervised, now)
    return replace(seen, idle_since=supervised.activity.last_use) if running and not busy else seen


def _note_use(supervised: SupervisedSite, now: float, connected: Connections) -> int:
    """Note whether the site is used; returns how many requests and connections are."""
    figures = supervised.figures()
    begun = max(supervised.backends.serving_since, default=now)
    supervised.activity.asked_at(figures.last_use if figures.last_use > begun else 0.0)
    busy = connected.waiting + (connected.open if figures.in_flight is None else figures.in_flight)
    if figures.in_flight is None and (supervised.site.ignore_activity or supervised.site.ignore_agents):
        supervised.activity.update(now, 0, figures, supervised.listener.last_mark())
    else:
        supervised.activity.update(now, busy - figures.quiet, figures, supervised.listener.last_use())
    return busy


def needs_connections(supervised: SupervisedSite, now: float) -> bool:
    """Tell whether what is to be done now depends on what the kernel knows of the connections."""
    due = supervised.activity.last_use + supervised.site.idle_timeout if supervised.site.idle_timeout else None
    idle = due is not None and now >= due and supervised.state is State.RUNNING
    return idle or supervised.readiness.next_look is not None or supervised.backends.any_in(State.DRAINING)
