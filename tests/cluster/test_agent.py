"""The process that talks to the engine: here what it does while there is none."""

from __future__ import annotations

import queue
import time
from typing import Any

from multisite.cluster.agent import _END, Agent
from multisite.cluster.engines import open_registry
from multisite.cluster.localcopy import LocalCopy
from multisite.cluster.registry import Version


def agent(told: list[dict[str, Any]], copy: LocalCopy | None = None) -> Agent:
    return Agent(open_registry("redis://127.0.0.1:1"), copy or LocalCopy(), told.append)


def test_while_the_engine_is_away_it_waits() -> None:
    told: list[dict[str, Any]] = []
    one = agent(told)
    one._take({"announce": {"node": {"a:1": "{}"}}})
    for _ in range(3):
        one._tick(time.monotonic())
        assert one._due > time.monotonic()
    assert [message["state"] for message in told] == ["away"]


def test_what_was_known_before_counts_meanwhile() -> None:
    told: list[dict[str, Any]] = []
    copy = LocalCopy(Version("e", 1), {"node": {"b:1": "{}"}})
    agent(told, copy)._tick(time.monotonic())
    assert copy.entries == {"node": {"b:1": "{}"}}
    assert [message.get("entries") for message in told] == [None]


def test_whoever_asks_for_a_lease_learns_why_there_is_none() -> None:
    told: list[dict[str, Any]] = []
    agent(told)._take({"ask": 7, "do": "lease", "key": "blog", "owner": "a:1", "ttl": 10})
    assert told[0]["answer"] == 7
    assert "111" in told[0]["error"]


def test_it_ends_with_its_supervisor() -> None:
    messages: queue.Queue[dict[str, Any]] = queue.Queue()
    messages.put(_END)
    agent([]).run(messages)
