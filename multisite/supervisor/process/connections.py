"""What the kernel knows of the connections to unix sockets: those that wait and those that are served.

It knows for every server alike, with nothing asked of the server.

The table has the names of all sockets of the machine as their owners wrote them, line ends included. So a line may be
anybody's invention: one that could not be the kernel's is passed over, and what a good forgery can do is to make a
site look busier than it is.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_TABLE = "/proc/self/net/unix"  # there with systemd's ProcSubset=pid, too
_LISTENS = 0x10000  # __SO_ACCEPTCON
#: address: references protocol flags type state inode path (net/unix/af_unix.c, unix_seq_show)
_LINE = re.compile(rb"[^ ]+: [0-9A-F]{8} [0-9A-F]{8} ([0-9A-F]{8}) [0-9A-F]{4} ([0-9A-F]{2}) +([0-9]+) (/.*)\n")


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
            told = prefix in line and _LINE.fullmatch(line)
            if not told or not told[4].startswith(prefix) or int(told[1], 16) & _LISTENS:
                continue
            counts = found.setdefault(os.fsdecode(told[4]), Connections())
            if told[3] == b"0":
                counts.waiting += 1
            elif told[2] == b"03":
                counts.open += 1
    return found
