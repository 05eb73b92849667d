"""Nodes that share a key's requests."""

from __future__ import annotations

import pytest

from multisite.router import groups
from multisite.router.groups import Groups


def test_the_same_text_is_the_same_group() -> None:
    known = Groups()
    found = known.of("127.0.0.1:1|/run/x.sock,5", "map")
    assert found
    assert repr(found) == "<Group of 127.0.0.1:1, /run/x.sock>"
    assert known.of("127.0.0.1:1|/run/x.sock,5", "map") is found


def test_what_names_no_node_is_told_once() -> None:
    told: list[str] = []
    known = Groups(told.append)
    assert [known.of("nowhere", "redis"), known.of("nowhere", "redis")] == [None, None]
    assert len(told) == 1
    assert told[0].startswith("redis: 'nowhere' is not a node: ")


def test_they_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MOST_GROUPS", 10)
    known = Groups()
    for port in range(1, 100):
        assert known.of(f"127.0.0.1:{port}", "code")
    assert len(known._known) <= 10
