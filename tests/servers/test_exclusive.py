"""Sites that must not run twice: two nodes, a registry, and no moment in which both run the site."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

from multisite.cluster.engines import open_registry
from multisite.cluster.relaying import sign
from tests.cluster import programs
from tests.supervisor.test_membership import agents

from .cluster import KEY, Cluster, Node, cluster
from .harness import PATIENCE, eventually

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes at etcd, with a lease that survives a busy machine."""
    folder = tmp_path_factory.mktemp("pair")
    with programs.running("etcd", folder / "etcd") as engine:
        (folder / "users").write_text("ann:{SHA}" + b64encode(sha1(b"secret").digest()).decode() + "\n")
        with cluster(folder / "nodes", "etcd://127.0.0.1:{}", engine.port, lease=600) as made:
            yield made


def holder(pair: Cluster) -> tuple[Node, Node]:
    """Return the node that runs the site, after a request, and the other one."""
    eventually(pair.nodes[0].number)
    found = sorted(pair.nodes, key=lambda one: not one.is_holder)
    assert [one.is_holder for one in found] == [True, False]
    return found[0], found[1]


def asked(node: Node, path: str = "/", body: bytes = b"", **fields: str) -> tuple[int, list[str]]:
    """Ask with further header fields; returns the status, and what the site has seen."""
    wire = http.client.HTTPConnection("127.0.0.1", node.server.port, timeout=PATIENCE)
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    wire.request("POST" if body else "GET", path, body or None, {"Host": "clock.test", **named})
    answer = wire.getresponse()
    text = answer.read().decode()
    wire.close()
    return answer.status, text.split("|")


def test_two_nodes_run_one_process(pair: Cluster) -> None:
    here, there = holder(pair)
    assert there.number() == here.number() == pair.runs()[-1].number
    assert len({one.pid for one in pair.runs() if one.number == here.number()}) == 1


def test_the_site_sees_the_client_of_the_first_node(pair: Cluster) -> None:
    """The peer is trusted, as a front end on the same machine is: what it says about its client is passed on."""
    here, there = holder(pair)
    fields = {"X_Forwarded_For": "192.0.2.7", "X_Forwarded_Proto": "https"}
    status, seen = asked(there, "/a?b=c", b"12345" * 20000, **fields)
    assert (status, seen) == (200, asked(here, "/a?b=c", b"12345" * 20000, **fields)[1])
    assert seen[1:4] == ["127.0.0.1", "https", "192.0.2.7"]
    assert seen[5:] == ["False", "12345" * 20000]


