"""The table of a backend's life: complete, without traps, and the same everywhere it is printed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from multisite.supervisor import lifecycle
from multisite.supervisor.lifecycle import HAS_DEADLINE, OWNS_PROCESS, TABLE, Action, Event, ImpossibleEvent, State

DOCS = Path(__file__).parent.parent.parent / "docs" / "supervisor.md"


def reachable(start: State) -> set[State]:
    found, todo = {start}, [start]
    while todo:
        for target, _ in TABLE[todo.pop()].values():
            if target not in found:
                found.add(target)
                todo.append(target)
    return found


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached_and_left_again(state: State) -> None:
    assert state in reachable(State.STOPPED)
    assert State.STOPPED in reachable(state)


@pytest.mark.parametrize("state", State)
def test_stop_is_harmless_in_every_state_but_has_no_meaning_for_the_ended(state: State) -> None:
    """People and the planner may send it at any moment."""
    assert Event.STOP in TABLE[state]


def test_an_empty_cell_raises() -> None:
    with pytest.raises(ImpossibleEvent, match="ready in STOPPED"):
        lifecycle.step(State.STOPPED, Event.READY)


def test_a_process_is_made_and_ended_exactly_where_the_owning_states_begin_and_end() -> None:
    """The states that own a process are entered by a spawn alone and left by its exit alone."""
    for state, cells in TABLE.items():
        for event, (target, action) in cells.items():
            gains = state not in OWNS_PROCESS and target in OWNS_PROCESS
            loses = state in OWNS_PROCESS and target not in OWNS_PROCESS
            assert gains == (action is Action.SPAWN)
            assert loses == (event in (Event.EXITED, Event.FAILED))


def test_a_deadline_can_only_pass_where_there_is_one() -> None:
    assert {state for state in State if Event.DEADLINE in TABLE[state]} == HAS_DEADLINE


def feedable(state: State) -> list[Event]:
    """What may happen in `state` by the feeding rules, told independently of the table."""
    events = {Event.STOP}
    if state in OWNS_PROCESS:
        events.add(Event.EXITED)
    if state in HAS_DEADLINE:
        events.add(Event.DEADLINE)
    if state is State.STOPPED:
        events.add(Event.WANTED)
    if state is State.STARTING:
        events.add(Event.READY)
    if state in (State.STARTING, State.RUNNING):
        events.add(Event.FAILED)
    if state is State.DRAINING:
        events.add(Event.DRAINED)
    if state is State.BACKOFF:
        events |= {Event.GIVE_UP, Event.RESET}
    if state is State.FATAL:
        events.add(Event.RESET)
    return sorted(events, key=lambda event: event.value)


def test_a_random_walk_uses_every_cell_and_meets_no_empty_one() -> None:
    """What the loop may feed is exactly what the table can take."""
    chance = random.Random(3)
    used = set()
    for _ in range(60):
        state = State.STOPPED
        for _ in range(500):
            event = chance.choice(feedable(state))
            used.add((state, event))
            state, _ = lifecycle.step(state, event)
    assert used == {(state, event) for state, cells in TABLE.items() for event in cells}


def test_the_documentation_shows_the_table_that_runs() -> None:
    assert lifecycle.as_markdown() in DOCS.read_text()


def test_the_diagram_has_every_state() -> None:
    dot = lifecycle.as_dot()
    assert all(state.name in dot for state in State)
    assert 'STOPPED -> STARTING [label="wanted"]' in dot
