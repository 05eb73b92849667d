"""What the kernel knows of the connections to unix sockets: those that wait and those that are served.

It knows for every server alike, with nothing asked of the server.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

_TABLE = "/proc/self/net/unix"  # there with systemd's ProcSubset=pid, too
_LISTENS = 0x10000  # __SO_ACCEPTCON


@dataclass
class Connections:
    """How many connections to one socket wait to be accepted, and how many are open."""

    waiting: int = 0
    open: int = 0


def connections(folder: str) -> dict[str, Connections]:
    """Return the connections to each bound socket in `folder`, by path.

    A connection that nobody accepted yet has no inode (net/unix/af_unix.c, unix_seq_show).
    """
    prefix = os.fsencode(folder.rstrip("/")) + b"/"
    found: dict[str, Connections] = {}
    with open(_TABLE, "rb") as table:
        for line in table:
            fields = line.split(None, 7)
            if len(fields) < 8 or not fields[7].startswith(prefix) or int(fields[3], 16) & _LISTENS:
                continue
            counts = found.setdefault(os.fsdecode(fields[7].rstrip(b"\n")), Connections())
            if fields[6] == b"0":
                counts.waiting += 1
            elif fields[5] == b"03":
                counts.open += 1
    return found
