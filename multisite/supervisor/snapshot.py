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


def at_a_glance(crew: SupervisedSite, now: float) -> SiteView:
    """Describe a site for the planner by what is known at once; who is idle is not."""
    alive = [backend for backend in crew.backends if backend.alive]
    lasting = [backend for backend in alive if not backend.leaving and not backend.obsolete]
    held = crew.backends.any_in(*HELD)
    missing = 0 if held else max(0, launch.backends(crew.site) - len(lasting))
    if deploy.is_first(crew.backends):
        missing = min(missing, 0 if lasting else 1)
    return SiteView(
        crew.site.name,
        missing=missing,
        wanted_since=crew.queue.since,
        not_before=crew.failures.not_before,
        processes=len(alive),
        leaving=sum(backend.leaving for backend in alive),
        starting=sum(one.state is State.STARTING and now - one.since < planner.BUSY_STARTING for one in alive),
        idle_timeout=crew.site.idle_timeout,
        memory=sum(backend.memory or crew.costs.size for backend in alive),
        start_cost=crew.costs.start_cost,
        failures=crew.failures.in_a_row,
        expected=crew.costs.size,
        is_due=crew.is_due,
        stays=crew.site.warm == "always",
    )


def view(crew: SupervisedSite, now: float, connected: Connections) -> SiteView:
    """Describe a site for the planner, and note by the way whether it is used."""
    alive = [backend for backend in crew.backends if backend.alive]
    running = bool(alive) and all(backend.state is State.RUNNING for backend in alive)
    busy = _look_at_use(crew, now, connected)
    seen = at_a_glance(crew, now)
    return replace(seen, idle_since=crew.activity.last_use) if running and not busy else seen


def _look_at_use(crew: SupervisedSite, now: float, connected: Connections) -> int:
    """Note whether the site is used; returns how many requests and connections are."""
    figures = crew.figures()
    begun = max(crew.backends.serving_since, default=now)
    crew.activity.asked_at(figures.last_use if figures.last_use > begun else 0.0)
    busy = connected.waiting + (connected.open if figures.in_flight is None else figures.in_flight)
    if figures.in_flight is None and (crew.site.ignore_activity or crew.site.ignore_agents):
        crew.activity.look(now, 0, figures, crew.listener.last_mark())
    else:
        crew.activity.look(now, busy - figures.quiet, figures, crew.listener.last_use())
    return busy


def needs_connections(crew: SupervisedSite, now: float) -> bool:
    """Tell whether what is to be done now depends on what the kernel knows of the connections."""
    due = crew.activity.last_use + crew.site.idle_timeout if crew.site.idle_timeout else None
    idle = due is not None and now >= due and crew.state is State.RUNNING
    return idle or crew.readiness.next_look is not None or crew.backends.any_in(State.DRAINING)
