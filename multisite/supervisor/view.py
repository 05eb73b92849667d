"""A site as the planner sees it."""

from __future__ import annotations

from dataclasses import replace

from multisite.supervisor import launch, planner, replacement
from multisite.supervisor.connections import Connections
from multisite.supervisor.crew import Crew
from multisite.supervisor.lifecycle import State
from multisite.supervisor.planner import SiteView

_HELD = (State.BACKOFF, State.FATAL)


def at_a_glance(crew: Crew, now: float) -> SiteView:
    """Describe a site for the planner by what is known at once; who is idle is not."""
    alive = [backend for backend in crew.backends if backend.alive]
    lasting = [backend for backend in alive if not backend.leaving and not backend.obsolete]
    held = any(backend.state in _HELD for backend in crew.backends)
    missing = 0 if held else max(0, launch.backends(crew.site) - len(lasting))
    if replacement.is_first(crew.backends):
        missing = min(missing, 0 if lasting else 1)
    return SiteView(
        crew.site.name,
        missing=missing,
        wanted_since=crew.room.since,
        processes=len(alive),
        leaving=sum(backend.leaving for backend in alive),
        starting=sum(one.state is State.STARTING and now - one.since < planner.BUSY_STARTING for one in alive),
        idle_timeout=crew.site.idle_timeout,
        memory=sum(backend.memory or crew.size for backend in alive),
        start_cost=crew.start_cost,
        failures=crew.failures.in_a_row,
        expected=crew.size,
        is_due=crew.is_due,
        stays=crew.site.warm == "always",
    )


def view(crew: Crew, now: float, connected: Connections) -> SiteView:
    """Describe a site for the planner, and note by the way whether it is used."""
    alive = [backend for backend in crew.backends if backend.alive]
    running = bool(alive) and all(backend.state is State.RUNNING for backend in alive)
    busy = crew.look_at_use(now, connected)
    seen = at_a_glance(crew, now)
    return replace(seen, idle_since=crew.activity.last_use) if running and not busy else seen
