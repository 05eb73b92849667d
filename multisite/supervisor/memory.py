"""How much memory the sites use, measured where it counts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping

from multisite.supervisor.process import kernel
from multisite.supervisor.site.crew import Crew

EVERY = 5.0  # seconds between two measurements of all that counts for the budget
SHARE = 100  # measuring takes at most 1/100 of the time: the kernel walks all pages of a process for it


class Scales:
    """Weighs the processes of crews now and then."""

    def __init__(self) -> None:
        self._at = self._all_at = 0.0

    def weigh(self, crews: Iterable[Crew], budget: int | None, now: float) -> None:
        """Measure memory where it counts, and replace what has grown too large.

        Resident sizes cost nothing to look up. As they are never smaller than the proportional ones, the latter
        are measured at every call only where the former are above a site's own limit.
        """
        if now < self._at:
            return
        alive = [crew for crew in crews if crew.pids]
        wanted = [crew for crew in alive if _looks_large(crew)]
        if budget and now >= self._all_at:
            self._all_at, wanted = now + EVERY, alive
        if not wanted:
            return
        begun = time.monotonic()
        members = by_session()
        for crew in wanted:
            crew.weigh(weighed(crew.pids, members))
        self._at = now + SHARE * (time.monotonic() - begun)


def _looks_large(crew: Crew) -> bool:
    """Tell whether the first processes of a site's sessions, or their helpers, may be above its limit."""
    limit = crew.site.memory_limit or math.inf
    return limit < math.inf and any(kernel.resident(pid) > limit or kernel.has_children(pid) for pid in crew.pids)


def weighed(pids: Iterable[int], members: Mapping[int, Iterable[int]]) -> dict[int, int]:
    """Return the bytes that each of these backends uses with all processes of its session."""
    return {pid: sum(map(kernel.memory, members.get(pid, ()))) for pid in pids}


def by_session() -> dict[int, list[int]]:
    """Return all processes by their session, which is their backend's pid."""
    members: dict[int, list[int]] = {}
    for pid in kernel.pids():
        members.setdefault(kernel.session(pid), []).append(pid)
    return members
