"""The statistics of nodes, for each connection."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multisite.supervisor import nodestats
from multisite.supervisor.loop import Loop
from multisite.supervisor.nodestats import MOST_READERS, READ_WITHIN, NodeStats
from tests.descriptors import all_open

from .harness import wait_until


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def document() -> dict[str, Any]:
    return {"subscriptions": ["x" * 100] * 100}


@pytest.fixture
def stats(loop: Loop, document: dict[str, Any]) -> Iterator[NodeStats]:
    made = NodeStats(loop, lambda: document)
    yield made
    made.close()


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    sock.connect(str(path))
    return sock


def everything(loop: Loop, sock: socket.socket) -> bytes:
    """What comes until the other end closes, while the loop turns."""
    data = bytearray()

    def ended() -> bool:
        loop.turn(0.01)
        try:
            piece = sock.recv(65536)
        except BlockingIOError:
            return False
        data.extend(piece)
        return not piece

    wait_until(ended)
    return bytes(data)


def test_one_document_and_the_end(loop: Loop, stats: NodeStats, document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "stats.sock"
    stats.tick(loop.now(), str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for _ in range(3):
        with connected(path) as reader:
            assert json.loads(everything(loop, reader)) == document


def test_a_large_one_is_sent_as_it_is_read(
    loop: Loop, stats: NodeStats, document: dict[str, Any], tmp_path: Path
) -> None:
    document["more"] = "y" * 5_000_000
    stats.tick(loop.now(), str(tmp_path / "s"))
    with connected(tmp_path / "s") as reader:
        assert json.loads(everything(loop, reader)) == document


def test_who_does_not_read_is_left(loop: Loop, stats: NodeStats, document: dict[str, Any], tmp_path: Path) -> None:
    """There are never more than a few of them, and others are served all the same."""
    document["more"] = "y" * 5_000_000
    path = tmp_path / "s"
    stats.tick(loop.now(), str(path))
    before = all_open()
    silent = []
    for _ in range(MOST_READERS + 5):
        silent.append(connected(path))
        loop.turn(1)
    assert len(stats._readers) == MOST_READERS
    stats.tick(loop.now() + READ_WITHIN + 1, str(path))
    assert not stats._readers
    with connected(path) as reader:
        assert json.loads(everything(loop, reader)) == document
    for one in silent:
        one.close()
    assert all_open() <= before


def test_it_listens_where_it_is_told(loop: Loop, stats: NodeStats, tmp_path: Path) -> None:
    """And nowhere if the configuration is empty."""
    for name in ("a", "b"):
        stats.tick(loop.now(), str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    stats.tick(loop.now(), "")
    assert not list(tmp_path.iterdir())
    stats.tick(loop.now(), "127.0.0.1:1")
    stats.tick(loop.now(), f"@stats-{os.getpid()}")
    with socket.socket(socket.AF_UNIX) as reader:
        reader.connect(f"\0stats-{os.getpid()}")
        reader.setblocking(False)
        assert json.loads(everything(loop, reader))


def test_an_address_that_cannot_be_had_is_told_once(
    loop: Loop, stats: NodeStats, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is had as soon as it is free."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        for _ in range(3):
            stats.tick(loop.now(), str(path))
    assert len(caplog.records) == 1
    assert f"[router] stats = {path}: " in caplog.text
    stats.tick(loop.now(), str(path))
    with connected(path) as reader:
        assert json.loads(everything(loop, reader))


def test_one_that_cannot_be_made_costs_its_reader(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multisite.supervisor import loop as loops

    monkeypatch.setattr(loops, "SET_ASIDE", 0.01)
    fails = [True]

    def document() -> dict[str, Any]:
        if fails:
            raise ValueError("no")
        return {}

    stats = NodeStats(loop, document)
    stats.tick(loop.now(), str(tmp_path / "s"))
    with connected(tmp_path / "s") as reader:
        assert everything(loop, reader) == b""
    fails.clear()
    with connected(tmp_path / "s") as reader:
        assert everything(loop, reader) == b"{}"
    stats.close()


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", "127.0.0.1:x"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="neither HOST:PORT nor the path"):
        nodestats._bound(address)
