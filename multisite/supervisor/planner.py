"""What to start and what to stop: the decisions, pure.

The loop describes every site that matters now (`SiteView`) and acts on what `plan` returns.
Times are monotonic seconds, memory is bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field

BACKOFF_FIRST = 0.5  # seconds before the second retry; the first is immediate
BACKOFF_LONGEST = 60.0
GIVE_UP_AFTER = 6  # failures in a row
FATAL_PAUSE = 300.0  # seconds after which a fatal site may be tried once more
ANSWERED_AFTER = 0.5  # seconds of serving after which a server that does not count requests is assumed to have answered
FREE_CRASHES = 3  # in a row, before the pause between two starts exceeds the time that one takes
LONGEST_CRASH_PAUSE = 5.0  # seconds
STABLE_AFTER = 2.0  # seconds of serving that end a series of failures
LEAST_COST = 0.02  # seconds; no start costs less
BUSY_STARTING = 3.0  # seconds that a start uses the processor; a longer one waits for something else


@dataclass(frozen=True, slots=True)
class SiteView:
    """One site as the planner sees it.

    Attributes:
        missing: processes that it lacks and that may be started (none in BACKOFF or FATAL).
        wanted_since: since when a request waits for a process; None: no request waits.
        not_before: when the next may be started (`crash_pause`).
        processes: how many of its processes live, whatever their state.
        leaving: how many of these have been asked to end.
        starting: how many of these began to start a moment ago (`BUSY_STARTING`).
        idle_since: last use, if nothing is in flight or waiting and all processes serve; else None.
        start_cost: seconds that its last start took.
        expected: bytes that one more of its processes will use, 0 if that is not known.
        is_due: it should run although no request waits for it.
        stays: it is not stopped for being idle, and is evicted after all others.
    """

    name: str
    missing: int = 1
    wanted_since: float | None = None
    not_before: float = 0.0
    processes: int = 0
    leaving: int = 0
    starting: int = 0
    idle_since: float | None = None
    idle_timeout: float = 0.0
    memory: int = 0
    start_cost: float = 0.0
    failures: int = 0
    expected: int = 0
    is_due: bool = False
    stays: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What all sites together may use."""

    max_backends: int
    memory_budget: int | None = None
    starting_at_once: int = 8


