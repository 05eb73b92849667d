"""``subscribe_to``: the Fastrouters that a site is announced to, and its keys there, as uWSGI writes them (pure)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, NamedTuple

from multisite.config import nodes

LONGEST = 255  # bytes of a key


class Subscription(NamedTuple):
    """Where a site is announced, and for what.

    Attributes:
        address: ``ADDRESS:PORT`` of UDP, the path of a unix datagram socket, or ``@NAME`` of an abstract one.
        key: that the site answers for.
        modifier1: of the packets for its processes.
    """

    address: str
    key: str
    modifier1: int = 0

    @property
    def is_unix(self) -> bool:
        """Whether the address is that of a unix socket."""
        return self.address.startswith(("/", "@"))

    @property
    def target(self) -> tuple[str, int]:
        """Address and port of UDP."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


def parse(text: str) -> Subscription:
    """Read one item: ``ADDRESS:PORT:KEY`` or ``/PATH:KEY``, and perhaps ``,MODIFIER1``.

    Raises:
        ValueError: it is none; the message is the reason.
    """
    rest, comma, modifier = text.strip().partition(",")
    if comma and not (modifier.isascii() and modifier.isdigit() and int(modifier) < 256):
        raise ValueError("a modifier from 0 to 255 follows the comma; signed announcements are not supported")
    if rest.startswith(("/", "@")):
        address, _, key = rest.partition(":")
    else:
        host, bracket, after = rest.partition("]")
        first, _, tail = (after if bracket else rest).partition(":")
        port, _, key = tail.partition(":")
        address = f"{host}]:{port}" if bracket else f"{first}:{port}"
        _check_udp(host.lstrip("[") if bracket else first, port)
    if not key or len(key.encode()) > LONGEST or "/" in key or not key.isprintable() or " " in key:
        raise ValueError("a key of at most 255 bytes follows the address, as in 127.0.0.1:7000:blog.example.com")
    return Subscription(address, key, int(modifier or 0))


def _check_udp(host: str, port: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address; host names are not looked up here") from None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{port!r} is not a port")


def joined(items: tuple[str, ...]) -> tuple[str, ...]:
    """Return an option's items, each of them checked.

    Raises:
        ValueError: one of them is none; the message names it.
    """
    found = nodes.joined(items)
    for item in found:
        try:
            parse(item)
        except ValueError as error:
            raise ValueError(f"{item}: {error}") from None
    return found


def may_be(service: Mapping[str, Any]) -> bool:
    """Tell whether a site with these options of [service] has its own socket that speaks uwsgi.

    Our own runner accepts both protocols, uWSGI and a command the one in `protocol`.
    """
    if service.get("mode") in ("proxy", "in-process") or (service.get("ini") and not service.get("application")):
        return False
    server = service.get("server") or "auto"
    if server in ("auto", "asgi") and not service.get("command"):
        return True
    return service.get("protocol") == "uwsgi" and (server == "uwsgi" or bool(service.get("command")))
