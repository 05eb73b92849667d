"""The table of a site's life in a worker: complete, without traps, and the same where it is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from multisite.dispatch import states
from multisite.dispatch.states import LIVES_HERE, TABLE, SiteAction, SiteEvent, SiteState

DOCS = Path(__file__).parent.parent.parent / "docs" / "architecture.md"


def reachable(start: SiteState) -> set[SiteState]:
    """Return where events lead from `start`."""
    found, todo = {start}, [start]
    while todo:
        new = {target for target, _ in TABLE[todo.pop()].values()} - found
        found |= new
        todo += new
    return found


def test_the_docs_print_this_table() -> None:
    assert states.as_markdown() in DOCS.read_text()


@pytest.mark.parametrize("state", SiteState)
def test_every_state_can_be_reached_and_all_but_the_last_be_left_for_every_other(state: SiteState) -> None:
    assert state in reachable(SiteState.UNUSED)
    assert reachable(state) == ({state} if state is SiteState.CLOSED else set(SiteState))


@pytest.mark.parametrize("state", SiteState)
def test_a_site_can_be_closed_once_whatever_it_does(state: SiteState) -> None:
    assert (SiteEvent.CLOSE in TABLE[state]) is (state is not SiteState.CLOSED)


def test_every_event_and_every_action_is_used() -> None:
    cells = [(event, action) for row in TABLE.values() for event, (_, action) in row.items()]
    assert {event for event, _ in cells} == set(SiteEvent)
    assert {action for _, action in cells} == set(SiteAction)


def test_what_an_import_may_end_with_has_a_cell_wherever_one_is_begun() -> None:
    """The supervisor's decision may be refused; any other import fails, or shows that the site is unfit."""
    for state, row in TABLE.items():
        begun = {event for event, (target, action) in row.items() if action is SiteAction.IMPORT and target is state}
        assert begun == {event for event, (_, action) in row.items() if action is SiteAction.IMPORT}
        ends = {SiteEvent.IMPORTED} if begun else set()
        ends |= {SiteEvent.STAY_OUT} if SiteEvent.MOVE_IN in begun else set()
        ends |= {SiteEvent.UNFIT, SiteEvent.BROKEN} if begun - {SiteEvent.MOVE_IN} else set()
        ends |= {SiteEvent.NOT_RENEWED} if begun and state in LIVES_HERE else set()
        assert ends <= row.keys(), state


def test_an_application_is_here_exactly_where_it_was_put_and_not_taken_away() -> None:
    for state, row in TABLE.items():
        for event, (target, action) in row.items():
            if target in LIVES_HERE and state not in LIVES_HERE:
                assert (event, action) == (SiteEvent.IMPORTED, SiteAction.SERVE)
            if state in LIVES_HERE and target not in LIVES_HERE:
                assert action in (SiteAction.SHOW, SiteAction.RELAY, SiteAction.LEAVE, SiteAction.DROP)
