"""The pool of announced nodes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.router import announcement, pool
from multisite.router.announcement import Announcement
from multisite.router.pool import SIGNED_WITHIN, TOLERANCE, Pool

A = Announcement("example.com", "127.0.0.1:1")
B = Announcement("example.com", "/run/b.sock", modifier1=5, weight=3)


def members(found: Pool) -> dict[str, list[str]]:
    return {key: [str(member.node) for member in each] for key, _, each in found}


def test_nodes_join_and_leave() -> None:
    found = Pool()
    assert [found.take(each, 0) for each in (A, B, A)] == ["joined", "joined", "refreshed"]
    assert members(found) == {"example.com": ["127.0.0.1:1", "/run/b.sock"]}
    assert found.take(replace(A, leaves=True), 1) == "left"
    assert found.take(replace(A, leaves=True), 1) == "unknown"
    assert found.take(replace(B, leaves=True), 1) == "left"
    assert not members(found)
    assert len(found) == 0
    assert found.counted == {"joined": 2, "refreshed": 1, "left": 2, "unknown": 1}


def test_what_workers_need_not_know_is_nothing_new() -> None:
    found = Pool()
    found.take(A, 0)
    generation = found.generation
    found.take(replace(A, load=7), 1)
    assert found.generation == generation
    found.take(replace(A, weight=7), 2)
    assert found.generation != generation


def test_who_is_silent_is_gone() -> None:
    found = Pool()
    found.take(A, 0)
    found.take(B, 10)
    assert found.expire(TOLERANCE) == []
    assert found.expire(TOLERANCE + 1) == [("example.com", "127.0.0.1:1")]
    assert members(found) == {"example.com": ["/run/b.sock"]}


@pytest.mark.parametrize("key", ["a/b", "../x", "", "a b", "a\nb", "a,b", "a|b", "\x00"])
def test_a_key_that_could_lead_elsewhere_is_refused(key: str) -> None:
    assert Pool().take(replace(A, key=key), 0) == "bad"


@pytest.mark.parametrize("address", ["nowhere", "host:0", "host:99999", "ftp://x:1", "a:1,x"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    assert Pool().take(replace(A, address=address), 0) == "bad"


def test_keys_are_kept_as_requests_look_for_them() -> None:
    found = Pool()
    found.take(replace(A, key="EXAMPLE.com.:8000"), 0)
    assert list(members(found)) == ["example.com:8000"]


def test_nodes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MOST_KEYS", 2)
    monkeypatch.setattr(pool, "MOST_NODES", 2)
    found = Pool()
    told = [found.take(replace(A, address=f"h:{port}"), 0) for port in (1, 2, 3)]
    assert told == ["joined", "joined", "full"]
    assert [found.take(replace(A, key=key), 0) for key in ("b.example", "c.example")] == ["joined", "full"]
    assert found.take(replace(A, address="h:1"), 1) == "refreshed"


def test_a_signed_packet_is_taken_once() -> None:
    """A replayed leave as little as a replayed join, and neither after the node has left."""
    found = Pool()
    join, leave, again = replace(A, unix=1000), replace(A, unix=1001, leaves=True), replace(A, unix=1010)
    told = [found.take(each, 0, clock=1000.0) for each in (join, join, leave, join, leave, again, leave, join)]
    assert told == ["joined", "replayed", "left", "replayed", "replayed", "joined", "replayed", "replayed"]
    assert members(found) == {"example.com": ["127.0.0.1:1"]}


def test_a_signed_packet_of_another_day_is_refused() -> None:
    found = Pool()
    assert found.take(replace(A, unix=1000), 0, clock=1001.0 + SIGNED_WITHIN) == "replayed"
    assert found.take(replace(A, unix=2 * SIGNED_WITHIN), 0, clock=1.0) == "replayed"


def test_a_successor_goes_on() -> None:
    found = Pool()
    found.take(replace(A, unix=1000, algorithm="lrc"), 0, clock=1000.0)
    found.take(B, 0)
    successor = Pool()
    successor.take_over(json.loads(json.dumps(found.pack())), 100)
    assert members(successor) == members(found)
    assert successor.document() == found.document()
    assert successor.take(replace(A, unix=1000), 101, clock=1000.0) == "replayed"
    assert successor.expire(100 + TOLERANCE) == []
    assert len(successor.expire(101 + TOLERANCE)) == 2


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_datagram_leaves_the_pool_whole(datagrams: list[bytes]) -> None:
    found = Pool()
    for body in datagrams:
        read = announcement.read(b"\xe0" + len(body).to_bytes(2, "little") + b"\0" + body)
        if read:
            found.take(read, 0)
    assert len(found) == sum(len(each) for _, _, each in found)


C = replace(A, address="10.0.0.9:1")


def test_other_machines_learn_of_nodes_that_they_can_reach() -> None:
    found = Pool()
    for each in (A, B, C, replace(A, key="b.example")):
        found.take(each, 0)
    assert list(found.shared()) == ["example.com"]
    assert found.shared()["example.com"][1][0][0] == "10.0.0.9:1"
    assert set(found.shared(is_local=True)) == {"example.com", "b.example"}
    assert len(found.shared(is_local=True)["example.com"][1]) == 2


def test_nodes_of_other_machines_are_for_the_workers_and_not_for_others_again() -> None:
    found, other = Pool(), Pool()
    found.take(A, 0)
    other.take(C, 0)
    document = json.loads(json.dumps(other.shared()))
    generation = found.generation
    assert found.adopt([document], 1)
    assert found.generation > generation
    assert members(found) == {"example.com": ["10.0.0.9:1", "127.0.0.1:1"]}
    assert not found.adopt([document], 2)
    assert found.shared() == {}
    successor = Pool()
    successor.take_over(json.loads(json.dumps(found.pack())), 3)
    assert members(successor) == {"example.com": ["127.0.0.1:1"]}
    assert found.adopt([], 4)
    assert members(found) == {"example.com": ["127.0.0.1:1"]}


def test_what_other_machines_say_may_be_anything() -> None:
    found = Pool()
    wrong: list[Any] = [{"a": 1}, {"a": ["", [["x"]]]}, [], "x", {"a/b": ["", [["h:1", 0, 0, 1, 0]]]}, {"a": ["", []]}]
    found.adopt(wrong, 0)
    assert [node for nodes in members(found).values() for node in nodes] == []
