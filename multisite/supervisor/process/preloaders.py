"""All preloaders of a supervisor: when one is worth its memory, and which sites it forks.

A pair of interpreter and user gets a preloader with the second start of any of its sites, once that is over and the
sites' imports are known. It exits when it has no children and has not been asked for a while.
"""

from __future__ import annotations

import itertools
import logging
import re
from ast import literal_eval
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from multisite.config.model import Home
from multisite.sites.statefile import StateFile
from multisite.supervisor.loop import Loop
from multisite.supervisor.process import kernel, spec
from multisite.supervisor.process.descriptors import DescriptorLimits
from multisite.supervisor.process.preloader import Preloader
from multisite.supervisor.process.spec import Identity, Launch, PreloaderKey
from multisite.supervisor.reexec import Handed, Keeper, State, kept

PAYS_FROM = 2  # starts of sites of a pair
IDLE = 300.0  # seconds without a fork and without a child
LOADING = 60.0  # seconds that importing everything may take
MOST_FAILURES = 30  # of a pair, spoilt imports included
OFF = 600.0  # seconds without a preloader for a pair that cannot have one
WEIGH_EVERY = 5.0  # seconds
OUTGROWN = 20  # modules that its sites have and it lacks
MOST_MODULES = 4000
MOST_PAIRS = 500
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\Z")
_LONGEST_NAME = 200  # characters

_log = logging.getLogger("multisite.supervisor")


@dataclass
class Knowledge:
    """What is known about one pair of interpreter and user.

    Attributes:
        modules: what its sites import, in the order of their imports.
        denied: module to why it is not preloaded; neither are its submodules.
    """

    modules: dict[str, None] = field(default_factory=dict)
    denied: dict[str, str] = field(default_factory=dict)

    def learn(self, names: Iterable[str]) -> int:
        """Take names of modules that a site reports as imported, whatever it reports; returns how many are new."""
        before = len(self.modules)
        for name in itertools.islice(names, MOST_MODULES):
            if len(self.modules) >= MOST_MODULES:
                break
            if len(name) <= _LONGEST_NAME and _NAME.match(name) and not self.is_denied(name):
                self.modules.setdefault(name)
        return len(self.modules) - before

    def is_denied(self, name: str) -> bool:
        """Tell whether a module must not be preloaded."""
        parts = name.split(".")
        return any(".".join(parts[: end + 1]) in self.denied for end in range(len(parts)))

    def deny(self, reasons: Mapping[str, str]) -> None:
        """Stop preloading modules, for these reasons."""
        for name, reason in itertools.islice(reasons.items(), max(0, MOST_MODULES - len(self.denied))):
            if len(name) <= _LONGEST_NAME and _NAME.match(name):
                self.denied[name] = reason[:_LONGEST_NAME]
        self.modules = {module: None for module in self.modules if not self.is_denied(module)}


class Learned:
    """The knowledge of a home, by pair (a `PreloaderKey` as text), kept in the state directory."""

    def __init__(self, home: Home) -> None:
        self._file = StateFile(home, "preload")
        self._pairs: dict[str, Knowledge] = {}
        self._changed = False
        document = self._file.load()
        for pair, told in document.items() if isinstance(document, dict) else ():
            self._pairs[pair] = _read(told)

    def of(self, pair: str) -> Knowledge:
        """Return what is known about a pair; nothing if it is new."""
        return self._pairs.setdefault(pair, Knowledge())

    def forget_denied(self, pair: str) -> None:
        """Allow all modules of a pair again, because its packages may have changed."""
        self.of(pair).denied.clear()
        self._changed = True

    def change(self) -> None:
        """Note that something needs to be stored."""
        self._changed = True

    def keep(self) -> None:
        """Store it, if there is anything new."""
        if self._changed:
            newest = list(self._pairs.items())[-MOST_PAIRS:]
            told = {p: {"modules": list(k.modules), "denied": k.denied} for p, k in newest if k.modules}
            self._changed = not self._file.store(told)


def _read(told: Any) -> Knowledge:
    """Check nothing but the types of a document."""
    knowledge = Knowledge()
    if isinstance(told, dict):
        denied, modules = told.get("denied"), told.get("modules")
        if isinstance(denied, dict):
            knowledge.deny({str(name): str(reason) for name, reason in denied.items()})
        knowledge.learn(map(str, modules) if isinstance(modules, list) else ())
    return knowledge


