"""How much memory the sites use, measured where it counts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from multisite.supervisor import process
from multisite.supervisor.crew import Crew

EVERY = 5.0  # seconds between two measurements
SHARE = 100  # measuring takes at most 1/100 of the time: the kernel walks all pages of a process for it


class Scales:
    """Weighs the processes of crews now and then."""

    def __init__(self) -> None:
        self._at = 0.0

    def weigh(self, crews: Iterable[Crew], budget: int | None, now: float) -> None:
        """Measure memory where it counts, and replace what has grown too large, if it is time to."""
        if now < self._at:
            return
        begun = time.monotonic()
        self._weigh([crew for crew in crews if crew.pids and (budget or crew.site.memory_limit)])
        self._at = now + max(EVERY, SHARE * (time.monotonic() - begun))

    @staticmethod
    def _weigh(wanted: Sequence[Crew]) -> None:
        members = _by_session() if wanted else {}
        for crew in wanted:
            for backend in crew.backends:
                backend.memory = sum(map(process.memory, members.get(backend.pid, ())))
            crew.limit_memory()


def _by_session() -> dict[int, list[int]]:
    """Return all processes by their session, which is their backend's pid."""
    members: dict[int, list[int]] = {}
    for pid in process.processes():
        members.setdefault(process.session(pid), []).append(pid)
    return members
