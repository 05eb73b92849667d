"""Exclusive sites of every kind of server, kept running by `warm = always`: one node runs them, and they move."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import programs

from .cluster import SITE, Cluster, Node, cluster, noted, overlaps
from .harness import ask, eventually
from .load import BREATH, Load
from .system_python import uwsgi_of_debian

pytestmark = pytest.mark.servers

LEASE = 10  # seconds, of which a busy machine may sleep through five
GUNICORN = f"{sys.executable} -m gunicorn --no-control-socket --threads 4"
KINDS = {
    "own": {"server": "auto"},
    "gunicorn": {"server": "gunicorn", "threads": "4"},
    "uwsgi": {"server": "uwsgi", "threads": "4"},
    "handed": {"server": "command", "command": f"{GUNICORN} app:application"},  # it takes the socket over
    "bound": {"server": "command", "command": f"{GUNICORN} --bind 127.0.0.1:%PORT app:application"},
}


@dataclass(frozen=True)
class Sites:
    """One site of each kind on two nodes."""

    cluster: Cluster
    folder: Path

    @property
    def nodes(self) -> list[Node]:
        return self.cluster.nodes

    def running(self, node: Node) -> set[str]:
        """Return the sites of which a process runs on a node."""
        return {name for name in KINDS if node.home.processes(backends=True, of=name)}

    def are_on(self, node: Node) -> bool:
        """Tell whether that node runs all of them, and no other node any."""
        return [self.running(one) for one in self.nodes] == [set(KINDS) if one is node else set() for one in self.nodes]

    def assert_never_twice(self) -> None:
        for name in KINDS:
            assert overlaps(noted(self.folder / name)) == [], name


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    folder = tmp_path_factory.mktemp("moves")
    uwsgi_of_debian()
    with programs.running("redis", folder / "redis") as engine:
        with cluster(folder / "nodes", "redis://127.0.0.1:{}/0", engine.port, lease=LEASE) as made:
            for name, keys in KINDS.items():
                (folder / name).mkdir()
                (folder / name / "app.py").write_text(SITE)
                whole = {"domains": f"{name}.test", "location": str(folder / name), "application": "app:application"}
                text = "".join(f"{key} = {value}\n" for key, value in {**whole, **keys}.items())
                for node in made.nodes:
                    node.home.ini(name, f"[service]\n{text}exclusive = yes\nwarm = always\n")
            for node in made.nodes:
                node.number()  # a request that starts its supervisor
            yield Sites(made, folder)


def test_each_site_runs_on_one_node_though_nobody_asks_for_it(sites: Sites) -> None:
    eventually(lambda: sorted([*sites.running(sites.nodes[0]), *sites.running(sites.nodes[1])]) == sorted(KINDS))
    for name in KINDS:
        answers = {node.server.ask(f"{name}.test").text.partition("|")[0] for node in sites.nodes}
        assert answers == {str(noted(sites.folder / name)[-1].number)}
    sites.assert_never_twice()


class Asking(Load):
    """Threads that ask a site whose answers differ, on a connection for each request."""

    def _ask(self) -> None:
        while not self._stop.wait(10 * BREATH):
            try:
                answer = ask(self.port, self.host, method="POST", body=b"x")
                wrong = "" if answer.status == 200 else f"{answer.status} {answer.text}"
            except (OSError, http.client.HTTPException) as error:
                wrong = repr(error)
            with self._lock:
                self.asked += 1
                self.failures += [wrong] if wrong else []


def test_the_sites_of_a_node_that_drains_move_without_a_failed_request(sites: Sites) -> None:
    """Whichever node is asked."""
    eventually(lambda: sum(len(sites.running(one)) for one in sites.nodes) == len(KINDS))
    there, here = sorted(sites.nodes, key=lambda one: len(sites.running(one)))
    with contextlib.ExitStack() as stack:
        asking = [Asking(node.server.port, f"{name}.test", "", 1) for name in KINDS for node in sites.nodes]
        for load in asking:
            stack.enter_context(load)
        eventually(lambda: all(load.asked > 5 for load in asking))
        here.home.multisite("drain")
        eventually(lambda: sites.are_on(there))
        before = [load.asked for load in asking]
        eventually(lambda: all(load.asked > count + 5 for load, count in zip(asking, before, strict=True)))
        assert told_to_drain(sites, here)
        here.home.multisite("drain", "--undo")
        eventually(lambda: not told_to_drain(sites, here))
    assert [load.failures for load in asking if load.failures] == []
    sites.assert_never_twice()


def told_to_drain(sites: Sites, node: Node) -> bool:
    """Tell whether any node believes that this one drains."""
    shown = [json.loads(one.home.multisite("--json", "status", "--cluster")) for one in sites.nodes]
    return any(row["draining"] for told in shown for row in told["nodes"] if row["node"] == node.address)


def test_the_guards_end_what_a_frozen_supervisor_leaves_running(sites: Sites) -> None:
    """All processes of each site, before another node runs it."""
    eventually(lambda: any(map(sites.are_on, sites.nodes)))
    here = next(filter(sites.are_on, sites.nodes))
    there = next(one for one in sites.nodes if one is not here)
    supervisor = here.status()["supervisor"]["pid"]
    os.kill(supervisor, signal.SIGSTOP)
    try:
        eventually(lambda: sites.are_on(there))
    finally:
        os.kill(supervisor, signal.SIGCONT)
    for name in KINDS:
        assert there.server.ask(f"{name}.test").status == 200
    sites.assert_never_twice()


def test_the_sites_of_a_node_that_stops_move(sites: Sites) -> None:
    eventually(lambda: any(map(sites.are_on, sites.nodes)))
    here = next(filter(sites.are_on, sites.nodes))
    there = next(one for one in sites.nodes if one is not here)
    here.server.stop()
    eventually(lambda: sites.are_on(there))
    sites.assert_never_twice()
    here.server.__enter__()
