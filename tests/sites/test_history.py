"""The history of a site: what is added is found again, at its time, in each ring, whatever happens to the writer."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multisite.sites import history
from multisite.sites.history import NOTHING, SIZE, TIERS, History, Sample

NOW = 1_800_000_000.0  # the beginning of an hour
SECONDS, MINUTES, HOURS = range(3)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "blog.ring")


def test_a_file_is_small_and_for_its_owner_alone(path: str) -> None:
    History(path).add(NOW, Sample(requests=1))
    assert os.stat(path).st_size == SIZE <= 16 * 1024
    assert os.stat(path).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("count", range(18))
def test_small_counts_are_exact(path: str, count: int) -> None:
    written = History(path)
    written.add(NOW, Sample(requests=count, errors=count, waiting=count))
    found = written.points(SECONDS, NOW)[-1]
    assert (found.requests, found.errors, found.waiting) == (count, count, count)


@given(figure=st.floats(0.001, 9_000), memory=st.floats(65536, 1e11))
@settings(max_examples=200, deadline=None)
def test_other_figures_are_within_4_per_cent(
    tmp_path_factory: pytest.TempPathFactory, figure: float, memory: float
) -> None:
    written = History(str(tmp_path_factory.mktemp("ring") / "x"))
    written.add(NOW, Sample(cpu=figure, memory=memory, latency=figure / 10))
    found = written.points(SECONDS, NOW)[-1]
    assert found.cpu == pytest.approx(figure, rel=0.04)
    assert found.memory == pytest.approx(memory, rel=0.04)
    assert found.latency == pytest.approx(figure / 10, rel=0.04)


def test_each_ring_sums_what_its_spans_hold(path: str) -> None:
    written = History(path)
    for second in range(120):
        written.add(NOW + second, Sample(requests=1, errors=second % 2, memory=1e6 * (second + 1), latency=0.01))
    end = NOW + 119
    assert [point.requests for point in written.points(SECONDS, end)[-121:]] == [0.0] + [1.0] * 120
    minutes = written.points(MINUTES, end)[-3:]
    assert [round(point.requests, -1) for point in minutes] == [0, 60, 60]
    assert [round(point.errors, -1) for point in minutes] == [0, 30, 30]
    assert minutes[-1].memory == pytest.approx(120e6, rel=0.04)
    assert written.points(HOURS, end)[-1].requests == pytest.approx(120, rel=0.04)


def test_seconds_without_a_sample_are_empty_and_old_ones_go(path: str) -> None:
    written = History(path)
    written.add(NOW, Sample(requests=5))
    written.add(NOW + 10, Sample(requests=7))
    assert [point.requests for point in written.points(SECONDS, NOW + 12)[-13:]] == [5, *[0] * 9, 7, 0, 0]
    written.add(NOW + 1000, Sample(requests=1))
    assert history.summed(written.points(SECONDS, NOW + 1000)) == Sample(requests=1)
    assert written.points(SECONDS, NOW + 10_000) == [NOTHING] * TIERS[SECONDS].points
    assert history.summed(written.points(HOURS, NOW + 31 * 86400)) == NOTHING


def test_a_clock_set_back_adds_to_the_newest_point(path: str) -> None:
    written = History(path)
    written.add(NOW, Sample(requests=1))
    written.add(NOW - 5000, Sample(requests=2))
    assert written.points(SECONDS, NOW)[-1].requests == 3


def test_it_survives_a_writer_that_is_killed(path: str) -> None:
    child = os.fork()
    if not child:
        History(path).add(NOW, Sample(requests=3))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert history.read(path, SECONDS, NOW)[-1].requests == 3
    again = History(path)
    again.add(NOW, Sample(requests=4))  # within the same second
    assert history.read(path, SECONDS, NOW)[-1].requests == 7


@pytest.mark.parametrize("junk", [b"", b"MSRING1\n", b"x" * SIZE, b"MSRING1\n" + b"\xff" * (SIZE - 8), b"x" * 100_000])
def test_a_file_that_cannot_be_believed_begins_again(path: str, junk: bytes) -> None:
    Path(path).write_bytes(junk)
    assert history.summed(history.read(path, SECONDS, NOW)) == NOTHING
    written = History(path)
    written.add(NOW, Sample(requests=2))
    assert history.summed(written.points(SECONDS, NOW)).requests == 2
    assert os.stat(path).st_size == SIZE


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "x.ring").symlink_to(tmp_path / "target")
    with pytest.raises(OSError):
        History(str(tmp_path / "x.ring"))
    assert history.read(str(tmp_path / "x.ring"), SECONDS, NOW) == [NOTHING] * TIERS[SECONDS].points
    assert (tmp_path / "target").read_bytes() == b"precious"
