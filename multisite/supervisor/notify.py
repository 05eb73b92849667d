"""What processes say of themselves, as sd_notify(3) has it, each on a channel that nobody else shares.

Our own runner inherits one end of a pair of sockets. Another server finds the path of a socket in NOTIFY_SOCKET, which
belongs to the site's user. So whoever speaks without end fills a queue of its own, and nobody else's word is lost.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from multisite.model import one_line
from multisite.supervisor.handover import Handed, Keeper, taken
from multisite.supervisor.handover import State as Packed
from multisite.supervisor.process import Identity
from multisite.supervisor.rundir import LONGEST_PATH

LONGEST = 65536  # bytes: names of modules are the longest that is told
MOST = 64  # messages of one process that are taken in a second; the others wait, and so does it
MOST_LINES = 16  # of one; a few are known

Said = dict[str, str]


class Channel(Handed):
    """Our end of what one process speaks on; `path` is where its socket is bound, "" for a pair."""

    HANDED = ("is_over", "_second", "_taken")
    PARTS = ("path", "_socket")

    def __init__(self, ours: socket.socket, path: str = "") -> None:
        self.path = path
        self.is_over = False
        self._socket = ours
        self._socket.setblocking(False)
        self._second, self._taken = 0, 0

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Return a channel, and the end that a process of our own inherits.

        Raises:
            OSError: there are no descriptors left.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        return cls(ours), theirs

    @classmethod
    def at(cls, path: str, owner: Identity) -> Channel:
        """Return a channel for whoever finds `path` in NOTIFY_SOCKET and is `owner`.

        Raises:
            OSError: it cannot be bound there.
        """
        if len(os.fsencode(path)) > LONGEST_PATH:
            reason = f"the path is longer than {LONGEST_PATH} bytes; choose a shorter [service] runtime_dir"
            raise OSError(errno.ENAMETOOLONG, reason, path)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        old_umask = os.umask(0o177)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            bound.bind(path)
            if owner.change:
                os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
        except OSError:
            bound.close()
            raise
        finally:
            os.umask(old_umask)
        return cls(bound, path)

    def pack(self, keep: Keeper) -> Packed:
        """Return what `taken_over` takes."""
        return {**self.hand(), "socket": keep(self._socket.fileno()), "path": self.path}

    @classmethod
    def taken_over(cls, state: Packed) -> Channel:
        """Return the channel that another program packed."""
        made = cls(socket.socket(fileno=taken(state["socket"])), state["path"])
        made.go_on(state)
        return made

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._socket.fileno()

    @property
    def waits_until(self) -> float:
        """Monotonic second from which more may be received; 0: at once."""
        return self._second + 1.0 if self._taken >= MOST else 0.0

    def receive(self, now: float) -> list[Said]:
        """Return the variables of each message that has come, as many as are left of this second's."""
        if int(now) != self._second:
            self._second, self._taken = int(now), 0
        messages: list[Said] = []
        while self._taken < MOST and not self.is_over:
            try:
                data = self._socket.recv(LONGEST)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self._taken += 1
            self.is_over = not data and not self.path
            messages.append(_variables(data))
        return messages

    def close(self) -> None:
        """Close it."""
        self._socket.close()
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def _variables(data: bytes) -> Said:
    lines = data.decode("utf-8", "replace").split("\n", MOST_LINES)[:MOST_LINES]
    return dict(one_line(line).split("=", 1) for line in lines if "=" in line)


def tell(address: str, message: str) -> None:
    """Send `message` to the manager of this process itself; nothing happens where there is none."""
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.send(message.encode())
