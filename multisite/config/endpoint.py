"""Where requests are relayed to: a protocol and an address."""

from __future__ import annotations

import re
from dataclasses import dataclass

PROTOCOLS = ("http", "uwsgi")

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?/?")
_UNIX = re.compile(r"(?:(\w+)\+)?unix:(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A unix socket (`path`) or a TCP port (`host`, `port`) and the protocol spoken there.

    `path` of a socket in Linux's abstract namespace begins with a NUL, as `connect(2)` expects it.
    """

    protocol: str
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"{self.protocol}+unix:{self.path.replace(chr(0), '@')}"
        return f"{self.protocol}://{self.address}"

    @property
    def address(self) -> str:
        """``HOST:PORT`` with an IPv6 address in brackets."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, protocol: str = "http") -> Endpoint:
        """Read ``unix:/PATH``, ``http+unix:/PATH``, ``uwsgi+unix:/PATH``, ``http://HOST[:PORT]`` or ``uwsgi://HOST:PORT``.

        A path that begins with ``@`` is an abstract socket. `protocol` applies if `text` names none.

        Raises:
            ValueError: `text` is none of these; the message is the reason.
        """
        unix = _UNIX.fullmatch(text)
        if unix:
            return cls(_known(unix[1] or protocol), path=_socket_path(unix[2]))
        scheme, found, rest = text.partition("://")
        protocol, address = (_known(scheme), rest) if found else (protocol, text)
        match = _HOST_PORT.fullmatch(address)
        if not match:
            raise ValueError("it is not HOST:PORT; a path cannot be given")
        port = int(match[2] or (80 if found and protocol == "http" else 0))
        if not 0 < port < 65536:
            raise ValueError("the port is missing" if not match[2] else "a port is between 1 and 65535")
        return cls(protocol, host=match[1].strip("[]"), port=port)


def _known(protocol: str) -> str:
    if protocol not in PROTOCOLS:
        raise ValueError(f"the protocol {protocol} is not supported; {' and '.join(PROTOCOLS)} are")
    return protocol


def _socket_path(path: str) -> str:
    if path.startswith("///"):  # unix:///run/x.sock, a URL with an empty authority
        path = path[2:]
    if path.startswith("@"):
        return "\0" + path[1:]
    if not path.startswith("/") or "\0" in path:
        raise ValueError("the path of a socket is absolute")
    return path
