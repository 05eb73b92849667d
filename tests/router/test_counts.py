"""What workers count of each node."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from multisite.config import nodes
from multisite.config.model import Home
from multisite.config.read import read_home
from multisite.router import counts
from multisite.router.counts import EVERY_KEY, OTHERS, NodeCounts


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "moya.conf").write_text("[service]\nruntime_dir = run\nstate_dir = state\n")
    return read_home(str(tmp_path))


def test_requests_and_failures(home: Home) -> None:
    counted = NodeCounts(home, "map", "a.example", nodes.parse("127.0.0.1:1"))
    counted.began()
    counted.began()
    figures = counts.read(home)[counts.place_of("map", "a.example", "127.0.0.1:1")]
    assert (figures.requests, figures.failures, figures.is_dead) == (2, 0, False)
    assert figures.last_use == pytest.approx(time.monotonic(), abs=60)
    counted.failed()
    figures = counts.read(home)["map", "a.example", "127.0.0.1:1"]
    assert (figures.requests, figures.failures, figures.is_dead) == (2, 1, True)
    counted.revived()
    counted.began()
    figures = counts.read(home)["map", "a.example", "127.0.0.1:1"]
    assert (figures.requests, figures.failures, figures.is_dead) == (3, 1, False)


def test_each_place_counts_for_itself(home: Home) -> None:
    for mapper, key, node in (("map", "a", "h:1"), ("map", "b", "h:1"), ("code", "a", "h:1"), ("map", "a", "h:2")):
        NodeCounts(home, mapper, key, nodes.parse(node)).began()
    NodeCounts(home, "map", "a", nodes.parse("h:1")).began()
    assert {place: each.requests for place, each in counts.read(home).items()} == {
        ("map", "a", "h:1"): 2,
        ("map", "b", "h:1"): 1,
        ("code", "a", "h:1"): 1,
        ("map", "a", "h:2"): 1,
    }


@pytest.mark.parametrize(
    ("key", "node"),
    [
        ("a b%20c", "/run/with space.sock"),
        ("a.example:8000", "[::1]:3031"),
        ("ünïcode", "@abstract"),
        ("x" * 255, "/run/" + "y" * 100),
        (EVERY_KEY, "http://h:80"),
    ],
)
def test_any_name_is_found_again(home: Home, key: str, node: str) -> None:
    """Also one that is longer than a record's name may be."""
    NodeCounts(home, "subscription", key, nodes.parse(node)).began()
    [(place, figures)] = counts.read(home).items()
    assert place == counts.place_of("subscription", key, node)
    assert figures.requests == 1


def test_long_names_are_not_mixed_up(home: Home) -> None:
    for end in "ab":
        NodeCounts(home, "map", "x" * 254 + end, nodes.parse("h:1")).began()
    assert [each.requests for each in counts.read(home).values()] == [1, 1]


def test_hosts_that_somebody_makes_up_take_no_room(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapper that knows every host has no end of them; what they ask is counted all the same."""
    monkeypatch.setattr(counts, "MOST_APART", 20)
    NodeCounts(home, "map", "a.example", nodes.parse("h:1")).began()
    for number in range(500):
        NodeCounts(home, "code", f"{number}.example", nodes.parse("h:1")).began()
    NodeCounts(home, "map", "a.example", nodes.parse("h:1")).began()
    found = counts.read(home)
    assert len(found) <= 21
    assert found["map", "a.example", "h:1"].requests == 2
    assert found["code", EVERY_KEY, OTHERS].requests == 500 - 19
    assert sum(each.requests for each in found.values()) == 502
