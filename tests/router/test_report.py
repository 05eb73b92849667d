"""What commands and the statistics tell of keys and nodes."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from multisite.config import nodes
from multisite.config.model import Home
from multisite.config.read import read_home
from multisite.router import statistics
from multisite.router.counts import NodeCounts
from multisite.router.report import Report
from multisite.router.statistics import djb33x

US = {"version": "1.0", "pid": 7, "uid": 1, "gid": 2, "cwd": "/"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    lines = ["[service]", "runtime_dir = run", "state_dir = state", "[router]", "map = map.txt", "to = 10.0.0.5:3031,5"]
    (tmp_path / "moya.conf").write_text("\n".join([*lines, "algorithm = lrc", "code = mapper.py:get"]))
    (tmp_path / "map.txt").write_text("a.example 127.0.0.1:1,5|/run/b.sock\n")
    (tmp_path / "mapper.py").write_text("def get(key): return None")
    return read_home(str(tmp_path))


def told(**more: Any) -> dict[str, Any]:
    """What the supervisor tells of one announced node."""
    node = {"node": "127.0.0.1:9", "modifier1": 5, "modifier2": 7, "weight": 3, "backup": 1, "protocol": "uwsgi"}
    node |= {"cores": 4, "load": 2, "seen": time.monotonic() - 10, "uid": 33, **more}
    return {"sockets": ["127.0.0.1:7000"], "keys": [{"key": "s.example", "algorithm": "", "nodes": [node]}]}


def counted(home: Home, mapper: str, key: str, node: str, requests: int = 1, failures: int = 0) -> None:
    counts = NodeCounts(home, mapper, key, nodes.parse(node))
    for _ in range(requests):
        counts.began()
    for _ in range(failures):
        counts.failed()


def test_keys_and_nodes(home: Home) -> None:
    """In the shape that programs rely on; mappers that list no keys show those that were asked for."""
    counted(home, "map", "a.example", "/run/b.sock", 3, 1)
    counted(home, "code", "c.example", "127.0.0.1:3")
    counted(home, "map", "gone.example", "127.0.0.1:4")
    listed = Report(home, None).keys()
    found = {(each.key, each.mapper): asdict(each) for each in listed}
    assert set(found) == {("a.example", "map"), ("*", "to"), ("c.example", "code")}
    first, second = found["a.example", "map"]["nodes"]
    assert first == {
        "node": "127.0.0.1:1",
        "modifier1": 5,
        "weight": 1,
        "requests": 0,
        "failures": 0,
        "last_seen": None,
        "dead": False,
    }
    assert (second["node"], second["requests"], second["failures"], second["dead"]) == ("/run/b.sock", 3, 1, True)
    assert second["last_seen"] == pytest.approx(time.time(), abs=60)
    assert found["*", "to"]["nodes"][0]["modifier1"] == 5


def test_the_statistics(home: Home) -> None:
    """Of uWSGI's Fastrouter, key by key."""
    counted(home, "subscription", "s.example", "127.0.0.1:9", 5, 2)
    counted(home, "to", "*", "10.0.0.5:3031", 2)
    document = statistics.document(home, told(), US)
    json.loads(json.dumps(document))
    assert {key: value for key, value in document.items() if key != "subscriptions"} == {
        **US,
        "active_sessions": 0,
        "fastrouter": ["127.0.0.1:7000"],
        "static_nodes": [{"name": "10.0.0.5:3031", "hits": 2, "grace": 0}],
        "cheap": 0,
    }
    [subscription] = document["subscriptions"]
    [node] = subscription.pop("nodes")
    assert subscription == {"key": "s.example", "hash": djb33x("s.example"), "hits": 5, "sni_enabled": 0, "algo": "lrc"}
    assert node.pop("last_check") == pytest.approx(time.time() - 10, abs=5)
    assert node == {
        **{"name": "127.0.0.1:9", "modifier1": 5, "modifier2": 7, "pid": 0, "uid": 33, "gid": 0, "requests": 5},
        **{"last_requests": 0, "tx": 0, "rx": 0, "cores": 4, "load": 2, "weight": 3, "wrr": 0, "ref": 0, "failcnt": 2},
        **{"death_mark": 1, "vassal": "", "backup": 1, "proto": 117},
    }


def test_the_statistics_without_nodes(home: Home) -> None:
    document = statistics.document(home, {"sockets": [], "keys": []}, US)
    assert (document["cheap"], document["subscriptions"], document["static_nodes"]) == (1, [], [])


def test_who_is_not_known_has_no_user(home: Home) -> None:
    [subscription] = statistics.document(home, told(uid=-1, protocol="http"), US)["subscriptions"]
    assert (subscription["nodes"][0]["uid"], subscription["nodes"][0]["proto"]) == (0, 104)


@pytest.mark.parametrize(("key", "found"), [("", 5381), ("a", 177604 % 0xFFFF), ("example.com", None)])
def test_the_hash_of_a_key(key: str, found: int | None) -> None:
    """uWSGI's djb33x, of which its slots are made."""
    number = 5381
    for char in key:
        number = (number * 33 ^ ord(char)) & 0xFFFFFFFF
    assert djb33x(key) == number % 0xFFFF == (number % 0xFFFF if found is None else found)
