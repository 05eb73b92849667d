"""What asks the registry for leases, renews them and gives them back; nothing here waits for an answer.

A lease is renewed at a third of its time. Until when it is valid is written into the site's fence: a small file that
the guard of each of its processes has mapped (`multisite.runner.leaseguard`). That moment is counted from before the
question was handed over, and is earlier than the registry's own by a margin. However long question and answer take, the
registry counts from a later moment; so the processes have ended before anybody else can have the lease, even if this
program is frozen.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from multisite.cluster import nodes
from multisite.config.model import Home
from multisite.runner import leaseguard

RENEWED = 3  # times within the life of a lease
AGAIN = 1.0  # seconds before the next attempt where the registry has not answered
LEAST_MARGIN = 1.0  # seconds

Done = Callable[[Any, str], None]  # the result, and why there is none


class Lessor(Protocol):
    """The registry, asked without waiting (`multisite.supervisor.cluster.membership`).

    `done` is called once, with the result or with the reason why there is none: later, or at once where nobody can be
    asked. Questions are asked in their order.
    """

    def lease(self, key: str, owner: str, ttl: float, done: Done) -> None:
        """Take a lease or renew it; the result is its number, or None while another has it."""

    def release(self, key: str, owner: str, number: int) -> None:
        """Give a lease back."""

    def holder(self, key: str, done: Done) -> None:
        """Ask who has a lease; the result is the owner and the number, or None."""


@dataclass(frozen=True)
class Terms:
    """What leases are asked for with.

    Attributes:
        node: address of this node.
        owner: the same, and what distinguishes this home on this machine from any other that claims the address.
        ttl: seconds after which the registry gives the lease to another.
    """

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
        return cls(node, f"{node} {_boot()} {os.path.realpath(home.path)}", home.cluster.lease)

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
        is_free: nobody has it.
    """

    key: str
    number: int = 0
    until: int = 0
    owner: str = ""
    failure: str = ""
    is_lost: bool = False
    is_free: bool = False


class _Held:
    """A lease that is renewed.

    Attributes:
        renew_at: monotonic seconds.
        asked_at: monotonic seconds of the last renewal.
        is_asked_for: the registry has not answered yet, so it is not asked once more.
    """

    def __init__(self, number: int, fence: int, renew_at: float) -> None:
        self.number, self.renew_at, self.asked_at, self.is_asked_for = number, renew_at, 0.0, False
        self._cells = memoryview(mmap.mmap(fence, leaseguard.SIZE)).cast("q")

    def extend(self, until: int) -> None:
        self._cells[0] = max(until, self._cells[0])


class LeaseKeeper:
    """Asks for leases, renews them and gives them back.

    Args:
        terms: with which it asks.
        lessor: is asked.
        tell: takes each answer.
    """

    def __init__(self, terms: Terms, lessor: Lessor, tell: Callable[[LeaseAnswer], None]) -> None:
        self.terms = terms
        self._lessor, self._tell = lessor, tell
        self._held: dict[str, _Held] = {}

    @property
    def next_renewal(self) -> float:
        """When the next lease has to be renewed, in monotonic seconds."""
        return min((held.renew_at for held in self._held.values() if not held.is_asked_for), default=math.inf)

    def take(self, key: str) -> None:
        """Ask for a lease; the answer says who has it."""
        self._ask(key, partial(self._taken, key, leaseguard.now()))

    def find(self, key: str) -> None:
        """Ask who has a lease, without taking it."""
        self._lessor.holder(_named(key), partial(self._found, key))

    def keep(self, key: str, number: int, fence: int, *, is_new: bool) -> None:
        """Renew a lease from now on, in this file."""
        pause = self.terms.ttl / RENEWED if is_new else 0.0
        self._held[key] = _Held(number, fence, time.monotonic() + pause)

    def release(self, key: str, number: int) -> None:
        """Give a lease back: nothing of the site runs any more."""
        held = self._held.get(key)
        if held and held.number == number:
            del self._held[key]
        self._lessor.release(_named(key), self.terms.owner, number)  # one that is not given back ends by itself

    def tick(self, now: float) -> None:
        """Renew what is due."""
        for key, held in list(self._held.items()):
            if held.renew_at <= now and not held.is_asked_for:
                held.renew_at, held.asked_at, held.is_asked_for = now + self.terms.ttl / RENEWED, now, True
                self._ask(key, partial(self._renewed, key, held, leaseguard.now()))

    def are_renewed(self, since: float) -> bool:
        """Renew what has not been renewed since this moment; tells whether nothing is left to wait for."""
        for held in self._held.values():
            if held.asked_at < since:
                held.renew_at = min(held.renew_at, since)
        self.tick(time.monotonic())
        return all(held.asked_at >= since and not held.is_asked_for for held in self._held.values())

    def _ask(self, key: str, done: Done) -> None:
        self._lessor.lease(_named(key), self.terms.owner, self.terms.ttl, done)

    # Answers

    def _taken(self, key: str, sent: int, number: int | None, error: str) -> None:
        if error:
            self._tell(LeaseAnswer(key, failure=_unanswered(error)))
        elif number:
            self._tell(LeaseAnswer(key, number, self.terms.until(sent)))
        else:
            self.find(key)

    def _found(self, key: str, holder: tuple[str, int] | None, error: str) -> None:
        address = holder[0].partition(" ")[0] if holder else ""
        if error:
            self._tell(LeaseAnswer(key, failure=_unanswered(error)))
        elif not holder:
            self._tell(LeaseAnswer(key, failure="it is passing from one node to another", is_free=True))
        elif address == self.terms.node:
            self._tell(LeaseAnswer(key, failure=f"another process that calls itself the node {address} has its lease"))
        else:
            self._tell(LeaseAnswer(key, owner=address))

    def _renewed(self, key: str, held: _Held, sent: int, number: int | None, error: str) -> None:
        if self._held.get(key) is not held:
            return  # it has been given back since
        held.is_asked_for = False
        if error:
            held.renew_at = time.monotonic() + AGAIN
            self._tell(LeaseAnswer(key, held.number, failure=_unanswered(error)))
        elif number == held.number:
            held.extend(self.terms.until(sent))
            self._tell(LeaseAnswer(key, held.number, self.terms.until(sent)))
        else:
            del self._held[key]
            if number:  # it was free for a while, in which another may have had it
                self._lessor.release(_named(key), self.terms.owner, number)
            self._tell(LeaseAnswer(key, held.number, is_lost=True))


def _named(key: str) -> str:
    return f"site/{key}"


def _unanswered(error: str) -> str:
    return f"the registry does not answer: {error}"
