"""The leases of exclusive sites: what is refused, and how a lease's time is counted."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from multisite.cluster.registry import EngineAway
from multisite.config.policies import Refused
from multisite.config.read import make_site, read_home, read_site
from multisite.runner import leaseguard
from multisite.supervisor.process import launch
from multisite.supervisor.site.leasekeeper import LeaseAnswer, LeaseKeeper, Terms
from multisite.supervisor.site.leases import Lease

from .harness import wait_until

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
    terms = Terms("", "", "", ttl)
    assert terms.until(10**9) <= 10**9 + (ttl - max(1.0, ttl / 10)) * 1e9
    assert ttl / 3 < ttl - terms.margin - terms.warning


class Engine:
    """A registry in this process, whose leases end when a test says so."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, int]] = {}
        self.number = 0
        self.is_away = False

    def lease(self, key: str, owner: str, ttl: float) -> int | None:
        if self.is_away:
            raise EngineAway("it is away")
        if key not in self.held:
            self.number += 1
            self.held[key] = owner, self.number
        has, number = self.held[key]
        return number if has == owner else None

    def holder(self, key: str) -> tuple[str, int] | None:
        return self.held.get(key)

    def release(self, key: str, owner: str, number: int) -> None:
        if self.held.get(key) == (owner, number):
            del self.held[key]


class Asking:
    """A node's thread, and what it has been answered."""

    def __init__(self, engine: Engine, node: str) -> None:
        self.answers: list[LeaseAnswer] = []
        terms = Terms("", node, f"{node} x", 3.0)
        self.keeper = LeaseKeeper(terms, lambda: engine, self.answers.append)  # type: ignore[arg-type,return-value]

    def take(self) -> LeaseAnswer:
        before = len(self.answers)
        self.keeper.take("a")
        wait_until(lambda: len(self.answers) > before)
        return self.answers[-1]


def until(lease: Lease) -> int:
    """Return the moment at which a guard would end the site."""
    return int.from_bytes(os.pread(lease.shown, leaseguard.SIZE, 0), sys.byteorder)


def test_one_node_gets_a_lease_and_the_others_learn_which() -> None:
    engine = Engine()
    one, other = Asking(engine, "10.0.0.1:80"), Asking(engine, "10.0.0.2:80")
    assert one.take().number == 1
    assert other.take().owner == "10.0.0.1:80"
    one.keeper.release("a", 1)
    wait_until(lambda: not engine.held)
    assert other.take().number == 2


def test_a_lease_that_was_free_for_a_while_is_lost() -> None:
    """Another node may have had it, even if this one gets it again."""
    engine = Engine()
    asking, lease = Asking(engine, "10.0.0.1:80"), Lease()
    lease.hold(1, asking.take().until)
    engine.held.clear()
    asking.keeper.keep("a", 1, lease.fence, is_new=False)
    wait_until(lambda: asking.answers[-1].is_lost)
    wait_until(lambda: not engine.held)
    lease.drop()


def test_a_lease_is_extended_only_when_the_registry_has_answered() -> None:
    engine = Engine()
    asking, lease = Asking(engine, "10.0.0.1:80"), Lease()
    lease.hold(1, asking.take().until)
    engine.is_away = True
    first = until(lease)
    asking.keeper.keep("a", 1, lease.fence, is_new=False)
    wait_until(lambda: asking.answers[-1].failure)
    assert until(lease) == first
    engine.is_away = False
    wait_until(lambda: until(lease) > first)
    asking.keeper.close()
    lease.drop()
