"""Threads that do what may take time, as long as the system has some, and what becomes of it at a fork."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from multisite.proxy import errands
from multisite.proxy.errands import Helpers
from tests.backends import PATIENCE


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """What errands under way wait for."""
    event = threading.Event()
    yield event
    event.set()


def no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_errands_run_beside_each_other_up_to_a_number_of_threads(go: threading.Event) -> None:
    made, running = Helpers(), threading.Semaphore(0)

    def errand() -> None:
        running.release()
        go.wait(PATIENCE)

    assert all(made.take_errand(errand) for _ in range(2 * errands.MOST_THREADS))
    for _ in range(errands.MOST_THREADS):
        assert running.acquire(timeout=PATIENCE)
    assert not running.acquire(timeout=0.1)
    go.set()
    for _ in range(errands.MOST_THREADS):
        assert running.acquire(timeout=PATIENCE)


def test_too_many_are_refused(go: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "MOST_ERRANDS", 2)
    made = Helpers()
    assert [made.take_errand(lambda: go.wait(PATIENCE) and None) for _ in range(3)] == [True, True, False]  # type: ignore[func-returns-value]


def test_without_a_thread_an_errand_is_refused_unless_another_will_do_it(
    go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for an errand that nobody does."""
    made, ran = Helpers(), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        assert not made.take_errand(ran.set)
    assert made.take_errand(lambda: go.wait(PATIENCE) and None)  # type: ignore[func-returns-value]
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        assert made.take_errand(ran.set)
    assert not ran.is_set()
    go.set()
    assert ran.wait(PATIENCE)


def test_an_errand_that_raises_costs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "MOST_ERRANDS", 1)
    made, ran = Helpers(), threading.Event()
    made.take_errand(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    deadline = time.monotonic() + PATIENCE
    while not made.take_errand(ran.set):
        assert time.monotonic() < deadline
    assert ran.wait(PATIENCE)


def test_a_rest_waits_for_what_is_under_way_and_begins_nothing(go: threading.Event) -> None:
    made, begun, rested, ran = Helpers(), threading.Event(), threading.Event(), threading.Event()
    made.take_errand(lambda: begun.set() or (go.wait(PATIENCE) and None))  # type: ignore[func-returns-value]
    assert begun.wait(PATIENCE)

    def rest() -> None:
        made.rest(time.monotonic() + PATIENCE)
        rested.set()

    threading.Thread(target=rest, daemon=True).start()
    assert not rested.wait(0.1)
    made.take_errand(ran.set)
    go.set()
    assert rested.wait(PATIENCE)
    assert not ran.wait(0.1)
    made.heirs()
    assert ran.wait(PATIENCE)


def test_a_rest_has_an_end(go: threading.Event) -> None:
    made, begun = Helpers(), threading.Event()
    made.take_errand(lambda: begun.set() or (go.wait(PATIENCE) and None))  # type: ignore[func-returns-value]
    assert begun.wait(PATIENCE)
    made.rest(time.monotonic() + 0.05)


def test_heirs_count_their_own_threads_only(go: threading.Event) -> None:
    """A child has none of its parent's threads: what is taken there runs in a new one."""
    made, begun, ran = Helpers(), threading.Semaphore(0), threading.Event()
    for _ in range(errands.MOST_THREADS):
        made.take_errand(lambda: begun.release() or (go.wait(PATIENCE) and None))  # type: ignore[func-returns-value]
    assert all(begun.acquire(timeout=PATIENCE) for _ in range(errands.MOST_THREADS))
    made.rest(time.monotonic())
    heirs = made.heirs()
    assert heirs.take_errand(ran.set)
    assert ran.wait(PATIENCE)
