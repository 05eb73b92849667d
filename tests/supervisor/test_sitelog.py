"""The report of a start."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multisite.supervisor.process.sitelog import LONGEST_LINE, MOST_LINES, Journey, LastLines


def test_steps_have_their_durations_and_a_failure_its_step() -> None:
    journey = Journey(0.0)
    journey.enter("prepare", 0.0)
    journey.enter("start up", 0.25)
    journey.tail.feed(b"no module named flask\n")
    journey.fail("exited with code 3", "abcd", 0.5)
    assert journey.steps == [("prepare", 0.25), ("start up", 0.25)]
    assert str(journey) == ("start up: exited with code 3 (prepare 250 ms, start up 250 ms)\n    no module named flask")
    assert journey.duration == 0.5
    assert journey.as_dict()["incident"] == "abcd"


def test_lines_are_put_together_over_pieces() -> None:
    tail = LastLines()
    assert tail.feed(b"one\ntw") == ["one"]
    assert tail.feed(b"o\r\nthree") == ["two"]
    assert tail.flush() == ["three"]
    assert tail.flush() == []


@given(st.lists(st.binary(max_size=3000)))
def test_whatever_is_printed_little_is_kept(pieces: list[bytes]) -> None:
    tail = LastLines()
    for piece in pieces:
        tail.feed(piece)
    assert len(tail.lines) <= MOST_LINES
    assert all(len(line) <= LONGEST_LINE for line in tail.lines)
    assert len(tail._open) <= LONGEST_LINE