class Preloaders(Handed):
    """Keeps them.

    Args:
        mark: how the marks of all processes of this supervisor begin.

    Attributes:
        memory: bytes of all of them, if measured.
    """

    KEPT = kept("_serial")
    BY_HAND = ("_starts", "_failures", "_off")
    ANEW = ("_loop", "_limits", "_mark", "_learned", "_all", "_leaving", "memory", "_weigh_at")

    def __init__(self, home: Home, loop: Loop, limits: DescriptorLimits, mark: str) -> None:
        self._loop, self._limits, self._mark = loop, limits, mark
        self._learned = Learned(home)
        self._starts: Counter[PreloaderKey] = Counter()
        self._failures: Counter[PreloaderKey] = Counter()
        self._off: dict[PreloaderKey, tuple[str, float]] = {}  # why there is none, and until when
        self._all: dict[PreloaderKey, Preloader] = {}
        self._leaving: list[Preloader] = []
        self._serial = self.memory = 0
        self._weigh_at = 0.0

    def pack(self, keep: Keeper) -> State:
        """Return what `take_over` accepts: what is known about pairs; the preloaders themselves have ended."""
        keys = self._starts.keys() | self._failures.keys() | self._off.keys()
        known = [[repr(asdict(key)), self._starts[key], self._failures[key], self._off.get(key)] for key in keys]
        return {**super().pack(keep), "pairs": known}

    def take_over(self, state: State) -> None:
        """Continue where another program stopped."""
        super().take_over(state)
        for text, starts, failures, off in state["pairs"]:
            told = literal_eval(text)
            key = PreloaderKey(told["python"], Identity(**told["identity"]))
            self._starts[key], self._failures[key] = starts, failures
            if off:
                self._off[key] = str(off[0]), float(off[1])

    @property
    def pids(self) -> set[int]:
        """Their processes."""
        return {preloader.pid for preloader in [*self._all.values(), *self._leaving]}

    # Starts of sites

    def for_start(self, launch: Launch) -> Preloader | str:
        """Note that a process is about to start; returns the preloader that can fork it, or why it needs a plain
        start."""
        why = spec.fork_obstacle(launch)
        if why:
            return why
        self._starts[launch.preloader_key] += 1
        off = self._why_off(launch.preloader_key)
        if off:
            return off
        preloader = self._all.get(launch.preloader_key)
        if not preloader or not preloader.ready:
            return "there is no preloader yet"
        why = spec.fork_difference(launch, preloader.env, preloader.reads, preloader.nofile)
        return why or preloader

    def served(self, launch: Launch) -> None:
        """Note that a site of its pair is ready: a preloader no longer slows down that site's start."""
        if spec.fork_obstacle(launch) or self._why_off(launch.preloader_key):
            return
        knowledge = self._known(launch.preloader_key)
        preloader = self._all.get(launch.preloader_key)
        if preloader and preloader.ready and len(knowledge.modules.keys() - preloader.modules) > OUTGROWN:
            self._dismiss(preloader)
            preloader = None
        if not preloader and self._starts[launch.preloader_key] >= PAYS_FROM and knowledge.modules:
            self._start(launch)

    def learn(self, launch: Launch, names: str) -> None:
        """Take the names of the modules that a site of its pair imports."""
        if not spec.fork_obstacle(launch) and self._known(launch.preloader_key).learn(names.split()):
            self._learned.change()

    def _known(self, key: PreloaderKey) -> Knowledge:
        return self._learned.of(str(key))

    # Their own lives

    def _start(self, like: Launch) -> None:
        known = self._known(like.preloader_key)
        self._serial += 1
        mark = f"{self._mark}:%preloader:{self._serial}"
        try:
            preloader = Preloader(like, known.modules, known.denied, mark, self._loop, self._limits, self._changed)
        except OSError as error:
            _log.warning("MS550 no preloader for %s: %s", like.preloader_key, error.strerror)
            return
        self._all[like.preloader_key] = preloader
        _log.info("started preloader %s for %s", preloader.pid, like.preloader_key)

    def _changed(self, preloader: Preloader) -> None:
        """Handle a message from a preloader."""
        known = self._known(preloader.key)
        if preloader.refused:
            self._give_up(preloader, preloader.refused)
        elif preloader.spoilt:
            known.deny(preloader.spoilt)
            self._learned.change()
            self._dismiss(preloader)
            if self._may_fail(preloader.key):
                self._start(preloader.like)
        if preloader.failed:
            known.deny(dict.fromkeys(preloader.failed, "cannot be imported without its site"))
            self._learned.change()
            preloader.failed = []

    def _may_fail(self, key: PreloaderKey) -> bool:
        self._failures[key] += 1
        if self._failures[key] < MOST_FAILURES:
            return True
        self._switch_off(key, "its preloader failed too often")
        return False

    def _switch_off(self, key: PreloaderKey, reason: str) -> None:
        self._off[key] = reason, self._loop.now() + OFF
        self._failures[key] = 0

    def _why_off(self, key: PreloaderKey) -> str:
        reason, until = self._off.get(key, ("", 0.0))
        return reason if self._loop.now() < until else ""

    def _give_up(self, preloader: Preloader, reason: str) -> None:
        self._switch_off(preloader.key, f"no preloader: {reason}")
        _log.warning("MS551 no preloader for %s: %s", preloader.key, reason)
        self._dismiss(preloader)

    def _dismiss(self, preloader: Preloader) -> None:
        """Drop it; its children live on."""
        if self._all.get(preloader.key) is preloader:
            del self._all[preloader.key]
            self._leaving.append(preloader)
            preloader.leave()

    def lost(self, preloader: Preloader) -> None:
        """Handle a preloader that did not answer in time."""
        _log.warning("MS552 preloader %s does not answer", preloader.pid)
        self._dismiss(preloader)
        preloader.kill()

    def ended(self, pid: int, _status: int = 0) -> bool:
        """Handle the end of a process; False if it is not a preloader."""
        for preloader in list(self._all.values()):
            preloader.children.discard(pid)
        for preloader in [*self._all.values(), *self._leaving]:
            if preloader.pid == pid:
                preloader.read_message()  # its last message may not have been read
                self._bury(preloader)
                return True
        return False

    def _bury(self, preloader: Preloader) -> None:
        if preloader in self._leaving:
            self._leaving.remove(preloader)
        else:
            del self._all[preloader.key]
            if preloader.ready:  # the installed packages have changed, or somebody killed it
                self._learned.forget_denied(str(preloader.key))
            else:
                _log.warning("MS553 preloader %s failed: %s", preloader.pid, " | ".join(preloader.said[-5:]))
                self._may_fail(preloader.key)
        preloader.ended()

    def tick(self, now: float, *, crowded: bool = False) -> None:
        """Do what is due; with `crowded` preloaders without children end at once."""
        for preloader in list(self._all.values()):
            if not preloader.ready and now - preloader.since > LOADING:
                self._give_up(preloader, f"its imports take longer than {LOADING:g} s")
                preloader.kill()
            elif not preloader.children and (crowded or now - preloader.last_fork > IDLE):
                self._dismiss(preloader)
        self._learned.keep()

    def weigh(self, now: float) -> int:
        """Measure their memory now and then; returns bytes."""
        if now >= self._weigh_at:
            self._weigh_at = now + WEIGH_EVERY
            self.memory = sum(kernel.memory(pid) for pid in self.pids)
        return self.memory

    def describe(self) -> list[dict[str, Any]]:
        """Describe them for JSON."""
        now = self._loop.now()
        return [
            {
                "pid": one.pid,
                "interpreter": key.python,
                "user": key.identity.name,
                "state": "ready" if one.ready else "loading",
                "memory": kernel.memory(one.pid),
                "children": len(one.children),
                "forks": one.forks,
                "modules": one.loaded,
                "denied": self._known(key).denied,
                "idle": round(now - one.last_fork, 3),
            }
            for key, one in self._all.items()
        ]

    def close(self) -> None:
        """End them all."""
        self._learned.keep()
        for preloader in list(self._all.values()):
            self._dismiss(preloader)
        for preloader in self._leaving:
            preloader.kill()
