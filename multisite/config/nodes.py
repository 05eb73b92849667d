"""Nodes: where a key leads to, in the form of mapping files, mappers and uWSGI's announcements (pure).

A node is ``HOST:PORT``, ``/path``, ``unix:/path``, ``@abstract``, ``http://…``, ``http+unix:/path`` or ``uwsgi://…``;
``,modifier1`` or ``,modifier1,modifier2`` may follow, and ``|`` separates several. Without a scheme the protocol is
uwsgi, as in uWSGI's Fastrouter.

A machine of a cluster, which serves the same home as the others, is ``ADDRESS:PORT`` or ``ADDRESS:PORT=WEIGHT``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from multisite.config.endpoint import Endpoint

MOST_NODES = 256  # of one key
MOST_MACHINES = 1000  # of one cluster
LONGEST = 255  # bytes of an address in uWSGI's announcements
HEAVIEST = 256  # weight of a machine; HAProxy knows no greater one

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ANYWHERE = ("0.0.0.0", "::", "0")


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


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that serves the same home as others, and where its server listens for the front ends.

    Attributes:
        host: address or host name, an IPv6 address without brackets.
        weight: its share of the sites, in proportion to those of the others; 1 to 256.
    """

    host: str
    port: int
    weight: int = 1

    def __str__(self) -> str:
        """``ADDRESS:PORT``, the name by which front ends, status and messages know it."""
        return Endpoint("http", host=self.host, port=self.port).address


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


def parse_machine(text: str) -> Machine:
    """Read ``ADDRESS:PORT`` or ``ADDRESS:PORT=WEIGHT``.

    Raises:
        ValueError: it is neither; the message is the reason.
    """
    address, has_weight, weight = map(str.strip, text.partition("="))
    endpoint = Endpoint.parse(address)
    if "/" in address or endpoint.path:
        raise ValueError("a node is ADDRESS:PORT")
    if endpoint.host in _ANYWHERE:
        raise ValueError(f"{endpoint.host} is no address of one machine")
    digits = weight if has_weight else "1"
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 3 and 0 < int(digits) <= HEAVIEST):
        raise ValueError(f"a weight is a whole number from 1 to {HEAVIEST}")
    return Machine(endpoint.host.lower(), endpoint.port, int(digits))


def parse_machines(items: Iterable[str]) -> tuple[Machine, ...]:
    """Read a list of machines, one item for each.

    Raises:
        ValueError: one of them is none, or is listed twice, or there are too many; the message names it.
    """
    found: dict[str, Machine] = {}
    for text in items:
        try:
            machine = parse_machine(text)
        except ValueError as error:
            raise ValueError(f"{text}: {error}") from None
        if str(machine) in found:
            raise ValueError(f"{machine} is listed twice")
        found[str(machine)] = machine
    if len(found) > MOST_MACHINES:
        raise ValueError(f"more than {MOST_MACHINES} nodes are listed")
    return tuple(found.values())


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
