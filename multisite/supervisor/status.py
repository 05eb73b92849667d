"""What ``status`` tells of a site."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from multisite.supervisor.accounts import Accounts
from multisite.supervisor.lifecycle import State
from multisite.supervisor.memory import by_session, weighed
from multisite.supervisor.process import kernel
from multisite.supervisor.process.kernel import Connections
from multisite.supervisor.site.crew import NO_CONNECTIONS, Crew
from multisite.supervisor.site.scoreboard import Figures


def describe_all(
    crews: Mapping[str, Crew], accounts: Accounts, connected: Mapping[str, Connections], now: float
) -> dict[str, Any]:
    """Return all sites by name, see `describe`."""
    members = by_session()
    return {
        name: describe(crew, accounts, connected.get(crew.listener.path, NO_CONNECTIONS), members, now)
        for name, crew in crews.items()
    }


def describe(
    crew: Crew, accounts: Accounts, connected: Connections, members: Mapping[int, Iterable[int]], now: float
) -> dict[str, Any]:
    """Return one site as JSON takes it: memory is bytes, times are seconds from now, those of `Tally` Unix seconds.

    Args:
        crew: of the site.
        accounts: what the site has used before.
        connected: what the kernel knows of its connections.
        members: the processes of each session, whose memory counts for the backend that began it.
        now: monotonic seconds.
    """
    figures = crew.figures()
    cpu = sum(kernel.cpu(member) for pid in crew.pids for member in members.get(pid, ()))
    since = min(crew.backends.serving_since, default=None)
    journey = crew.starter.journey
    failure = crew.failures.last or (journey if journey and journey.failure else None)
    return {
        "state": crew.state.value,
        "host": crew.site.host,
        "template": crew.site.template,
        "pids": crew.pids,
        "socket": crew.listener.path if crew.listener.is_open else None,
        "in_flight": _in_flight(figures, connected),
        "waiting": connected.waiting,
        **accounts.total(crew, cpu).as_dict(),
        "up_since": None if since is None else round(time.time() - (now - since), 3),
        "memory": sum(weighed(crew.pids, members).values()),
        "idle": round(now - crew.activity.last_use, 3) if crew.state is State.RUNNING else None,
        "backends": [
            {"pid": b.pid, "state": b.state.value, "seconds": round(now - b.since, 3), "reason": b.reason}
            for b in crew.backends
        ],
        "journey": journey.as_dict() if journey else None,
        "failure": failure.as_dict() if failure else None,
        "replace_failure": crew.failures.replacement,
        "deploy": crew.deploys.last.as_dict(),
    }


def _in_flight(figures: Figures, connected: Connections) -> int:
    """What the processes count, else the open connections that the kernel knows."""
    return connected.open if figures.in_flight is None else figures.in_flight
