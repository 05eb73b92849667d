"""Where a server listens: addresses as a user writes them, and the sockets that gunicorn cannot make of them."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from typing import Any

import click

from multisite.errors.pages import is_loopback

UNIX, DESCRIPTOR = "unix:", "fd://"
_ABSTRACT = "unix:@"
_GIVEN: set[str | bytes] = set()  # names of unix sockets that are somebody else's
_PORT = re.compile(r":\d+\Z")


def address_of(bind: str, port: int) -> str:
    """Complete `bind` to an address as gunicorn takes it: ``HOST:PORT``, ``unix:PATH``, ``unix:@NAME`` or ``fd://N``."""
    if bind.startswith((UNIX, DESCRIPTOR)):
        return bind
    if bind.count(":") > 1 and bind[0] != "[":
        return f"[{bind}]:{port}"
    return bind if _PORT.search(bind) else f"{bind}:{port}"


def port_of(address: str) -> str:
    """Return the port of a TCP address, "" for any other."""
    return "" if address.startswith((UNIX, DESCRIPTOR)) else address.rpartition(":")[2]


def only_this_machine(address: str) -> bool:
    """Tell whether only this machine can connect to `address`; a unix socket may have a front end behind it."""
    return bool(port_of(address)) and is_loopback(address.rpartition(":")[0].strip("[]"))


def bound(addresses: Iterable[str]) -> list[str]:
    """Return what to tell gunicorn: `addresses`, all as descriptors if one of them is one or is abstract.

    gunicorn makes sockets of its own only where it is given none, and none in Linux's abstract namespace.

    Raises:
        click.UsageError: one of them cannot be had.
    """
    addresses = list(addresses)
    if not any(address.startswith((_ABSTRACT, DESCRIPTOR)) for address in addresses):
        return addresses
    return [f"{DESCRIPTOR}{_descriptor(address)}" for address in addresses]


def _descriptor(address: str) -> int:
    try:
        if address.startswith(DESCRIPTOR):
            return _given(address)
        listening = _listen(address)
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise click.UsageError(f"--bind {address}: {reason[:1].lower()}{reason[1:]}") from None
    listening.set_inheritable(True)
    return listening.detach()


def _given(address: str) -> int:
    number = int(address.removeprefix(DESCRIPTOR))
    with socket.socket(fileno=os.dup(number)) as given:
        if given.type != socket.SOCK_STREAM:
            raise ValueError("it is no stream socket")
        if given.family == socket.AF_UNIX:
            _GIVEN.add(given.getsockname())
    return number


def _listen(address: str) -> socket.socket:
    if address.startswith(UNIX):
        return _listen_unix(address.removeprefix(UNIX))
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=2048)


def _listen_unix(path: str) -> socket.socket:
    """Listen at a path, in place of a socket that is left there, or in the abstract namespace."""
    listening = socket.socket(socket.AF_UNIX)
    if path.startswith("@"):
        listening.bind("\0" + path[1:])
    else:
        path = re.sub(r"\A//", "", path)
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                raise ValueError("somebody listens there")
        if os.path.exists(path):
            os.unlink(path)
        listening.bind(path)
    listening.listen(2048)
    return listening


def keep_paths(server: Any) -> None:
    """Have gunicorn remove no path that is not its own when it ends: its hook ``when_ready``.

    It removes that of any unix socket, and an abstract one has none.
    """
    for listener in server.LISTENERS:
        name = listener.getsockname()
        if isinstance(name, bytes) or name in _GIVEN:
            listener.getsockname = lambda: ("", 0)
