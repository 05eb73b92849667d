"""What all sites have used, including sites that are no longer kept, and how much memory their processes use now."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from multisite.config.model import Home
from multisite.sites.tally import Tallies, Tally, tally_of
from multisite.supervisor.process import kernel
from multisite.supervisor.reexec import Handed, Keeper
from multisite.supervisor.site.supervised import SupervisedSite

KEEP_EVERY = 60.0  # seconds between two writes; a supervisor that is killed loses what it has counted since

_NOTHING = Tally()


class Accounts(Handed):
    """Adds the counts of a site to its earlier counts."""

    BY_HAND = ("_before",)
    ANEW = ("_file", "_kept", "_keep_at")

    def __init__(self, home: Home) -> None:
        self._file = Tallies(home)
        self._before = self._kept = self._file.all()
        self._keep_at = 0.0

    def pack(self, _keep: Keeper) -> dict[str, Any]:
        """Return what `take_over` accepts."""
        return {name: tally.as_dict() for name, tally in self._before.items()}

    def take_over(self, state: dict[str, Any]) -> None:
        """Continue where another program stopped: its sites keep their counts."""
        self._before = {name: tally for name, row in state.items() if (tally := tally_of(row))}

    def total(self, supervised: SupervisedSite, cpu: float | None = None) -> Tally:
        """Return what a site has used; `cpu` is the processor time of its living processes in seconds, if known."""
        return self._before.get(supervised.site.name, _NOTHING) + supervised.tally(time.time(), cpu)

    def totals(self, sites: Iterable[SupervisedSite], cpu: Callable[[int], float] | None = None) -> dict[str, Tally]:
        """Return what all sites have used, those included that are no longer kept.

        Args:
            sites: that are supervised.
            cpu: gives the processor time of a living process; None: without that of its children.
        """
        living = {one: sum(map(cpu, one.pids)) if cpu else None for one in sites}
        return {**self._before, **{one.site.name: self.total(one, seconds) for one, seconds in living.items()}}

    def settle(self, supervised: SupervisedSite) -> None:
        """Keep the counts of a site that is about to be put away."""
        self._before = {**self._before, supervised.site.name: self.total(supervised)}

    def keep(self, sites: Iterable[SupervisedSite], now: float) -> None:
        """Write everything to disk if it is time and anything has changed."""
        if now < self._keep_at:
            return
        self._keep_at = now + KEEP_EVERY
        current = self.totals(sites)
        used = {name: tally for name, tally in current.items() if tally.starts}
        if used != self._kept and self._file.keep(used):
            self._kept = used

    def close(self) -> None:
        """Write everything to disk for the next supervisor, after all sites have settled."""
        self._keep_at = 0.0
        self.keep((), 0.0)


EVERY = 5.0  # seconds between two measurements of the memory that counts for the budget
SHARE = 100  # measuring takes at most 1/100 of the time: for each process the kernel walks all of its pages


class Scales:
    """Measures the memory of sites' processes from time to time."""

    def __init__(self) -> None:
        self._at = self._all_at = 0.0

    def weigh(self, sites: Iterable[SupervisedSite], budget: int | None, now: float) -> None:
        """Measure memory where it counts, and replace processes that have grown too large.

        Resident sizes cost nothing to look up, and they are never smaller than the proportional ones. So each call
        measures proportional sizes only where the resident ones exceed a site's limit.
        """
        if now < self._at:
            return
        alive = [one for one in sites if one.pids]
        wanted = [one for one in alive if _looks_large(one)]
        if budget and now >= self._all_at:
            self._all_at, wanted = now + EVERY, alive
        if not wanted:
            return
        begun = time.monotonic()
        members = by_session()
        for supervised in wanted:
            supervised.weigh(weighed(supervised.pids, members))
        self._at = now + SHARE * (time.monotonic() - begun)


def _looks_large(supervised: SupervisedSite) -> bool:
    """Tell whether the first processes of a site's sessions, or their helpers, may exceed its limit."""
    limit = supervised.site.memory_limit or math.inf
    return limit < math.inf and any(kernel.resident(pid) > limit or kernel.has_children(pid) for pid in supervised.pids)


def weighed(pids: Iterable[int], members: Mapping[int, Iterable[int]]) -> dict[int, int]:
    """Return the bytes that each of these backends uses, with all processes of its session."""
    return {pid: sum(map(kernel.memory, members.get(pid, ()))) for pid in pids}


def by_session() -> dict[int, list[int]]:
    """Return all processes by session; the session of a backend has the backend's pid."""
    members: dict[int, list[int]] = {}
    for pid in kernel.pids():
        members.setdefault(kernel.session(pid), []).append(pid)
    return members
