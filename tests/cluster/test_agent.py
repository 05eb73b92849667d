"""The process that talks to the engine: here what it does while there is none, or one that answers nonsense."""

from __future__ import annotations

import http.server
import queue
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multisite.cluster.agent import _END, Agent
from multisite.cluster.engines import open_registry
from multisite.cluster.localcopy import GRACE, WITHDRAWN, LocalCopy
from multisite.cluster.registry import ANSWERS_WITHIN, Version

from . import programs

LEASE = {"do": "lease", "key": "blog", "owner": "a:1", "ttl": 10}


def agent(told: list[dict[str, Any]], copy: LocalCopy | None = None, url: str = "redis://127.0.0.1:1") -> Agent:
    return Agent(open_registry(url), copy or LocalCopy(), told.append)


def test_while_the_engine_is_away_it_waits() -> None:
    told: list[dict[str, Any]] = []
    one = agent(told)
    one._take({"announce": {"node": {"a:1": "{}"}}})
    for _ in range(3):
        one._tick(max(one._due, time.monotonic()))
        assert one._due > time.monotonic()
    assert [message["state"] for message in told] == ["away"]


def test_what_was_known_before_counts_meanwhile() -> None:
    told: list[dict[str, Any]] = []
    copy = LocalCopy(Version("e", 1), {"node": {"b:1": "{}"}})
    agent(told, copy)._tick(time.monotonic())
    assert copy.entries == {"node": {"b:1": "{}"}}
    assert [message.get("entries") for message in told] == [None]


@pytest.mark.servers
def test_only_what_is_different_is_told(tmp_path: Path) -> None:
    """What was known before, but has gone meanwhile, is different as well."""
    told: list[dict[str, Any]] = []
    with programs.running("redis", tmp_path / "redis") as engine:
        other = open_registry(engine.url)
        other.announce("node", "b:1", "{}", 60.0)
        copy = LocalCopy(Version("e", 1), {"node": {"b:1": "{}"}, "pool": {"c:1": "{}"}})
        one = agent(told, copy, engine.url)
        one._tick(time.monotonic())
        other.announce("figures", "b:1", "1", 60.0)
        one._tick(one._due)
        one._tick(time.monotonic() + GRACE)
    entries = [message["entries"] for message in told if "entries" in message]
    assert entries == [{"figures": {"b:1": "1"}}, {"pool": {"c:1": WITHDRAWN}}]


def test_whoever_asks_for_a_lease_learns_why_there_is_none() -> None:
    told: list[dict[str, Any]] = []
    agent(told)._take({"ask": 7, **LEASE})
    assert told[0]["answer"] == 7
    assert "111" in told[0]["error"]


def test_it_ends_with_its_supervisor() -> None:
    messages: queue.Queue[dict[str, Any]] = queue.Queue()
    messages.put(_END)
    agent([]).run(messages)


def test_while_the_engine_hangs_only_looks_wait_for_it() -> None:
    """Leases of many sites would wait for one another. The next look comes a while after the end of the one before."""
    told: list[dict[str, Any]] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        one = agent(told, url=f"redis://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        one._tick(begun)
        assert one._due > begun + ANSWERS_WITHIN
        assert [message["state"] for message in told] == ["away"]
        assert connections(silent)
        for number in range(20):
            one._take({"ask": number, **LEASE})
        assert connections(silent) == 0
    assert [message["answer"] for message in told[1:]] == [*range(20)]
    assert {message["error"] for message in told[1:]} == {told[0]["reason"]}


def connections(listening: socket.socket) -> int:
    count = 0
    while True:
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


class Nonsense(http.server.BaseHTTPRequestHandler):
    """What says that it is etcd, but then answers as etcd never does."""

    def do_GET(self) -> None:
        body = b'{"etcdserver": "3.5.0", "etcdcluster": "3.5.0", "kvs": [{}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture(params=["redis", "http"])
def nonsense(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an engine in which somebody has written nonsense, or of what is no engine at all."""
    if request.param == "http":
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nonsense) as server:
            threading.Thread(target=server.serve_forever, args=(0.01,)).start()
            yield f"etcd://127.0.0.1:{server.server_port}"
            server.shutdown()
        return
    with programs.running("redis", tmp_path / "redis") as engine:
        import redis

        client = redis.Redis(port=engine.port)
        client.set("multisite:{default}:version", "one")
        client.set("multisite:{default}:lease:blog", "nonsense")
        yield engine.url


@pytest.mark.servers
def test_an_engine_that_answers_nonsense_is_away(nonsense: str) -> None:
    told: list[dict[str, Any]] = []
    one = agent(told, url=nonsense)
    one._take({"ask": 1, "do": "holder", "key": "blog"})
    one._tick(time.monotonic())
    assert "makes no sense" in told[0]["error"]
    assert told[1]["state"] == "away"
