"""The thread that asks the registry for leases, renews them and gives them back; the loop never waits for it.

A lease is renewed at a third of its time. The thread writes until when it is valid into the site's fence: a small file
that the guard of each of its processes has mapped (`multisite.runner.leaseguard`). That moment is counted from before
the call and is earlier than the registry's own by a margin, so the processes have ended before anybody else can have
the lease, even if this program is frozen.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from multisite.cluster import nodes
from multisite.cluster.registry import EngineAway, Registry
from multisite.config.model import Home
from multisite.runner import leaseguard

RENEWED = 3  # times within the life of a lease
AGAIN = 1.0  # seconds before the next attempt where the registry has not answered
LAST = 5.0  # seconds to give all leases back when the supervisor exits
LEAST_MARGIN = 1.0  # seconds

_log = logging.getLogger("multisite.supervisor")


@dataclass(frozen=True)
class Terms:
    """What leases are asked for with.

    Attributes:
        url: of the registry.
        node: address of this node.
        owner: the same, and what distinguishes this home on this machine from any other that claims the address.
        ttl: seconds after which the registry gives the lease to another.
    """

    url: str
    node: str
    owner: str
    ttl: float

    @classmethod
    def of(cls, home: Home) -> Terms:
        """Return those of a home.

        Raises:
            UnknownNode: it is not known which node this is.
        """
        node = str(nodes.own(home))
        return cls(home.cluster.url, node, f"{node} {_boot()} {os.path.realpath(home.path)}", home.cluster.lease)

    @property
    def margin(self) -> float:
        """Seconds by which a process ends before its lease does: for a clock that runs slow, and for the killing."""
        return max(LEAST_MARGIN, self.ttl / 10)

    @property
    def warning(self) -> float:
        """Seconds that a process has to end by itself before it is killed."""
        return min(2.0, (self.ttl - self.margin) / 5)

    def until(self, sent: int) -> int:
        """Return the nanosecond until which a lease is valid that was asked for at `sent`."""
        return sent + int((self.ttl - self.margin) * 1e9)


def _boot() -> str:
    """Return a text that another machine, or this one after a restart, does not have."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return os.uname().nodename


@dataclass(frozen=True)
class LeaseAnswer:
    """What the registry has answered about one lease.

    Attributes:
        number: of the lease if it is ours, else 0.
        until: the nanosecond until which it is valid.
        owner: address of the node that has it, "" if it is ours or if that is not known.
        failure: why it is not known who has it.
        is_lost: it was ours.
    """

    key: str
    number: int = 0
    until: int = 0
    owner: str = ""
    failure: str = ""
    is_lost: bool = False


class _Held:
    """A lease that the thread renews."""

    def __init__(self, number: int, fence: int, renew_at: float) -> None:
        self.number, self.renew_at = number, renew_at
        self._cells = memoryview(mmap.mmap(fence, leaseguard.SIZE)).cast("q")

    def extend(self, until: int) -> None:
        self._cells[0] = max(until, self._cells[0])


class LeaseKeeper:
    """The thread that asks for leases, renews them and gives them back.

    Args:
        terms: with which it asks.
        opened: returns the registry; called in the thread.
        tell: takes each answer; called in the thread.
    """

    def __init__(self, terms: Terms, opened: Callable[[], Registry], tell: Callable[[LeaseAnswer], None]) -> None:
        self.terms = terms
        self._opened, self._tell = opened, tell
        self._registry: Registry | None = None
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[Registry], None]] = deque()
        self._held: dict[str, _Held] = {}
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="multisite-leases", daemon=True)
        self._thread.start()

    def take(self, key: str) -> None:
        """Ask for a lease; the answer says who has it."""
        self._do(partial(self._take, key))

    def keep(self, key: str, number: int, fence: int, *, is_new: bool) -> None:
        """Renew a lease from now on, in this file."""
        pause = self.terms.ttl / RENEWED if is_new else 0.0
        held = _Held(number, fence, time.monotonic() + pause)
        with self._changed:
            self._held[key] = held
            self._changed.notify()

    def release(self, key: str, number: int) -> None:
        """Give a lease back: nothing of the site runs any more."""
        with self._changed:
            held = self._held.get(key)
            if held and held.number == number:
                del self._held[key]
        self._do(partial(self._release, key, number))

    def close(self) -> None:
        """Do what is left to be done, for a while, and end."""
        with self._changed:
            self._ends = True
            self._held.clear()
            self._changed.notify()
        self._thread.join(LAST)

    def _do(self, job: Callable[[Registry], None]) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    # In the thread

    def _run(self) -> None:
        while True:
            job = self._next()
            if job is None:
                return
            with contextlib.suppress(EngineAway):  # a lease that cannot be given back ends by itself
                try:
                    self._registry = self._registry or self._opened()
                    job(self._registry)
                except EngineAway:
                    raise
                except Exception as error:  # a thread that ends would end all exclusive sites
                    _log.exception("MS568 cannot ask the registry: %s", error)
                    self._registry = None
                    time.sleep(AGAIN)

    def _next(self) -> Callable[[Registry], None] | None:
        """Wait for the next thing to do; what is due to be renewed comes first."""
        with self._changed:
            while True:
                now = time.monotonic()
                due = min(self._held.items(), key=lambda item: item[1].renew_at, default=None)
                if due and due[1].renew_at <= now:
                    return partial(self._renew, *due)
                if self._jobs:
                    return self._jobs.popleft()
                if self._ends:
                    return None
                self._changed.wait(due[1].renew_at - now if due else None)

    def _take(self, key: str, registry: Registry) -> None:
        sent, terms = leaseguard.now(), self.terms
        try:
            number = registry.lease(_named(key), terms.owner, terms.ttl)
            if number:
                self._tell(LeaseAnswer(key, number, terms.until(sent)))
                return
            holder = registry.holder(_named(key))
        except EngineAway as error:
            self._tell(LeaseAnswer(key, failure=f"the registry does not answer: {error}"))
            return
        address = holder[0].partition(" ")[0] if holder else ""
        if not holder:
            self._tell(LeaseAnswer(key, failure="it is passing from one node to another"))
        elif address == terms.node:
            self._tell(LeaseAnswer(key, failure=f"another process that calls itself the node {address} has its lease"))
        else:
            self._tell(LeaseAnswer(key, owner=address))

    def _release(self, key: str, number: int, registry: Registry) -> None:
        try:
            registry.release(_named(key), self.terms.owner, number)
        except EngineAway:  # perhaps only the connection was gone, after a while without use
            registry.release(_named(key), self.terms.owner, number)

    def _renew(self, key: str, held: _Held, registry: Registry) -> None:
        sent, terms = leaseguard.now(), self.terms
        held.renew_at = time.monotonic() + terms.ttl / RENEWED
        try:
            number = registry.lease(_named(key), terms.owner, terms.ttl)
        except EngineAway as error:
            held.renew_at = time.monotonic() + AGAIN
            self._tell(LeaseAnswer(key, held.number, failure=f"the registry does not answer: {error}"))
            return
        if number == held.number:
            held.extend(terms.until(sent))
            self._tell(LeaseAnswer(key, number, terms.until(sent)))
            return
        with self._changed:
            self._held.pop(key, None)
        if number:  # it was free for a while, in which another may have had it
            registry.release(_named(key), terms.owner, number)
        self._tell(LeaseAnswer(key, held.number, is_lost=True))


def _named(key: str) -> str:
    return f"site/{key}"
