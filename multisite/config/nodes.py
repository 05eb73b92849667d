"""Nodes: where a key leads to, in the form of mapping files, mappers and uWSGI's announcements (pure).

A node is ``HOST:PORT``, ``/path``, ``unix:/path``, ``@abstract``, ``http://…``, ``http+unix:/path`` or ``uwsgi://…``;
``,modifier1`` or ``,modifier1,modifier2`` may follow, and ``|`` separates several. Without a scheme the protocol is
uwsgi, as in uWSGI's Fastrouter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from multisite.config.endpoint import Endpoint

MOST_NODES = 256  # of one key
LONGEST = 255  # bytes of an address in uWSGI's announcements

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Node:
    """A backend that is not our process.

    Attributes:
        endpoint: its protocol and address.
        modifier1: first modifier of the uwsgi packets that it gets; 0 is a WSGI request, 5 PSGI.
        modifier2: the second.
        weight: its share of the requests, in proportion to those of the others; at least 1.
        backup: level; nodes of a higher level are used only while no node of a lower level is alive.
    """

    endpoint: Endpoint
    modifier1: int = 0
    modifier2: int = 0
    weight: int = 1
    backup: int = 0

    def __str__(self) -> str:
        """The address as uWSGI writes it where uwsgi is spoken, and with its scheme where HTTP is."""
        end = self.endpoint
        if end.protocol == "uwsgi":
            return end.path.replace("\0", "@") or str(end).partition("://")[2]
        return str(end)


def parse(text: str) -> Node:
    """Read one node.

    Raises:
        ValueError: it is none; the message is the reason.
    """
    address, *modifiers = text.strip().split(",")
    if len(modifiers) > 2:
        raise ValueError("more than two modifiers follow the address")
    numbers = [_modifier(modifier) for modifier in modifiers]
    return Node(_endpoint(address.strip()), *numbers)


def parse_all(text: str) -> tuple[Node, ...]:
    """Read nodes separated by ``|``.

    Raises:
        ValueError: one of them is none, or there are too many.
    """
    parts = [part for part in text.split("|") if part.strip()]
    if not 0 < len(parts) <= MOST_NODES:
        raise ValueError("no address is given" if not parts else f"more than {MOST_NODES} addresses are given")
    return tuple(map(parse, parts))


def joined(items: Iterable[str]) -> tuple[str, ...]:
    """Return an option's items, one for each node: a number alone is a modifier of the node before it."""
    found: list[str] = []
    for item in items:
        if item.strip().isdecimal() and found:
            found[-1] += f",{item}"
        else:
            found.append(item)
    return tuple(found)


def parse_list(items: Iterable[str]) -> tuple[Node, ...]:
    """Read an option that lists nodes, one item for each.

    Raises:
        ValueError: one of them is none; the message names it.
    """
    found: list[Node] = []
    for text in items:
        try:
            found += parse_all(text)
        except ValueError as error:
            raise ValueError(f"{text}: {error}") from None
    return tuple(found)


def _modifier(text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 3 and int(digits) < 256):
        raise ValueError("a modifier is a number from 0 to 255")
    return int(digits)


def _endpoint(address: str) -> Endpoint:
    if len(address) > LONGEST:
        raise ValueError(f"the address is longer than {LONGEST} characters")
    if _UNPRINTABLE.search(address):
        raise ValueError("the address has characters that cannot be printed")
    if address.startswith(("/", "@")):
        address = f"unix:{address}"
    return Endpoint.parse(address, "uwsgi")
