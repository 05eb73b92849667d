"""What all sites have used, including sites that are no longer kept, and how much memory their processes use now."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from multisite.config.model import Home
from multisite.sites.tally import Tallies, Tally, tally_of
from multisite.supervisor.process import kernel
from multisite.supervisor.records.journal import Journal
from multisite.supervisor.reexec import Handed, Keeper
from multisite.supervisor.site.supervised import SupervisedSite

KEEP_EVERY = 60.0  # seconds between two writings of the document
FOLLOW_EVERY = 0.02  # seconds between two looks at what sites count that are being used
REST_EVERY = 0.5  # seconds, where none has been used for so long as
RESTS_AFTER = 2.0
FOLLOW_SHARE = 50  # following takes at most 1/50 of the processor time

_NOTHING = Tally()


class Accounts(Handed):
    """Adds what a site has counted to what was counted before it.

    Attributes:
        follow_at: monotonic seconds at which `follow` is due.
    """

    BY_HAND = ("_before",)
    ANEW = ("_file", "_kept", "_keep_at", "_journal", "_seen", "_used_at", "follow_at")

    def __init__(self, home: Home) -> None:
        self._file, self._journal = Tallies(home), Journal(home)
        self._kept = self._file.all()
        self._before = {**self._kept}
        since = self._journal.read()
        for name, tally in since.items():
            self._before[name] = max(tally, self._kept.get(name, tally), key=_extent)
        if since and self._file.keep(self._before):
            self._kept = self._before
            self._journal.clear()
        self._keep_at = self._used_at = self.follow_at = 0.0
        self._seen: dict[str, tuple[bytes, Tally]] = {}

    def pack(self, _keep: Keeper) -> dict[str, Any]:
        """Return what `take_over` accepts."""
        return {name: tally.as_dict() for name, tally in self._before.items()}

    def take_over(self, state: dict[str, Any]) -> None:
        """Continue where another program was: its sites keep counting."""
        self._before = {name: tally for name, row in state.items() if (tally := tally_of(row))}

    def total(self, supervised: SupervisedSite, cpu: float | None = None) -> Tally:
        """Return what a site has used; `cpu` are the seconds that its living processes have, where that is known."""
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
        """Take what a site has counted that is going to be put away."""
        total = self.total(supervised)
        self._before = {**self._before, supervised.site.name: total}
        self._seen.pop(supervised.site.name, None)
        if total.starts:
            self._journal.put(supervised.site.name, total)

    def follow(self, sites: Iterable[SupervisedSite], now: float) -> None:
        """Note in the journal what has changed, so that the end of this process, whatever it is, costs moments only.

        Looking costs a system call for each site with processes; it takes a bounded share of the processor time. Time
        in which this process had no processor does not count: on a busy machine seconds of counts could be lost.
        """
        if now < self.follow_at:
            return
        begun = time.thread_time()
        for supervised in sites:
            name, mark = supervised.site.name, (supervised.scoreboard.raw(), supervised.costs.spent)
            seen = self._seen.get(name)
            if seen is None or seen[0] != mark[0] or seen[1] is not mark[1]:
                self._seen[name] = mark
                if mark[1].starts:
                    self._journal.put(name, self.total(supervised))
                    self._used_at = now
        spent = time.thread_time() - begun
        pause = FOLLOW_EVERY if now - self._used_at < RESTS_AFTER else REST_EVERY
        self.follow_at = now + max(pause, FOLLOW_SHARE * spent)

    def keep(self, sites: Iterable[SupervisedSite], now: float) -> None:
        """Write everything down if it is time to, and if anything has changed."""
        if now < self._keep_at:
            return
        self._keep_at = now + KEEP_EVERY
        current = self.totals(sites)
        used = {name: tally for name, tally in current.items() if tally.starts}
        if used != self._kept and self._file.keep(used):
            self._kept = used
            self._journal.clear()

    def close(self) -> None:
        """Write everything down for the next supervisor, with which all sites have settled."""
        self._keep_at = 0.0
        self.keep((), 0.0)


def _extent(tally: Tally) -> tuple[float, ...]:
    """Return what only grows: of two tallies of a site, the newer one has more of it."""
    return tally.starts, tally.app, tally.requests or 0, tally.cpu


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
