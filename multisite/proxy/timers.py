"""Deadlines: a heap of those that may be moved and cancelled. Pure.

A cancelled timer stays in the heap until it would have been due, or until there are many of them, but it holds nothing:
an object that has ended long before its deadline is free at once.
"""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Any, Generic, Protocol, TypeVar

FEW = 64  # timers that are called off and not worth clearing away


class Timed(Protocol):
    """Something with a deadline.

    Attributes:
        deadline: in seconds, `math.inf` for none.
        timer: our own note of it, None at first.
    """

    deadline: float
    timer: Timer | None


Owner = TypeVar("Owner", bound=Timed)
Timer = list[Any]  # when it is due, a number, and whose it is: None once it is called off; lists compare quickest


class Timers(Generic[Owner]):
    """The deadlines of many."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._called_off = 0  # of these
        self._number = itertools.count()

    def schedule(self, owner: Owner) -> None:
        """Take note of an earlier deadline; a later one is noticed by itself (`due`)."""
        timer = owner.timer
        if timer is not None and timer[0] <= owner.deadline:
            return
        self.call_off(owner)
        if owner.deadline < math.inf:
            owner.timer = [owner.deadline, next(self._number), owner]
            heapq.heappush(self._heap, owner.timer)

    def call_off(self, owner: Owner) -> None:
        """Forget the deadline of `owner`."""
        timer, owner.timer = owner.timer, None
        if timer is None:
            return
        timer[2] = None
        self._called_off += 1
        if self._called_off > max(FEW, len(self._heap) // 2):
            self._heap = [timer for timer in self._heap if timer[2] is not None]
            heapq.heapify(self._heap)
            self._called_off = 0

    @property
    def next(self) -> float:
        """When to look again, `math.inf` for never; it may be too early."""
        return self._heap[0][0] if self._heap else math.inf

    def due(self, now: float) -> Owner | None:
        """Return one whose time is over, and has none any more, or None; call it until then."""
        while self._heap and self._heap[0][0] <= now:
            owner: Owner | None = heapq.heappop(self._heap)[2]
            if owner is None:
                self._called_off -= 1
                continue
            owner.timer = None
            if owner.deadline <= now:
                return owner
            self.schedule(owner)
        return None
