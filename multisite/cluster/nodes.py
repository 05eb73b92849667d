"""The machines of the cluster as moya.conf lists them, and which of them this one is."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable

from multisite.config.model import Home
from multisite.config.nodes import Machine, parse_machine, parse_machines
from multisite.errors import Problem

SECTION = "cluster"


class UnknownNode(ValueError):
    """It is unclear which of the nodes this machine is; the message is the reason.

    Attributes:
        remedy: what to do about it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


def machines(home: Home) -> tuple[Machine, ...]:
    """Return the machines that moya.conf lists; () for a home of one machine."""
    return parse_machines(home.cluster.nodes)


def is_here(host: str) -> bool:
    """Tell whether an address, or one that a host name stands for, belongs to this machine; nothing is sent to it.

    A host name is looked up, which may take a while.
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return False
    for family, *_, address in found:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(address)
            return True
    return False


def own(home: Home, here: Callable[[str], bool] = is_here) -> Machine:
    """Return this machine.

    Args:
        here: tells whether a host is this machine's.

    Raises:
        UnknownNode: `node` is none of `nodes`, or none or several of them have an address of this machine.
    """
    listed = machines(home)
    if named := home.cluster.node:
        machine = next((one for one in listed if str(one) == str(parse_machine(named))), None)
        if not machine:
            raise UnknownNode(f"{named} is not among nodes", f"add it to nodes, or write one of {_names(listed)}")
        return machine
    found = [one for one in listed if here(one.host)]
    if len(found) != 1:
        whose = f"{_names(found)} have addresses" if found else "none of nodes has an address"
        raise UnknownNode(f"{whose} of this machine", f"write node = {found[0] if found else 'ADDRESS:PORT'}")
    return found[0]


def problems(home: Home) -> list[Problem]:
    """Return why it is unclear which of the nodes this machine is."""
    if not home.cluster.nodes and not home.cluster.node:
        return []
    try:
        own(home)
    except UnknownNode as error:
        key = "node" if home.cluster.node else "nodes"
        value = home.cluster.node or ", ".join(home.cluster.nodes)
        return [Problem("MS742", home.file, str(error), SECTION, key, value, error.remedy)]
    return []


def _names(listed: Iterable[Machine]) -> str:
    return ", ".join(map(str, listed)) or "no node"
