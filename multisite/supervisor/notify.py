"""Readiness that is told: the receiving end of sd_notify(3).

One datagram socket with an abstract name serves all backends, chroots included. Who speaks is known
by the credentials that the kernel adds.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct

from multisite.model import one_line
from multisite.supervisor.handover import Keeper, taken

LONGEST = 65536  # bytes: names of modules are the longest that is told
MOST = 64  # datagrams taken at a time: everybody on the machine may send some, and faster than they can be read
MOST_LINES = 16  # of one; a few are known
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class NotifySocket:
    """What backends find in NOTIFY_SOCKET; `state` is another program's."""

    def __init__(self, state: tuple[int, str] | None = None) -> None:
        if state:
            self._socket, self.name = socket.socket(fileno=taken(state[0])), state[1]
            self._socket.setblocking(False)
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.setblocking(False)
        self.name = f"@multisite/{os.getpid()}/{secrets.token_hex(8)}"
        self._socket.bind("\0" + self.name[1:])

    def pack(self, keep: Keeper) -> tuple[int, str]:
        """Return what a successor is made of."""
        return keep(self._socket.fileno()), self.name

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._socket.fileno()

    def receive(self) -> list[tuple[int, dict[str, str]]]:
        """Return (pid, variables) of each datagram that has come, of `MOST` at most."""
        messages: list[tuple[int, dict[str, str]]] = []
        for _ in range(MOST):
            try:
                data, extra, _flags, _address = self._socket.recvmsg(LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                break
            for level, kind, content in extra:
                if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    messages.append((_CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0], _variables(data)))
        return messages

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def _variables(data: bytes) -> dict[str, str]:
    lines = data.decode("utf-8", "replace").split("\n", MOST_LINES)[:MOST_LINES]
    return dict(one_line(line).split("=", 1) for line in lines if "=" in line)


def tell(address: str, message: str) -> None:
    """Send `message` to the manager of this process itself; nothing happens where there is none."""
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.send(message.encode())
