"""Who is at the other end of the connections that wait in the queue of a unix socket, as the kernel tells it.

To accept one is the only other way to learn it, and nobody can give back what he has accepted.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

from multisite.control.peers import sock_diag

# linux/unix_diag.h
_REQUEST = struct.Struct("=BBHIIIII")
_LISTENS = 1 << 10  # TCP_LISTEN
_SHOW_WAITING, _WAITING = 8, 3  # UDIAG_SHOW_ICONS, UNIX_DIAG_ICONS
_ANY = 0xFFFFFFFF
_MESSAGE = 16  # bytes of struct unix_diag_msg
_ATTRIBUTE = struct.Struct("=HH")


def callers(listener: int) -> list[int]:
    """Return the inode of the socket at the other end of each waiting connection, the oldest first; 0: it is closed.

    Raises:
        OSError: it cannot be learnt.
    """
    inode = os.fstat(listener).st_ino
    answer = sock_diag(_REQUEST.pack(socket.AF_UNIX, 0, 0, _LISTENS, inode, _SHOW_WAITING, _ANY, _ANY))
    return [
        each for kind, value in _attributes(answer) if kind == _WAITING for (each,) in struct.iter_unpack("=I", value)
    ]


def have_gone(listener: int) -> bool:
    """Tell whether connections wait and each is closed at its other end; not if that cannot be learnt."""
    try:
        found = callers(listener)
    except OSError:
        return False
    return bool(found) and not any(found)


def _attributes(answer: bytes) -> Iterator[tuple[int, bytes]]:
    at = _MESSAGE
    while at + _ATTRIBUTE.size <= len(answer):
        size, kind = _ATTRIBUTE.unpack_from(answer, at)
        yield kind, answer[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3