def test_nobody_else_speaks_for_a_node(pair: Cluster) -> None:
    """Neither with another key nor for another request nor from the past."""
    here, _ = holder(pair)
    request = {"REQUEST_METHOD": "GET", "HTTP_HOST": "clock.test", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.7"}
    good = sign(request, KEY, here.address, time.time())
    assert asked(here, X_Multisite_Relay=good)[1][1] == "192.0.2.7"
    forged = [
        sign(request, b"x" * 40, here.address, time.time()),
        sign({**request, "PATH_INFO": "/b"}, KEY, here.address, time.time()),
        sign(request, KEY, "127.0.0.1:1", time.time()),
        sign(request, KEY, here.address, time.time() - 3600),
        "nonsense",
    ]
    assert {asked(here, X_Multisite_Relay=field)[0] for field in forged} == {403}
    assert "in the name of a node" in here.server.log()


def test_a_relayed_request_is_not_relayed_again(pair: Cluster) -> None:
    """Then no two nodes can send one to each other for ever."""
    _, there = holder(pair)
    assert asked(there)[0] == 200
    request = {"REQUEST_METHOD": "GET", "HTTP_HOST": "clock.test", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.7"}
    assert asked(there, X_Multisite_Relay=sign(request, KEY, there.address, time.time()))[0] == 503


def test_explain_names_the_node(pair: Cluster) -> None:
    here, there = holder(pair)
    assert asked(there)[0] == 200
    told = here.home.multisite("explain", "clock.test")
    assert f"this node, {here.address}, has it since" in told
    assert f"number {here.number()}" in told
    assert f"the node {here.address} had it at" in there.home.multisite("explain", "clock.test")


def test_a_new_version_starts_after_the_old_one_has_ended(pair: Cluster) -> None:
    here, there = holder(pair)
    before, guards, go = pair.runs()[-1], row(here)["pids"], pair.place / "go"
    with ThreadPoolExecutor(2) as pool:
        try:
            slow = pool.submit(asked, here, f"/until/{go}")
            eventually(lambda: any(str(go) in one["path"] for one in row(here)["requests_in_flight"]))
            restart = pool.submit(here.home.typed, "restart", "clock")
            eventually(lambda: row(here)["state"] == "draining")
            assert [row(here)["pids"] for _ in range(10)] == [guards] * 10
        finally:
            go.touch()
        assert slow.result()[0] == 200
        assert restart.result().exit_code == 0
    eventually(lambda: there.number() and pair.runs()[-1].pid != before.pid)
    assert pair.overlaps() == []


def row(node: Node) -> dict[str, Any]:
    """What ``status`` tells of the site."""
    told: list[dict[str, Any]] = [{}]
    eventually(lambda: told.append(node.status()) or told[-1])
    return dict(told[-1]["sites"][0])


def test_an_upgrade_keeps_the_process_and_its_lease(pair: Cluster) -> None:
    """Each program renews it before the next one comes, under the same number."""
    here, _ = holder(pair)
    before, until = pair.runs()[-1], here.until()
    for _ in range(2):
        done = here.home.typed("reload", "--supervisor")
        assert done.exit_code == 0, done.output
        assert here.until() > until
        until = here.until()
    assert here.is_holder
    lines = len((pair.place / "notes").read_text().splitlines())
    eventually(lambda: len((pair.place / "notes").read_text().splitlines()) > lines + 10)
    assert (pair.runs()[-1].pid, pair.runs()[-1].number) == (before.pid, before.number)


def test_a_stopped_agent_costs_no_lease(pair: Cluster) -> None:
    """Another process takes its place, or the upgrade would wait for ever: it comes after the lease was renewed."""
    here, _ = holder(pair)
    before, supervisor = pair.runs()[-1], here.status()["supervisor"]["pid"]
    former = agents(supervisor)
    os.kill(former[0], signal.SIGSTOP)
    done = here.home.typed("reload", "--supervisor")
    assert done.exit_code == 0, done.output
    eventually(lambda: former[0] not in agents(supervisor))
    assert (here.number(), pair.runs()[-1].pid) == (before.number, before.pid)


def test_a_test_start_is_refused(pair: Cluster) -> None:
    done = pair.nodes[0].home.typed("check", "--boot", "clock")
    assert done.exit_code
    assert "clock is exclusive" in done.stderr
    assert "0 started" in pair.nodes[0].home.typed("check", "--boot").stdout


def test_a_node_that_has_stopped_the_site_gives_its_lease_back(pair: Cluster) -> None:
    """The next request takes it again, wherever it arrives."""
    here, there = holder(pair)
    before = here.number()
    here.home.multisite("stop", "clock")
    eventually(lambda: not here.is_holder)
    eventually(lambda: there.number() > before)
    assert [one.is_holder for one in pair.nodes].count(True) == 1
    assert pair.overlaps() == []


def test_no_request_goes_to_a_node_that_moya_conf_does_not_list(pair: Cluster) -> None:
    """Whoever can write to the registry can claim a lease."""
    here, there = holder(pair)
    here.home.multisite("stop", "clock")
    registry = open_registry(f"etcd://127.0.0.1:{here.gate.port}")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        owner = f"127.0.0.1:{stranger.getsockname()[1]} x"
        taken: list[int] = []
        eventually(lambda: taken.append(registry.lease("site/clock", owner, 600.0) or 0) or taken[-1])
        try:
            eventually(lambda: {asked(one)[0] for one in pair.nodes} == {503})
            assert "is not among [cluster] nodes" in there.home.multisite("explain", "clock.test")
            stranger.setblocking(False)
            with pytest.raises(BlockingIOError):
                stranger.accept()
        finally:
            registry.release("site/clock", owner, taken[-1])
    eventually(there.number)
    assert pair.overlaps() == []


def test_a_killed_agent_costs_no_lease(pair: Cluster) -> None:
    """Another process talks to the engine then, and renews it."""
    here, _ = holder(pair)
    before, supervisor = pair.runs()[-1], here.status()["supervisor"]["pid"]
    former = agents(supervisor)
    os.kill(former[0], signal.SIGKILL)
    eventually(lambda: agents(supervisor) not in ([], former))
    eventually(lambda: here.status()["registry"]["state"] == "connected")
    assert (here.number(), pair.runs()[-1].pid) == (before.number, before.pid)


def test_a_supervisor_that_exits_gives_its_leases_back(pair: Cluster) -> None:
    """Nobody has to wait for their end."""
    here, there = holder(pair)
    before = here.number()
    os.kill(here.status()["supervisor"]["pid"], signal.SIGTERM)
    eventually(lambda: there.number() > before)
    assert pair.overlaps() == []


def test_the_first_node_asks_for_the_password(pair: Cluster) -> None:
    """The other one gets the user, but no password."""
    _, there = holder(pair)
    for node in pair.nodes:
        node.site("clock", more=f"[access]\nhtpasswd = {pair.place.parent.parent / 'users'}\n")
    eventually(lambda: {asked(one)[0] for one in pair.nodes} == {401})
    known = "Basic YW5uOnNlY3JldA=="  # ann:secret
    eventually(lambda: asked(there, Authorization=known)[0] == 200)
    assert asked(there, Authorization=known)[1][4] == "ann"
    assert asked(there, Authorization="Basic YW5uOndyb25n")[0] == 401


@pytest.mark.parametrize(("name", "ways"), [("etcd", ("cut", "freeze", "kill")), ("redis", ("cut",))])
def test_no_two_nodes_ever_run_it(tmp_path: Path, name: str, ways: tuple[str, ...]) -> None:
    """Whether a node loses the registry, or its supervisor is frozen or dies (bench/partitions.py: many times)."""
    with programs.running(name, tmp_path / name) as engine:
        url = engine.url.replace(str(engine.port), "{}")
        with cluster(tmp_path / "nodes", url, engine.port) as made:
            eventually(made.nodes[0].number)
            for way in ways:
                made.partition(way)
            assert len(made.runs()) > len(ways)
            assert made.overlaps() == []
