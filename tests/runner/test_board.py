"""The scoreboard: exact counts, and readers that believe little."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.runner import board


def read(path: Path, slot: int = 0) -> board.Record | None:
    with path.open("rb") as file:
        return board.read(file.fileno(), slot)


def test_a_request_is_counted(tmp_path: Path) -> None:
    """It is in flight from its beginning to its end, and leaves its time, its bytes and its failure."""
    writer = board.Board(str(tmp_path / "b"), 0, pid=7)
    began = writer.begin()
    during = read(tmp_path / "b")
    writer.end(began, failed=True, received=10, sent=20)
    after = read(tmp_path / "b")
    assert during and (during.pid, during.in_flight, during.requests, during.errors) == (7, 1, 1, 0)
    assert after and (after.in_flight, after.requests, after.errors) == (0, 1, 1)
    assert (after.received, after.sent, sum(after.latencies)) == (10, 20, 1)
    assert after.last_use >= during.last_use >= after.started > 0
    assert after.busy > 0


def test_each_process_has_its_slot(tmp_path: Path) -> None:
    """Writers of one file do not disturb each other, whichever comes first."""
    second, first = board.Board(str(tmp_path / "b"), 1, pid=2), board.Board(str(tmp_path / "b"), 0, pid=1)
    second.begin()
    assert [getattr(read(tmp_path / "b", slot), "in_flight", None) for slot in (0, 1, 2)] == [0, 1, None]
    assert first is not second


def test_the_next_process_counts_on(tmp_path: Path) -> None:
    """A process that was killed in a request leaves its counts, and nothing in flight."""
    killed = board.Board(str(tmp_path / "b"), 0, pid=1)
    killed.end(killed.begin(), failed=False)
    killed.begin()
    board.Board(str(tmp_path / "b"), 0, pid=2).begin()
    record = read(tmp_path / "b")
    assert record and (record.pid, record.starts, record.in_flight, record.requests) == (2, 2, 1, 3)


def test_threads_are_counted_exactly(tmp_path: Path) -> None:
    """No count gets lost between threads."""
    writer = board.Board(str(tmp_path / "b"), 0, pid=1)

    def work() -> None:
        for _ in range(2000):
            writer.end(writer.begin(), failed=True, received=1, sent=2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = read(tmp_path / "b")
    assert record and (record.requests, record.errors, record.in_flight) == (8000, 8000, 0)
    assert (record.received, record.sent) == (8000, 16000)


def test_nobody_is_counted_for_without_a_file() -> None:
    """A backend without a scoreboard runs all the same."""
    writer = board.Board("", 3, pid=1)
    writer.end(writer.begin(), failed=False)


def test_a_board_that_cannot_be_written_costs_the_counts_only(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The site is served, and its log says why there are no figures."""
    board.opened(str(tmp_path / "missing" / "b"), 0, 1).begin()
    assert "scoreboard" in capfd.readouterr().err


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """Nobody makes a process write its counts into another file."""
    (tmp_path / "other").write_bytes(b"")
    (tmp_path / "b").symlink_to("other")
    with pytest.raises(OSError):
        board.Board(str(tmp_path / "b"), 0, 1)


def test_a_file_that_was_cut_short_says_nothing(tmp_path: Path) -> None:
    """The reader survives what would kill it with a mapping."""
    board.Board(str(tmp_path / "b"), 0, pid=1)
    os.truncate(tmp_path / "b", board.SIZE - 1)
    assert read(tmp_path / "b") is None


@given(st.binary(min_size=board.SIZE - 8, max_size=board.SIZE - 8))
def test_what_a_hostile_site_writes_is_bounded(cells: bytes) -> None:
    """Whatever is in the file, no time lies in the future and no number is absurd."""
    record = board.record_of(board.MAGIC.to_bytes(8, "little") + cells, now=10**15)
    assert record is not None
    assert 0 <= record.last_use <= 10**6 and 0 <= record.started <= 10**6
    assert 0 <= record.in_flight <= 2**16 and 0 <= record.pid <= 2**22 and 0 <= record.requests <= 2**53
    assert len(record.latencies) == len(board.LATENCIES) + 1
