"""Telling the supervisor: the datagrams of sd_notify(3)."""

from __future__ import annotations

import socket
from json import dumps  # before a site can patch it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONGEST = 1000


class Notifier:
    """Sends to the socket that ``NOTIFY_SOCKET`` named; with "" it tells nobody."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        """The backend accepts requests."""
        self._send("READY=1\nSTATUS=serving")

    def stopping(self, why: str) -> None:
        """It accepts no more of them."""
        self._send(f"STOPPING=1\nSTATUS={_line(why)}")

    def recycles(self) -> None:
        """It accepts no more of them, since it has had its `max_requests`: another one is to take its place."""
        self._send("STOPPING=1\nRECYCLES=1\nSTATUS=max_requests")

    def status(self, text: str) -> None:
        """What a user should know about it, in one line."""
        self._send(f"STATUS={_line(text)}")

    def failed(self, why: str) -> None:
        """It is not going to serve, and ends. The exit status alone would not tell that it was we who ended it."""
        self._send(f"FAILED=1\nSTATUS={_line(why)}")

    def modules(self, names: str) -> None:
        """Which modules of the interpreter the site needs, separated by blanks."""
        self._send(f"MODULES={names}")

    def facts(self, found: dict[str, Any]) -> None:
        """What the examination of the site has found."""
        self._send(f"FACTS={dumps(found)}")

    def _send(self, text: str) -> None:
        """A supervisor that is gone, or does not read, must not hold up a site."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(text.encode("utf-8", "replace"), self._address)
        except OSError:
            pass


def _line(text: str) -> str:
    return " ".join(text.split())[:LONGEST]
