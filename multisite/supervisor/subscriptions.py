"""The nodes that announce themselves: their sockets, the pool, and its publication to the workers (`multisite.router`).

The pool survives: a program that replaces us receives the sockets and the pool. One that starts after a crash reads the
pool from the state directory, so that a signed packet still counts only once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from multisite.config.model import Home
from multisite.control.rundir import RuntimeDir
from multisite.router import published
from multisite.router.pool import TOLERANCE, Member, Pool
from multisite.router.published import Publisher
from multisite.router.server import Socket, SubscriptionServer
from multisite.sites.statefile import StateFile
from multisite.supervisor.loop import Loop
from multisite.supervisor.reexec import Handed, Keeper, given, kept

STORE_EVERY = 5.0  # seconds between two copies of the pool in the state directory, where it is large
LOOK_EVERY = 1.0
LARGE = 1000  # nodes above which the pool is published at most ten times a second

_log = logging.getLogger("multisite.router")


def _described(sockets: dict[str, Socket], keep: Keeper) -> dict[str, int]:
    return {address: keep(each.sock.fileno()) for address, each in sockets.items()}


class Subscriptions(Handed):
    """The subscription server of a home, open while its configuration names an address.

    Args:
        state: of the program that this one replaces.
    """

    KEPT = kept(
        pool=given(lambda pool, _keep: pool.pack()),
        _sockets=given(_described),
    )
    ANEW = (
        *("_loop", "_rundir", "_home", "_server", "_publisher", "_failures"),
        *("_look_at", "_store_at", "_stored", "_publish_at"),
    )

    def __init__(self, home: Home, rundir: RuntimeDir, loop: Loop, state: Any = None) -> None:
        self._loop, self._rundir = loop, rundir
        self.pool = Pool()
        self._sockets: dict[str, Socket] = {}
        self._publisher: Publisher | None = None
        self._failures: dict[str, str] = {}
        self._look_at = self._store_at = self._publish_at = 0.0
        self._home = home
        past = state["pool"] if state else StateFile(home, "subscriptions", guides_us=True).load()
        if past:
            try:
                self.pool.take_over(past, loop.now(), bool(state) or published.silence(rundir) < TOLERANCE)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                _log.error("MS733 cannot read the saved list of announced nodes: %s", error)
                self.pool = Pool()
        self._server = SubscriptionServer(home, self.pool, loop.now, time.time)
        self._stored = self.pool.changes
        for address, descriptor in (state["sockets"] if state else {}).items():
            self._watch(Socket(address, descriptor=descriptor))

    @property
    def next_look(self) -> float:
        """Monotonic seconds at which `tick` next has something to do."""
        due = [self._look_at]
        if self._publish_at > 0:
            due.append(self._publish_at)
        if self.pool.changes != self._stored:
            due.append(self._store_at)
        return min(due)

    def tick(self, now: float, home: Home) -> None:
        """Follow the configuration, forget silent nodes, and publish what is new."""
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            if home is not self._home:
                if home.router != self._home.router:
                    self._server.adopt(home)
                self._home = home
            for key, address in self.pool.expire(now):
                _log.info("node %s of %s is silent; it gets no more requests", address, key)
            self._follow()
        if self._publish_at and now >= self._publish_at:
            self._loop.attempt(self._publish, now)
        if self._publisher:
            self._publisher.beat()
        if now >= self._store_at and self.pool.changes != self._stored:
            # A supervisor that is killed before this line forgets that it accepted a signed packet.
            self._store_at = now + (STORE_EVERY if self.pool.remembered >= LARGE else 0.0)
            self._store()

    def _follow(self) -> None:
        """Open the sockets that the configuration names, and close all others."""
        wanted = self._home.router.subscription_server
        for address in [address for address in self._sockets if address not in wanted]:
            one = self._sockets.pop(address)
            self._loop.forget(one.sock)
            one.close()
        for address in wanted:
            if address not in self._sockets:
                self._open(address)
        if not wanted:
            self.pool.clear()
        if self._published_generation != self.pool.generation:
            self._publish_at = self._publish_at or self._loop.now()

    @property
    def _published_generation(self) -> int:
        return self._publisher.published if self._publisher else (1 if not self._sockets else -1)

    def adopt(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Take the nodes that announced themselves to other machines."""
        if self.pool.adopt(documents, self._loop.now()) and not self._publish_at:
            self._publish_at = self._loop.now()

    def _open(self, address: str) -> None:
        try:
            self._watch(Socket(address, self._rundir.access.group))
            _log.info("nodes may announce themselves at %s", address)
            self._failures.pop(address, None)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if self._failures.get(address) != reason:
                _log.error("MS734 subscription_server = %s: %s", address, reason)
            self._failures[address] = reason

    def _watch(self, one: Socket) -> None:
        self._sockets[one.address] = one
        self._loop.watch(one.sock, self._receiver(one))

    def _receiver(self, one: Socket) -> Callable[[int], None]:
        def receive(_events: int) -> None:
            self._server.receive(one)
            if self._published_generation != self.pool.generation and not self._publish_at:
                now = self._loop.now()
                if len(self.pool) < LARGE:
                    self._loop.attempt(self._publish, now)  # if it fails, announcements are still accepted
                else:
                    self._publish_at = now + 0.1

        return receive

    def _publish(self, now: float) -> None:
        self._publish_at = now + LOOK_EVERY  # tried again if it fails
        if not self._publisher:
            self._publisher = Publisher(self._rundir)
        self._publisher.publish(self.pool)
        self._publish_at = 0.0

    def _store(self) -> None:
        self._stored = self.pool.changes
        StateFile(self._home, "subscriptions", guides_us=True).store(self.pool.pack())

    def describe(self) -> dict[str, Any]:
        """Return what commands and the statistics report about the pool; times are monotonic seconds."""
        return {
            "sockets": list(self._sockets),
            "counted": dict(self.pool.counted),
            "keys": [
                {"key": key, "algorithm": algorithm, "nodes": [_told(member) for member in members]}
                for key, algorithm, members in self.pool
            ],
        }

    def close(self) -> None:
        """Accept no more announcements; the workers keep what is known."""
        if self._stored != self.pool.changes:
            self._store()
        for one in self._sockets.values():
            self._loop.forget(one.sock)
            one.close()
        self._sockets.clear()


def _told(member: Member) -> dict[str, Any]:
    node = member.node
    return {
        "node": str(node),
        "modifier1": node.modifier1,
        "modifier2": node.modifier2,
        "weight": node.weight,
        "backup": node.backup,
        "protocol": node.endpoint.protocol,
        "cores": member.cores,
        "load": member.load,
        "seen": member.seen,
        "uid": member.uid,
    }
