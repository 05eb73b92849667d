"""What a supervisor passes to the program that replaces it: JSON in a memory file, and open descriptors.

A class with state to pass on declares once how each of its attributes is passed on (`Handed`). Writing, reading, and
what to do about values that an older program does not know all follow from that. A descriptor is packed as its number
once `Keeper` has kept it open across the execution. Times are monotonic; that clock keeps running.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

FORMAT = 3  # increased when an older program cannot take over a state
KNOWN = (2, FORMAT)  # formats that this program can take over

State = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """How an attribute is passed on.

    Attributes:
        pack: converts the attribute to JSON's types, with the `Keeper` of descriptors.
        unpack: makes the attribute from that, and from its value in a new object.
        key: in the state.
    """

    pack: Callable[[Any, Keeper], Any]
    unpack: Callable[[Any, Any], Any]
    key: str = ""

    def at(self, key: str) -> Form:
        """Return the same form under another key: names change, what older programs wrote does not."""
        return replace(self, key=key)


class Handed:
    """An object whose attributes the next program keeps; each attribute stands in one of these.

    Attributes:
        KEPT: how it is passed on.
        BY_HAND: what the class packs in its own way.
        ANEW: what the next program makes, or receives, when it makes the object.
    """

    KEPT: ClassVar[Mapping[str, Form]] = {}
    BY_HAND: ClassVar[tuple[str, ...]] = ()
    ANEW: ClassVar[tuple[str, ...]] = ()

    def pack(self, keep: Keeper) -> Any:
        """Return what `take_over` accepts."""
        return {form.key: form.pack(getattr(self, name), keep) for name, form in self.KEPT.items()}

    def take_over(self, state: Any) -> None:
        """Continue where an object of another program stopped; attributes that it did not know stay as they are."""
        for name, form in self.KEPT.items():
            if form.key in state:
                setattr(self, name, form.unpack(state[form.key], getattr(self, name, None)))


def kept(*plain: str, **forms: Form) -> Mapping[str, Form]:
    """Return the forms of attributes, by name; `plain` names those of JSON's types, sets and tuples included."""
    names = " ".join(plain).split()
    named = {name: form if form.key else form.at(name.lstrip("_")) for name, form in forms.items()}
    return {**{name: PLAIN.at(name) for name in names}, **named}


def converted(pack: Callable[[Any], Any], unpack: Callable[[Any], Any]) -> Form:
    """Return the form of an attribute that JSON cannot hold as it is."""
    return Form(lambda value, _keep: pack(value), lambda told, _made: unpack(told))


def given(pack: Callable[[Any, Keeper], Any]) -> Form:
    """Return the form of an attribute that the object is made from, or part of: it already exists."""
    return Form(pack, lambda _told, made: made)


def _go_on(told: Any, part: Handed) -> Handed:
    part.take_over(told)
    return part


PLAIN = Form(
    lambda value, _keep: list(value) if isinstance(value, set | deque) else value,
    lambda told, made: type(made)(told) if isinstance(made, set | tuple | deque) else told,
)
PART = Form(lambda part, keep: part.pack(keep), _go_on)
GIVEN = given(lambda value, _keep: value)
BYTES = converted(lambda data: data.decode("latin-1"), lambda told: told.encode("latin-1"))
OPEN = given(lambda descriptor, keep: keep(descriptor))
DESCRIPTOR = Form(lambda descriptor, keep: keep(descriptor), lambda told, _made: taken(told))


class CannotTakeOver(Exception):
    """This program does not understand the state."""


class Keeper:
    """The descriptors that stay open."""

    def __init__(self) -> None:
        self.kept: list[int] = []

    def __call__(self, descriptor: int) -> int:
        """Keep a descriptor; returns its number. One that is not open (-1) stays so."""
        if descriptor >= 0:
            os.set_inheritable(descriptor, True)
            self.kept.append(descriptor)
        return descriptor

    def release(self) -> None:
        """Keep none of them after all."""
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
        CannotTakeOver: it has another format.
    """
    os.lseek(sealed, 0, os.SEEK_SET)
    with open(sealed, encoding="utf-8") as file:
        state = json.load(file)
    if not isinstance(state, dict) or state.get("format") not in KNOWN:
        raise CannotTakeOver("the state was written in another format")
    return state


def taken(descriptor: int) -> int:
    """Return a descriptor that was passed to us; we pass it to no other program."""
    if descriptor >= 0:
        os.set_inheritable(descriptor, False)
    return descriptor


def taken_socket(descriptor: int) -> socket.socket:
    """Return a socket that was passed to us."""
    return socket.socket(fileno=taken(descriptor))
