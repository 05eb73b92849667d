"""The scoreboard: exact counts, and readers that believe little."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.runner import board


@pytest.fixture
def file() -> Iterator[int]:
    made = os.memfd_create("board")
    os.ftruncate(made, 4 * board.SIZE)
    yield made
    os.close(made)


def test_a_request_is_counted(file: int) -> None:
    """It is in flight from its beginning to its end, and leaves its time, its bytes and its failure."""
    writer = board.Board(file, 0, pid=7)
    began = writer.begin()
    during = board.read(file, 0)
    writer.end(began, failed=True, received=10, sent=20)
    after = board.read(file, 0)
    assert during and (during.pid, during.in_flight, during.requests, during.errors) == (7, 1, 1, 0)
    assert after and (after.in_flight, after.requests, after.errors) == (0, 1, 1)
    assert (after.received, after.sent, sum(after.latencies)) == (10, 20, 1)
    assert after.last_use >= during.last_use >= after.started > 0
    assert after.busy > 0


def test_each_process_has_its_slot(file: int) -> None:
    """Writers of one file do not disturb each other, whichever comes first."""
    second, first = board.Board(file, 1, pid=2), board.Board(file, 0, pid=1)
    second.begin()
    assert [getattr(board.read(file, slot), "in_flight", None) for slot in (0, 1, 2)] == [0, 1, None]
    assert first is not second


def test_the_next_process_counts_on(file: int) -> None:
    """A process that was killed in a request leaves its counts, and nothing in flight."""
    killed = board.Board(file, 0, pid=1)
    killed.end(killed.begin(), failed=False)
    killed.begin()
    board.Board(file, 0, pid=2).begin()
    record = board.read(file, 0)
    assert record and (record.pid, record.starts, record.in_flight, record.requests) == (2, 2, 1, 3)


def test_threads_are_counted_exactly(file: int) -> None:
    """No count gets lost between threads."""
    writer = board.Board(file, 0, pid=1)

    def work() -> None:
        for _ in range(2000):
            writer.end(writer.begin(), failed=True, received=1, sent=2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = board.read(file, 0)
    assert record and (record.requests, record.errors, record.in_flight) == (8000, 8000, 0)
    assert (record.received, record.sent) == (8000, 16000)


def test_nobody_is_counted_for_without_a_file() -> None:
    """A backend without a scoreboard runs all the same."""
    writer = board.Board(-1, 3, pid=1)
    writer.end(writer.begin(), failed=False)


@pytest.mark.parametrize("slot", [4, 5])
def test_a_board_that_cannot_be_written_costs_the_counts_only(capfd: pytest.CaptureFixture[str], slot: int) -> None:
    """The site is served, and its log says why there are no figures; nothing grows for it."""
    file = os.memfd_create("board")
    os.ftruncate(file, 4 * board.SIZE)
    kept = os.dup(file)
    board.opened(file, slot, 1).begin()
    assert "scoreboard" in capfd.readouterr().err
    assert os.fstat(kept).st_size == 4 * board.SIZE
    os.close(kept)
    with pytest.raises(OSError):
        os.fstat(file)


@given(st.binary(min_size=board.SIZE - 8, max_size=board.SIZE - 8))
def test_what_a_hostile_site_writes_is_bounded(cells: bytes) -> None:
    """Whatever is in the file, no time lies in the future and no number is absurd."""
    record = board.record_of(board.MAGIC.to_bytes(8, "little") + cells, now=10**15)
    assert record is not None
    assert 0 <= record.last_use <= 10**6 and 0 <= record.started <= 10**6
    assert 0 <= record.in_flight <= 2**16 and 0 <= record.pid <= 2**22 and 0 <= record.requests <= 2**53
    assert len(record.latencies) == len(board.LATENCIES) + 1
