"""All preloaders of a supervisor: when one is worth its memory, and who gets what from it.

A pair of interpreter and user gets a preloader with the second start of any of its sites, as soon as that is over and
it is known what they import. It leaves when it has no children and has not been asked for a while.
"""

from __future__ import annotations

import logging
from ast import literal_eval
from collections import Counter
from dataclasses import asdict
from typing import Any

from multisite.config.model import Home
from multisite.supervisor.handover import Handed, State
from multisite.supervisor.loop import Loop
from multisite.supervisor.process import faithful, kernel
from multisite.supervisor.process.descriptors import DescriptorLimits
from multisite.supervisor.process.learned import Knowledge, Learned
from multisite.supervisor.process.preloader import Preloader
from multisite.supervisor.process.process import Identity, Launch, Pair

PAYS_FROM = 2  # starts of sites of a pair
IDLE = 300.0  # seconds without a fork and without a child
LOADING = 60.0  # seconds that it may take to import everything
MOST_FAILURES = 30  # of a pair, spoilt imports included
OFF = 600.0  # seconds without a preloader for a pair that cannot have one
WEIGH_EVERY = 5.0  # seconds
OUTGROWN = 20  # modules that it has not, but its sites have

_log = logging.getLogger("multisite.supervisor")


class Preloaders(Handed):
    """Keeps them.

    Args:
        mark: how the marks of all processes of this supervisor begin.

    Attributes:
        memory: bytes of all, where that has been measured.
    """

    HANDED = ("_serial",)
    PARTS = ("_starts", "_failures", "_off")
    ANEW = ("_loop", "_limits", "_mark", "_learned", "_all", "_leaving", "memory", "_weigh_at")

    def __init__(self, home: Home, loop: Loop, limits: DescriptorLimits, mark: str) -> None:
        self._loop, self._limits, self._mark = loop, limits, mark
        self._learned = Learned(home)
        self._starts: Counter[Pair] = Counter()
        self._failures: Counter[Pair] = Counter()
        self._off: dict[Pair, tuple[str, float]] = {}  # why not, and until when
        self._all: dict[Pair, Preloader] = {}
        self._leaving: list[Preloader] = []
        self._serial = self.memory = 0
        self._weigh_at = 0.0

    def pack(self) -> State:
        """Return what `take_over` takes: what is known of pairs; they themselves have left."""
        pairs = self._starts.keys() | self._failures.keys() | self._off.keys()
        known = [[repr(asdict(pair)), self._starts[pair], self._failures[pair], self._off.get(pair)] for pair in pairs]
        return {**self.hand(), "pairs": known}

    def take_over(self, state: State) -> None:
        """Go on where another program was."""
        self.go_on(state)
        for text, starts, failures, off in state["pairs"]:
            told = literal_eval(text)
            pair = Pair(told["python"], Identity(**told["identity"]))
            self._starts[pair], self._failures[pair] = starts, failures
            if off:
                self._off[pair] = str(off[0]), float(off[1])

    @property
    def pids(self) -> set[int]:
        """Their processes."""
        return {preloader.pid for preloader in [*self._all.values(), *self._leaving]}

    # Starts of sites

    def for_start(self, launch: Launch) -> Preloader | str:
        """Note that a process is going to be started; returns who can fork it, or why there has to be a plain start."""
        why = faithful.obstacle(launch)
        if why:
            return why
        self._starts[launch.pair] += 1
        off = self._why_off(launch.pair)
        if off:
            return off
        preloader = self._all.get(launch.pair)
        if not preloader or not preloader.ready:
            return "there is no preloader yet"
        why = faithful.difference(launch, preloader.env, preloader.reads, preloader.nofile)
        return why or preloader

    def served(self, launch: Launch) -> None:
        """Note that a site of the pair is ready: now a preloader does not take anything away from its start."""
        if faithful.obstacle(launch) or self._why_off(launch.pair):
            return
        knowledge = self._known(launch.pair)
        preloader = self._all.get(launch.pair)
        if preloader and preloader.ready and len(knowledge.modules.keys() - preloader.modules) > OUTGROWN:
            self._dismiss(preloader)
            preloader = None
        if not preloader and self._starts[launch.pair] >= PAYS_FROM and knowledge.modules:
            self._start(launch)

    def learn(self, launch: Launch, names: str) -> None:
        """Take the names of modules that a site of the pair imports."""
        if not faithful.obstacle(launch) and self._known(launch.pair).learn(names.split()):
            self._learned.change()

    def _known(self, pair: Pair) -> Knowledge:
        return self._learned.of(str(pair))

    # Their own lives

    def _start(self, like: Launch) -> None:
        known = self._known(like.pair)
        self._serial += 1
        mark = f"{self._mark}:%preloader:{self._serial}"
        try:
            preloader = Preloader(like, known.modules, known.denied, mark, self._loop, self._limits, self._changed)
        except OSError as error:
            _log.warning("no preloader for %s: %s", like.pair, error.strerror)
            return
        self._all[like.pair] = preloader
        _log.info("preloader %s for %s", preloader.pid, like.pair)

    def _changed(self, preloader: Preloader) -> None:
        """A preloader has said something."""
        known = self._known(preloader.pair)
        if preloader.refused:
            self._give_up(preloader, preloader.refused)
        elif preloader.spoilt:
            known.deny(preloader.spoilt)
            self._learned.change()
            self._dismiss(preloader)
            if self._may_fail(preloader.pair):
                self._start(preloader.like)
        if preloader.failed:
            known.deny(dict.fromkeys(preloader.failed, "cannot be imported without its site"))
            self._learned.change()
            preloader.failed = []

    def _may_fail(self, pair: Pair) -> bool:
        self._failures[pair] += 1
        if self._failures[pair] < MOST_FAILURES:
            return True
        self._switch_off(pair, "its preloader failed too often")
        return False

    def _switch_off(self, pair: Pair, reason: str) -> None:
        self._off[pair] = reason, self._loop.now() + OFF
        self._failures[pair] = 0

    def _why_off(self, pair: Pair) -> str:
        reason, until = self._off.get(pair, ("", 0.0))
        return reason if self._loop.now() < until else ""

    def _give_up(self, preloader: Preloader, reason: str) -> None:
        self._switch_off(preloader.pair, f"no preloader: {reason}")
        _log.warning("no preloader for %s: %s", preloader.pair, reason)
        self._dismiss(preloader)

    def _dismiss(self, preloader: Preloader) -> None:
        """Have no more of it; its children live on."""
        if self._all.get(preloader.pair) is preloader:
            del self._all[preloader.pair]
            self._leaving.append(preloader)
            preloader.leave()

    def lost(self, preloader: Preloader) -> None:
        """It did not answer in time."""
        _log.warning("preloader %s does not answer", preloader.pid)
        self._dismiss(preloader)
        preloader.kill()

    def ended(self, pid: int) -> bool:
        """Take note of the end of a process; False if it is no preloader."""
        for preloader in list(self._all.values()):
            preloader.born.discard(pid)
        for preloader in [*self._all.values(), *self._leaving]:
            if preloader.pid == pid:
                preloader.hear()  # its last words may not have been read
                self._bury(preloader)
                return True
        return False

    def _bury(self, preloader: Preloader) -> None:
        if preloader in self._leaving:
            self._leaving.remove(preloader)
        else:
            del self._all[preloader.pair]
            if preloader.ready:  # what is installed has changed, or somebody killed it
                self._learned.forget_denied(str(preloader.pair))
            else:
                _log.warning("preloader %s failed: %s", preloader.pid, " | ".join(preloader.said[-5:]))
                self._may_fail(preloader.pair)
        preloader.ended()

    def tick(self, now: float, *, crowded: bool = False) -> None:
        """Do what is due; with `crowded` those go at once that have no children."""
        for preloader in list(self._all.values()):
            if not preloader.ready and now - preloader.since > LOADING:
                self._give_up(preloader, f"its imports take longer than {LOADING:g} s")
                preloader.kill()
            elif not preloader.born and (crowded or now - preloader.last_fork > IDLE):
                self._dismiss(preloader)
        self._learned.keep()

    def weigh(self, now: float) -> int:
        """Measure their memory now and then; returns bytes."""
        if now >= self._weigh_at:
            self._weigh_at = now + WEIGH_EVERY
            self.memory = sum(kernel.memory(pid) for pid in self.pids)
        return self.memory

    def describe(self) -> list[dict[str, Any]]:
        """Tell of them as JSON takes it."""
        now = self._loop.now()
        return [
            {
                "pid": one.pid,
                "interpreter": pair.python,
                "user": pair.identity.name,
                "state": "ready" if one.ready else "loading",
                "memory": kernel.memory(one.pid),
                "children": len(one.born),
                "forks": one.forks,
                "modules": one.loaded,
                "denied": self._known(pair).denied,
                "idle": round(now - one.last_fork, 3),
            }
            for pair, one in self._all.items()
        ]

    def close(self) -> None:
        """End them all."""
        self._learned.keep()
        for preloader in list(self._all.values()):
            self._dismiss(preloader)
        for preloader in self._leaving:
            preloader.kill()
