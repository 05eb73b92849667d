"""What a supervisor hands to the program that takes its place: JSON in a memory file, and open descriptors.

Each noun packs what it knows as JSON takes it; a descriptor is packed as its number, once `Keeper` has had it
survive the execution. Times are of the monotonic clock, which goes on. What has anything to hand over says of each of
its attributes what becomes of it (`Handed`).
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, ClassVar

FORMAT = 3  # grows when an older program cannot take a state over
KNOWN = (2, FORMAT)  # that this program can take over

State = dict[str, Any]


class Handed:
    """Something whose attributes the next program goes on with; each stands in one of three lists.

    Attributes:
        HANDED: what JSON takes, sets and tuples included.
        PARTS: what is packed in a way of its own, by the class or by whoever has it.
        ANEW: what the next program makes itself.
    """

    HANDED: ClassVar[tuple[str, ...]] = ()
    PARTS: ClassVar[tuple[str, ...]] = ()
    ANEW: ClassVar[tuple[str, ...]] = ()

    def hand(self) -> State:
        """Return what `go_on` takes."""
        values = {name: getattr(self, name) for name in self.HANDED}
        return {name: list(value) if isinstance(value, set) else value for name, value in values.items()}

    def go_on(self, state: State) -> None:
        """Go on with what another program of this one's class has handed over; what it did not know stays as it is."""
        for name in self.HANDED:
            if name in state:
                kind = type(getattr(self, name))
                setattr(self, name, kind(state[name]) if kind in (set, tuple) else state[name])


class CannotTakeOver(Exception):
    """The state is not one that this program understands."""


class Keeper:
    """The descriptors that survive."""

    def __init__(self) -> None:
        self.kept: list[int] = []

    def __call__(self, descriptor: int) -> int:
        """Keep a descriptor; returns its number. One that is not open (-1) stays so."""
        if descriptor >= 0:
            os.set_inheritable(descriptor, True)
            self.kept.append(descriptor)
        return descriptor

    def release(self) -> None:
        """Keep none after all."""
        for descriptor in self.kept:
            with contextlib.suppress(OSError):
                os.set_inheritable(descriptor, False)
        self.kept.clear()


def seal(state: State, keep: Keeper) -> int:
    """Write `state` into a memory file; returns its descriptor.

    Raises:
        OSError: there is no memory or no descriptor left.
    """
    sealed = os.memfd_create("handover", os.MFD_CLOEXEC)
    try:
        with open(os.dup(sealed), "w", encoding="utf-8") as file:
            json.dump({**state, "format": FORMAT, "kept": keep.kept}, file)
    except BaseException:
        os.close(sealed)
        raise
    return keep(sealed)


def unseal(sealed: int) -> State:
    """Read a state and close its file.

    Raises:
        CannotTakeOver: it is of another format.
    """
    os.lseek(sealed, 0, os.SEEK_SET)
    with open(sealed, encoding="utf-8") as file:
        state = json.load(file)
    if not isinstance(state, dict) or state.get("format") not in KNOWN:
        raise CannotTakeOver("the state was written in another format")
    return state


def taken(descriptor: int) -> int:
    """Return a descriptor that was handed over; from here on it goes no further."""
    if descriptor >= 0:
        os.set_inheritable(descriptor, False)
    return descriptor
