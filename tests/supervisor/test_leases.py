"""The leases of exclusive sites: what is refused, and how a lease's time is counted."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from multisite.config.model import Site
from multisite.config.policies import Refused
from multisite.config.read import make_site, read_home, read_site
from multisite.runner import leaseguard
from multisite.supervisor.loop import Loop
from multisite.supervisor.process import descriptors, launch
from multisite.supervisor.site.lease import OVER, Answer, Lease
from multisite.supervisor.site.leasekeeper import Done, LeaseAnswer, LeaseKeeper, Terms
from multisite.supervisor.site.leases import LINGER, LONGEST_HELD, UNKNOWN_AFTER, Leases

CLUSTER = "[cluster]\nurl = etcd://127.0.0.1:1\nnodes = 127.0.0.1:8000\nkey_file = key\n"


@pytest.mark.parametrize(
    ("conf", "reason", "remedy"),
    [
        ("", "no registry knows which node runs it", "set [cluster] url = etcd://HOST:PORT"),
        (CLUSTER.replace("nodes", "#"), "none of nodes has an address of this machine", "node = ADDRESS:PORT"),
        (CLUSTER.replace("key_file", "#"), "key_file is not set", "openssl rand"),
        (CLUSTER, "is open to every account", "chmod 600"),
    ],
    ids=["registry", "node", "key", "open key"],
)
def test_what_an_exclusive_site_needs(tmp_path: Path, conf: str, reason: str, remedy: str) -> None:
    """The refusal names what is missing, and what to do."""
    (tmp_path / "moya.conf").write_text(conf)
    (tmp_path / "key").write_text("k" * 40)
    (tmp_path / "key").chmod(0o644)
    keys = f"command = true\ndomains = a.test\nlocation = {tmp_path}\nexclusive = yes\n"
    (tmp_path / "one.ini").write_text(f"[service]\n{keys}")
    home = read_home(str(tmp_path))
    refused = launch.obstacle(make_site(read_site(str(tmp_path / "one.ini"), home.path), home), home)
    assert isinstance(refused, Refused)
    assert reason in str(refused)
    assert remedy in str(refused)


@pytest.mark.parametrize("ttl", [3.0, 15.0, 600.0])
def test_a_process_ends_before_its_lease_does(ttl: float) -> None:
    """By a second at least, and by a tenth; what may warn it comes after the renewal that should prevent that."""
    terms = Terms("", "", ttl)
    assert terms.until(10**9) <= 10**9 + (ttl - max(1.0, ttl / 10)) * 1e9
    assert ttl / 3 < ttl - terms.margin - terms.warning


class Engine:
    """A registry in this process: its leases end when a test says so, and it answers at once or when asked to."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, int]] = {}
        self.number = 0
        self.is_away = self.is_slow = False
        self.others: list[str] = []  # nodes that take sites over, while this one drains
        self.waiting: list[Callable[[], None]] = []

    def lease(self, key: str, owner: str, ttl: float, done: Done) -> None:
        self._do(lambda: self._lease(key, owner), done)

    def _lease(self, key: str, owner: str) -> int | None:
        if key not in self.held:
            self.number += 1
            self.held[key] = owner, self.number
        has, number = self.held[key]
        return number if has == owner else None

    def holder(self, key: str, done: Done) -> None:
        self._do(partial(self.held.get, key), done)

    def release(self, key: str, owner: str, number: int) -> None:
        self._do(lambda: self.held.pop(key) if self.held.get(key) == (owner, number) else None, lambda *_answer: None)

    def successors(self, _site: Site) -> list[str]:
        return self.others

    def _do(self, find: Callable[[], object], done: Done) -> None:
        def answer() -> None:
            done(None, "it is away") if self.is_away else done(find(), "")

        self.waiting.append(answer)
        if not self.is_slow:
            self.work()

    def work(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


class Asking:
    """A node that asks, and what it has been answered."""

    def __init__(self, engine: Engine, node: str) -> None:
        self.answers: list[LeaseAnswer] = []
        self.keeper = LeaseKeeper(Terms(node, f"{node} x", 3.0), engine, self.answers.append)

    def take(self) -> LeaseAnswer:
        self.keeper.take("a")
        return self.answers[-1]

    def hold(self, lease: Lease) -> int:
        """Take a lease whose renewal is due at once; returns until when it is valid."""
        found = self.take()
        lease.hold(found.number, found.until)
        self.keeper.keep("a", found.number, lease.fence, is_new=False)
        return found.until


@pytest.fixture
def lease() -> Iterator[Lease]:
    made = Lease()
    yield made
    made.drop()


def until(lease: Lease) -> int:
    """Return the moment at which a guard would end the site."""
    return int.from_bytes(os.pread(lease.shown, leaseguard.SIZE, 0), sys.byteorder)


def test_each_lease_has_its_own_file_which_its_processes_can_only_read(lease: Lease) -> None:
    lease.hold(1, 100)
    first = os.dup(lease.shown)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(lease.shown, b"x", 0)
    lease.hold(2, 200)
    assert int.from_bytes(os.pread(first, leaseguard.SIZE, 0), sys.byteorder) == 100
    assert until(lease) == 200
    os.close(first)


def test_one_node_gets_a_lease_and_the_others_learn_which() -> None:
    engine = Engine()
    one, other = Asking(engine, "10.0.0.1:80"), Asking(engine, "10.0.0.2:80")
    assert one.take().number == 1
    assert other.take().owner == "10.0.0.1:80"
    one.keeper.release("a", 1)
    assert other.take().number == 2


def test_a_lease_that_was_free_for_a_while_is_lost(lease: Lease) -> None:
    """Another node may have had it, even if this one gets it again."""
    engine = Engine()
    asking = Asking(engine, "10.0.0.1:80")
    asking.hold(lease)
    engine.held.clear()
    asking.keeper.tick(time.monotonic())
    assert asking.answers[-1].is_lost
    assert engine.held == {}
    assert asking.keeper.next_renewal == math.inf


def test_a_lease_is_extended_only_when_the_registry_has_answered(lease: Lease) -> None:
    engine = Engine()
    asking = Asking(engine, "10.0.0.1:80")
    first = asking.hold(lease)
    engine.is_away = True
    now = time.monotonic()
    asking.keeper.tick(now)
    assert asking.answers[-1].failure
    assert until(lease) == first
    assert now < asking.keeper.next_renewal < math.inf
    engine.is_away = False
    asking.keeper.tick(asking.keeper.next_renewal)
    assert until(lease) > first


def test_a_lease_counts_from_before_the_question_however_late_the_answer(lease: Lease) -> None:
    """Meanwhile the registry is not asked once more."""
    engine = Engine()
    asking = Asking(engine, "10.0.0.1:80")
    first = asking.hold(lease)
    engine.is_slow = True
    asking.keeper.tick(time.monotonic())
    asked = leaseguard.now()
    for later in (10.0, 20.0):
        asking.keeper.tick(time.monotonic() + later)
    assert len(engine.waiting) == 1
    engine.work()
    assert first < until(lease) <= asking.keeper.terms.until(asked)


def test_before_a_pause_each_lease_is_renewed_once(lease: Lease) -> None:
    """It begins when the registry has answered, if only that it is away."""
    engine = Engine()
    asking = Asking(engine, "10.0.0.1:80")
    first = asking.hold(lease)
    asking.keeper.tick(time.monotonic())
    assert until(lease) > first
    engine.is_slow = True
    since, before = time.monotonic(), until(lease)
    assert [asking.keeper.are_renewed(since) for _ in range(3)] == [False] * 3
    assert len(engine.waiting) == 1
    engine.work()
    assert asking.keeper.are_renewed(since)
    assert until(lease) > before
    engine.is_slow, engine.is_away = False, True
    assert asking.keeper.are_renewed(time.monotonic())
    assert asking.answers[-1].failure


def test_a_renewal_extends_nothing_that_has_been_given_back(lease: Lease) -> None:
    engine = Engine()
    asking = Asking(engine, "10.0.0.1:80")
    first = asking.hold(lease)
    engine.is_slow = True
    asking.keeper.tick(time.monotonic())
    asking.keeper.release("a", lease.number)
    engine.work()
    assert until(lease) == first
    assert engine.held == {}


class Exclusive:
    """A site, and what it is told to do."""

    is_waiting = needs_lease = is_waited_for = False

    def __init__(self, lease: Lease, site: Site) -> None:
        self.lease, self.site = lease, site
        self.pids: list[int] = []
        self.reasons: list[str] = []
        self.stop = self.reasons.append

    def ensure(self) -> str:
        return "/socket"

    def turn_away(self, reason: str, retry_after: float) -> None:
        assert self.is_waiting
        self.reasons.append(reason)

    def lose_lease(self) -> None:
        raise AssertionError("it has none")


class Worker:
    """A connection of a worker, and what it was answered."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.on_close: list[Callable[[], None]] = []
        self.send = self.answers.append


class Here:
    """The leases of one site on this node."""

    def __init__(self, folder: Path, lease: Lease) -> None:
        (folder / "moya.conf").write_text("[cluster]\nnodes = 127.0.0.1:8000\n")
        (folder / "one.ini").write_text("[service]\ndomains = a.test\ncommand = true\nlocation = /\n")
        home, self.engine, self.loop = read_home(str(folder)), Engine(), Loop()
        self.one = Exclusive(lease, make_site(read_site(str(folder / "one.ini"), home.path), home))
        self.leases = Leases(self.loop, lambda: home, lambda: {"one": self.one}, self.engine)


@pytest.fixture
def here(tmp_path: Path, lease: Lease) -> Iterator[Here]:
    made = Here(tmp_path, lease)
    yield made
    made.loop.close()


def test_who_asks_for_a_site_that_leaves_waits_for_where_it_goes(here: Here) -> None:
    """It ends when no worker takes it to run here any more, and what it has in flight is waited for."""
    engine, one, now = here.engine, here.one, here.loop.now()
    assert here.leases.place(one, Worker()) is None
    engine.others, one.pids = ["10.0.0.2:80"], [1]
    here.leases.tick(now)
    early, late, third = Worker(), Worker(), Worker()
    assert here.leases.place(one, early) is None
    here.leases.tick(now + UNKNOWN_AFTER - 0.1)
    assert not one.reasons
    here.leases.tick(now + UNKNOWN_AFTER)
    assert one.reasons == ["drained"] and engine.held and not early.answers
    here.leases.tick(now + LONGEST_HELD)
    assert early.answers[0]["status"] == 503
    assert here.leases.place(one, late) is None
    one.pids, one.is_waited_for = [], True
    here.leases.tick(now + LONGEST_HELD + 1)
    assert engine.held and one.lease.may_start
    one.is_waited_for = False
    here.leases.tick(now + 20)
    here.leases.tick(now + 20 + UNKNOWN_AFTER)
    assert not engine.held
    assert late.answers == [{"elsewhere": "10.0.0.2:80", "for": 1.0, "passed_on": True}]
    engine.others = []
    assert here.leases.place(one, third) is None
    assert third.answers[0]["socket"] and engine.held


def test_a_lease_that_is_given_back_between_two_questions_is_asked_for_once_more(here: Here) -> None:
    engine, worker = here.engine, Worker()
    engine.held["site/one"], engine.is_slow = ("127.0.0.1:9000 x", 1), True
    assert here.leases.place(here.one, worker) is None
    engine.waiting.pop(0)()  # it is another's: whose?
    engine.held.clear()
    engine.work()
    assert worker.answers == [{"socket": "/socket", "for": 1.0}]


def test_who_asks_anew_is_not_told_what_was_asked_before(here: Here) -> None:
    engine, first, second = here.engine, Worker(), Worker()
    engine.held["site/one"], engine.is_slow = ("127.0.0.1:9000 x", 1), True
    assert here.leases.place(here.one, first) is None
    engine.waiting.pop(0)()
    assert here.leases.place(here.one, second, anew=True) is None
    engine.waiting.pop(0)()
    assert "127.0.0.1:9000" in first.answers[0]["error"] and not second.answers
    engine.held.clear()
    engine.work()
    assert second.answers == [{"socket": "/socket", "for": 1.0}]


def test_a_site_stays_if_the_drain_is_over_before_it_has_left(here: Here) -> None:
    worker, now = Worker(), here.loop.now()
    assert here.leases.place(here.one, Worker()) is None
    here.engine.others, here.one.pids = ["10.0.0.2:80"], [1]
    here.leases.tick(now)
    assert here.leases.place(here.one, worker) is None
    here.engine.others = []
    here.leases.tick(now + 1)
    assert worker.answers == [here.leases.place(here.one, Worker())] == [{"socket": "/socket", "for": 1.0}]
    assert here.engine.held and not here.one.reasons


def test_a_lease_that_cannot_be_kept_is_given_back_and_the_worker_learns_why(here: Here, lease: Lease) -> None:
    leases, one, engine, worker = here.leases, here.one, here.engine, Worker()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0] - descriptors.left(), limits[1]))
    try:
        assert leases.place(one, worker) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert engine.held == {}
    assert not lease.callers
    assert "this node cannot keep its lease" in worker.answers[0]["error"]


@pytest.mark.parametrize("is_renewed", [True, False])
def test_nothing_starts_under_a_lease_that_is_over_until_it_is_renewed(here: Here, is_renewed: bool) -> None:
    """A supervisor that was frozen does not know whether another node has it now."""
    leases, one, engine, worker = here.leases, here.one, here.engine, Worker()
    assert leases.place(one, Worker()) is None
    assert one.lease.may_start
    os.pwrite(one.lease.fence, bytes(leaseguard.SIZE), 0)
    assert not one.lease.may_start
    told = one.lease.as_dict("127.0.0.1:8000")
    assert told and (told["here"], told["failure"]) == (False, OVER)
    assert leases.place(one, worker) is None
    engine.is_away, one.is_waiting = not is_renewed, True
    leases.tick(here.loop.now() + LONGEST_HELD)
    assert one.lease.may_start == is_renewed
    if is_renewed:
        assert worker.answers == [{"socket": "/socket", "for": 1.0}] and not one.reasons
    else:
        assert "it is away" in worker.answers[0]["error"] and "it is away" in one.reasons[0]


def test_a_lease_that_a_worker_waits_for_is_not_given_back(here: Here) -> None:
    leases, one, worker, now = here.leases, here.one, Worker(), here.loop.now()
    assert leases.place(one, Worker()) is None
    os.pwrite(one.lease.fence, bytes(leaseguard.SIZE), 0)
    assert leases.place(one, worker) is None
    here.engine.is_slow = True
    for later in (LONGEST_HELD, LONGEST_HELD + LINGER, LONGEST_HELD + 2 * LINGER):
        leases.tick(now + later)
    assert one.lease.number and not worker.answers
    here.engine.work()
    assert worker.answers == [{"socket": "/socket", "for": 1.0}]
