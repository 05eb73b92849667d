"""Requests in flight are shown with method, path and age; readers believe little."""

from __future__ import annotations

import os
import threading

from hypothesis import given
from hypothesis import strategies as st

from multisite.runner import board
from multisite.runner.board import FLIGHTS_SIZE, PLACES, WIDTH, Flights, flights_of


def test_a_request_is_shown_as_long_as_it_is_in_flight() -> None:
    """Without its query, cut to its place, and no more of them than there is room for."""
    area = memoryview(bytearray(FLIGHTS_SIZE))
    shown = Flights(area)
    place = shown.enter(1_000_000_000, "GET", "/a/b?token=secret")
    assert flights_of(bytes(area), 3_500_000_000) == (("GET", "/a/b", 2.5),)
    more = [shown.enter(5, "POST", "/" + "x" * 500) for _ in range(PLACES)]
    assert more.count(-1) == 1
    assert all(len(path) < WIDTH for _, path, _ in flights_of(bytes(area), 10))
    for each in (place, *more):
        shown.leave(each)
    assert flights_of(bytes(area), 10) == ()
    assert shown.enter(5, "GET", "/") >= 0


def test_threads_get_places_of_their_own() -> None:
    area = memoryview(bytearray(FLIGHTS_SIZE))
    shown = Flights(area)

    def work() -> None:
        for _ in range(2000):
            shown.leave(shown.enter(1, "GET", "/"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert flights_of(bytes(area), 10) == ()
    assert sorted(shown.enter(1, "GET", "/") for _ in range(PLACES)) == list(range(PLACES))


@given(st.binary(min_size=FLIGHTS_SIZE, max_size=FLIGHTS_SIZE))
def test_what_a_hostile_site_writes_is_bounded(data: bytes) -> None:
    found = flights_of(data, 10**15)
    assert len(found) <= PLACES
    for method, path, age in found:
        assert len(method) + len(path) <= WIDTH and 0 <= age <= 10**6


def test_a_process_that_was_killed_leaves_nothing_in_flight() -> None:
    file = os.memfd_create("board")
    os.ftruncate(file, board.SIZE)
    board.Board(file, 0, pid=1).enter(5, "GET", "/hangs")
    record = board.read(file, 0)
    assert record and [flight[:2] for flight in record.flights] == [("GET", "/hangs")]
    board.Board(file, 0, pid=2)
    record = board.read(file, 0)
    assert record and record.flights == ()
    os.close(file)