@dataclass(frozen=True, slots=True)
class Start:
    """Start `count` processes of a site."""

    name: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop all processes of a site; `reason` is idle or evicted."""

    name: str
    reason: str


Decision = Start | Stop


@dataclass
class SpawnBudget:
    """How often failing sites may be started, all of them together, so that loops cannot eat the machine."""

    most: int = 10
    window: float = 10.0  # seconds
    starts: deque[float] = field(default_factory=deque)

    def take_start(self, now: float) -> bool:
        """Take one start from the budget; False if none is left."""
        while self.starts and now - self.starts[0] >= self.window:
            self.starts.popleft()
        if len(self.starts) >= self.most:
            return False
        self.starts.append(now)
        return True


def plan(sites: Sequence[SiteView], limits: Limits, now: float, budget: SpawnBudget) -> list[Decision]:
    """Decide what to stop and what to start now."""
    stops = [Stop(site.name, "idle") for site in sites if _is_overdue(site, now)]
    gone = {stop.name for stop in stops}
    starts = _Starts(sites, limits, budget)
    starts.for_those_who_wait(now)
    staying = [site for site in sites if site.name not in gone]
    for site in _too_much_memory(staying, limits, starts.denied, now):
        stops.append(Stop(site.name, "evicted"))
        gone.add(site.name)
    leaving = sum(site.processes if site.name in gone else site.leaving for site in sites)
    victims = (site for site in by_worth(sites, now) if site.name not in gone)
    for site in victims if starts.crowded > leaving else ():
        stops.append(Stop(site.name, "evicted"))
        gone.add(site.name)
        leaving += site.processes
        if leaving >= starts.crowded:
            break
    starts.ahead_of_time(gone)
    return [*stops, *starts.decided]


def _is_overdue(site: SiteView, now: float) -> bool:
    overdue = site.idle_timeout and now - (site.idle_since or 0.0) >= site.idle_timeout
    return bool(_is_idle(site) and overdue and not site.stays)


def _is_idle(site: SiteView) -> bool:
    """A site with a request in flight, or a waiting one, is never idle."""
    return site.idle_since is not None and site.wanted_since is None and site.processes > site.leaving


def _too_much_memory(sites: Sequence[SiteView], limits: Limits, denied: int, now: float) -> list[SiteView]:
    """Return which sites to evict so that what runs, plus the `denied` bytes, stays within the budget."""
    if not limits.memory_budget:
        return []
    excess = sum(site.memory for site in sites if not site.leaving) + denied - limits.memory_budget
    chosen = []
    for site in by_weight(sites, now):
        if excess <= 0:
            break
        chosen.append(site)
        excess -= site.memory
    return chosen


class _Starts:
    """What to start now.

    Attributes:
        crowded: processes that requests wait for and that there is no place for.
        denied: bytes of processes that there is no memory for.
    """

    def __init__(self, sites: Sequence[SiteView], limits: Limits, budget: SpawnBudget) -> None:
        self.decided: list[Start] = []
        self.crowded = self.denied = 0
        self._sites, self._limits, self._budget = sites, limits, budget
        self._room = limits.max_backends - sum(site.processes for site in sites)
        self._slots = limits.starting_at_once - sum(site.starting for site in sites)
        self._memory = (limits.memory_budget or 0) - sum(site.memory for site in sites)
        self._is_alone = not any(site.processes for site in sites)

    def for_those_who_wait(self, now: float) -> None:
        """Start what there is room for; the request that has waited longest comes first."""
        for site in sorted(_waiting(self._sites, now), key=lambda site: site.wanted_since or 0.0):
            if self._slots < 1:  # evicting a site would not help what cannot be started yet
                break
            count = min(site.missing, self._room if self._room > 0 else self._limits.max_backends)
            if self._room < 1:
                self.crowded += count
            elif not self._fits(site, count):
                self.denied += min(site.expected * count, self._limits.memory_budget or 0)
                self._memory = 0  # it is reserved for the site that has waited longer
            elif site.failures > 1 and not self._budget.take_start(now):  # being killed once is not a loop
                continue
            else:
                self._start(site, count)
                continue
            self._slots -= count

    def ahead_of_time(self, gone: Container[str]) -> None:
        """Start sites that no request waits for, unless that would evict another."""
        for site in self._sites:
            ready = site.is_due and not site.processes and site.wanted_since is None and not site.failures
            if ready and site.missing and site.name not in gone and not (self.crowded or self.denied):
                count = min(site.missing, self._room, self._slots)
                if count > 0 and self._fits(site, count):
                    self._start(site, count)

    def _fits(self, site: SiteView, count: int) -> bool:
        """A process of unknown size, and one that runs alone, is always let in."""
        need = site.expected * count
        return not self._limits.memory_budget or not need or need <= self._memory or self._is_alone

    def _start(self, site: SiteView, count: int) -> None:
        self.decided.append(Start(site.name, count))
        self._room -= count
        self._slots -= count
        self._memory -= site.expected * count
        self._is_alone = False


def _waiting(sites: Iterable[SiteView], now: float) -> Iterable[SiteView]:
    return (one for one in sites if one.wanted_since is not None and one.missing and one.not_before <= now)


def by_worth(sites: Iterable[SiteView], now: float) -> list[SiteView]:
    """Return the idle sites, first the one whose place costs least.

    That is the least recently used one, weighted by memory and cost of starting. Both weights count by orders of
    magnitude only: between similar sites, time alone decides. Sites that should stay come last.
    """
    return sorted(filter(_is_idle, sites), key=lambda site: (site.stays, -_worth_losing(site, now)))


def _worth_losing(site: SiteView, now: float) -> float:
    idle = now - (site.idle_since or 0.0)
    return idle * _magnitude(site.memory / 2**20) / _magnitude(site.start_cost * 10)


def by_weight(sites: Iterable[SiteView], now: float) -> list[SiteView]:
    """Return the idle sites that use memory, first the one whose memory costs least.

    That is memory times idle time over the cost of starting again (``bench/budget.py`` compares it with others).
    """
    found = (site for site in sites if _is_idle(site) and site.memory and not site.leaving)
    return sorted(found, key=lambda site: (site.stays, -_weight(site, now)))


def _weight(site: SiteView, now: float) -> float:
    return (now - (site.idle_since or 0.0)) * site.memory / max(site.start_cost, LEAST_COST)


def _magnitude(value: float) -> float:
    """Round down to a power of ten, at least 1."""
    return float(10 ** (len(str(int(value))) - 1))


def backoff(failures: int, random: Callable[[], float]) -> float:
    """Return the pause in seconds after this many failures in a row: none after the first, then doubling, ± 25 %."""
    if failures <= 1:
        return 0.0
    return float(min(BACKOFF_LONGEST, BACKOFF_FIRST * 2 ** (failures - 2)) * (0.75 + 0.5 * random()))


def crash_pause(crashes: int, start_cost: float) -> float:
    """Return the seconds until the next start after this many crashes without an answer between them.

    While the site still answers some requests, answering gets half of the time. Otherwise starting gets less and less.
    """
    return min(LONGEST_CRASH_PAUSE, max(start_cost, LEAST_COST) * max(1, crashes - FREE_CRASHES))


def gives_up(failures: int) -> bool:
    """Tell whether a site has failed too often in a row to be tried again."""
    return failures >= GIVE_UP_AFTER
