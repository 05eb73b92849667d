"""What ``status`` tells of a site."""

from __future__ import annotations

from typing import Any

from multisite.supervisor import process
from multisite.supervisor.crew import Crew
from multisite.supervisor.lifecycle import State


def describe(crew: Crew, now: float) -> dict[str, Any]:
    """Return one site as JSON takes it: times are seconds from now, memory is bytes."""
    connected = crew.connected() if crew.pids else None
    failure = crew.failure or (crew.journey if crew.journey and crew.journey.failure else None)
    return {
        "state": crew.state.value,
        "pids": crew.pids,
        "socket": crew.listener.path if crew.listener.is_open else None,
        "in_flight": connected.open if connected else 0,
        "waiting": connected.waiting if connected else 0,
        "memory": sum(map(process.memory, crew.pids)),
        "starts": crew.starts,
        "idle": round(now - crew.last_use, 3) if crew.state is State.RUNNING else None,
        "backends": [
            {"pid": b.pid, "state": b.state.value, "seconds": round(now - b.since, 3), "reason": b.reason}
            for b in crew.backends
        ],
        "journey": crew.journey.as_dict() if crew.journey else None,
        "failure": failure.as_dict() if failure else None,
        "replace_failure": crew.replace_failure,
    }
