"""Deadlines of many, which may be moved and called off."""

from __future__ import annotations

import gc
import math
import random
import weakref

from multisite.proxy import timers
from multisite.proxy.timers import Timer, Timers


class _Owner:
    def __init__(self, deadline: float = math.inf) -> None:
        self.deadline = deadline
        self.timer: Timer | None = None


def all_due(made: Timers[_Owner], now: float) -> list[_Owner]:
    found = []
    while owner := made.due(now):
        found.append(owner)
    return found


def test_they_are_due_in_order_and_once() -> None:
    made: Timers[_Owner] = Timers()
    owners = [_Owner(at) for at in (3.0, 1.0, 2.0, math.inf)]
    for owner in owners:
        made.schedule(owner)
    assert made.next == 1.0
    assert all_due(made, 0.9) == []
    assert all_due(made, 2.0) == [owners[1], owners[2]]
    assert all_due(made, 2.0) == []
    assert all_due(made, 9.0) == [owners[0]]
    assert (made.next, len(made._heap) - made._called_off) == (math.inf, 0)


def test_a_later_deadline_is_noticed_by_itself_and_an_earlier_one_when_told() -> None:
    made: Timers[_Owner] = Timers()
    later, earlier = _Owner(1.0), _Owner(9.0)
    for owner in (later, earlier):
        made.schedule(owner)
    later.deadline, earlier.deadline = 5.0, 0.5
    made.schedule(later)
    made.schedule(earlier)
    assert all_due(made, 1.0) == [earlier]
    assert all_due(made, 4.9) == []
    assert all_due(made, 5.0) == [later]
    assert all_due(made, 9.0) == []


def test_what_is_called_off_is_free_at_once_and_never_due() -> None:
    made: Timers[_Owner] = Timers()
    ended = [_Owner(1000.0 + number) for number in range(10)]
    stays = _Owner(2000.0)
    for owner in (*ended, stays):
        made.schedule(owner)
    watched = [weakref.ref(owner) for owner in ended]
    for owner in ended:
        made.call_off(owner)
        made.call_off(owner)  # harmless
    del owner, ended
    gc.collect()
    assert not any(ref() for ref in watched)
    assert len(made._heap) - made._called_off == 1
    assert all_due(made, 5000.0) == [stays]


def test_the_heap_does_not_grow_with_what_has_ended() -> None:
    """A million short downloads leave no more than there are long ones."""
    made: Timers[_Owner] = Timers()
    chance = random.Random(7)
    stays = [_Owner(chance.uniform(0, 1000)) for _ in range(100)]
    for owner in stays:
        made.schedule(owner)
    for _ in range(20_000):
        passing = _Owner(chance.uniform(0, 1000))
        made.schedule(passing)
        made.call_off(passing)
        assert len(made._heap) <= 2 * (100 + timers.FEW)
    assert all_due(made, 1000.0) == sorted(stays, key=lambda owner: owner.deadline)
