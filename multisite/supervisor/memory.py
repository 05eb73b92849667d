"""How much memory the sites use, measured where it counts."""

from __future__ import annotations

from collections.abc import Iterable

from multisite.supervisor import process
from multisite.supervisor.crew import Crew

EVERY = 5.0  # seconds between two measurements


class Scales:
    """Weighs the processes of crews now and then."""

    def __init__(self) -> None:
        self._at = 0.0

    def weigh(self, crews: Iterable[Crew], budget: int | None, now: float) -> None:
        """Measure memory where it counts, and replace what has grown too large, if it is time to."""
        if now < self._at:
            return
        self._at = now + EVERY
        wanted = [crew for crew in crews if crew.pids and (budget or crew.site.memory_limit)]
        if not wanted:
            return
        members = _by_session()
        for crew in wanted:
            sizes = {pid: sum(map(process.memory, members.get(pid, ()))) for pid in crew.pids}
            crew.memory = sum(sizes.values())
            crew.limit_memory(sizes)


def _by_session() -> dict[int, list[int]]:
    """Return all processes by their session, which is their backend's pid."""
    members: dict[int, list[int]] = {}
    for pid in process.processes():
        members.setdefault(process.session(pid), []).append(pid)
    return members
