"""What is lost of the memory that a budget takes away: cold starts, weighed by what each costs.

    python bench/budget.py

A simulator replays invented requests (Zipf: some sites are asked much more often than others; daily: each site has
its hours; bursty: many requests, then none for long) to sites of invented size and cost of starting, with room for a
tenth, a quarter and half of them. It compares the order in which our planner takes memory away with plain least
recently used, and with an oracle that knows when each site is asked next. Every figure is reproducible.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import Row, print_rows

from multisite.supervisor.planner import SiteView, by_weight

SITES = 120
REQUESTS = 8000
DAYS = 4
DAY, HOUR = 86400.0, 3600.0
SHARES = (0.1, 0.25, 0.5)  # of the memory of all sites together
SEEDS = (1, 2)

Trace = list[tuple[float, int]]  # seconds, site


@dataclass(frozen=True)
class Kind:
    """What a site needs: bytes, and seconds to start."""

    memory: int
    cost: float


def kinds(chance: random.Random) -> list[Kind]:
    """From a small Flask site to a large one with much to import; what is larger tends to start slower."""
    found = []
    for _ in range(SITES):
        size = min(600.0, max(12.0, chance.lognormvariate(math.log(45), 0.8)))
        cost = chance.lognormvariate(math.log(0.4), 1.0) * (size / 45) ** 0.4
        found.append(Kind(int(size * 2**20), min(8.0, max(0.03, cost))))
    return found


def zipf(chance: random.Random) -> Trace:
    weights = [1 / (rank + 1) ** 0.9 for rank in range(SITES)]
    chance.shuffle(weights)
    now, trace = 0.0, []
    for site in chance.choices(range(SITES), weights, k=REQUESTS):
        now += chance.expovariate(1 / 5)
        trace.append((now, site))
    return trace


def daily(chance: random.Random) -> Trace:
    trace = []
    for site in range(SITES):
        begins = chance.choice((7, 8, 9, 9, 10, 12, 14, 18, 20)) + chance.random()
        hours = chance.choice((1, 2, 4, 8))
        rate = chance.paretovariate(1.2)
        for day in range(DAYS):
            count = min(200, int(rate * hours * chance.uniform(0.5, 1.5))) + 1
            trace += [(day * DAY + (begins + chance.random() * hours) * HOUR, site) for _ in range(count)]
            if chance.random() < 0.3:
                trace.append((day * DAY + chance.random() * DAY, site))
    return sorted(trace)


def bursty(chance: random.Random) -> Trace:
    trace = []
    for site in range(SITES):
        now, pause = chance.random() * 20_000, chance.lognormvariate(math.log(9000), 1.0)
        while now < 3 * DAY:
            for _ in range(min(200, int(chance.paretovariate(0.9)))):
                trace.append((now, site))
                now += chance.expovariate(1 / 20)
            now += chance.expovariate(1 / pause)
    return sorted(trace)


TRACES: dict[str, Callable[[random.Random], Trace]] = {"Zipf": zipf, "daily": daily, "bursty": bursty}


class Machine:
    """A budget, and what lives within it.

    Attributes:
        last: when each site was asked last.
        next: when it is asked next, for the oracle.
        cost: seconds that all cold starts took together.
    """

    def __init__(self, kinds: list[Kind], budget: float) -> None:
        self.kinds, self.budget = kinds, budget
        self.live: set[int] = set()
        self.last: dict[int, float] = {}
        self.next: dict[int, float] = {}
        self.used, self.cost = 0, 0.0

    def run(self, trace: Trace, order: Callable[[Machine, float], Iterable[int]]) -> float:
        """Replay a trace; `order` names the sites of the machine, first the one that is taken first."""
        for (now, site), after in zip(trace, next_ones(trace), strict=True):
            if site not in self.live:
                self.cost += self.kinds[site].cost
                self._make_room(self.kinds[site].memory, order, now)
                self.live.add(site)
                self.used += self.kinds[site].memory
            self.last[site], self.next[site] = now, after
        return self.cost

    def _make_room(self, memory: int, order: Callable[[Machine, float], Iterable[int]], now: float) -> None:
        if self.used + memory <= self.budget:
            return
        for victim in order(self, now):
            self.live.remove(victim)
            self.used -= self.kinds[victim].memory
            if self.used + memory <= self.budget:
                break


def next_ones(trace: Trace) -> list[float]:
    """For each request the time of the same site's next one."""
    soonest: dict[int, float] = {}
    found = []
    for now, site in reversed(trace):
        found.append(soonest.get(site, math.inf))
        soonest[site] = now
    return found[::-1]


def ours(machine: Machine, now: float) -> Iterable[int]:
    """The planner's own order."""
    views = (
        SiteView(
            str(site),
            missing=0,
            processes=1,
            idle_since=machine.last[site],
            memory=machine.kinds[site].memory,
            start_cost=machine.kinds[site].cost,
        )
        for site in machine.live
    )
    return [int(view.name) for view in by_weight(views, now)]


def least_recent(machine: Machine, now: float) -> Iterable[int]:
    return sorted(machine.live, key=lambda site: machine.last[site])


def oracle(machine: Machine, now: float) -> Iterable[int]:
    """As ours, with the time until the next request in the place of that since the last."""

    def worth(site: int) -> float:
        return (machine.next[site] - now) * machine.kinds[site].memory / machine.kinds[site].cost

    return sorted(machine.live, key=lambda site: -worth(site))


def replay(name: str, share: float, seed: int) -> tuple[float, float, float]:
    """Return the cost of all cold starts with our order, with the least recently used first, and with the oracle."""
    chance = random.Random(seed)
    sites = kinds(chance)
    trace = TRACES[name](chance)
    budget = share * sum(kind.memory for kind in sites)
    mine, plain, best = (Machine(sites, budget).run(trace, order) for order in (ours, least_recent, oracle))
    return mine, plain, best


def measure() -> list[Row]:
    rows = []
    for name in TRACES:
        for share in SHARES:
            mine, plain, best = map(sum, zip(*(replay(name, share, seed) for seed in SEEDS), strict=True))
            told = f"cost of cold starts over plain LRU, {name} requests, memory for {share:.0%} of {SITES} sites"
            figure = f"{mine / plain:.2f} (oracle {best / plain:.2f})"
            rows.append(Row(told, figure, "≤ 1.0", mine <= plain))
    return rows


if __name__ == "__main__":
    print_rows(measure())
