"""What processes report about themselves by sd_notify(3), each on its own channel.

Our own runner inherits the writing end of a pipe, where an empty line ends each message. Any other server finds the
path of a socket in NOTIFY_SOCKET, which belongs to the site's user. So a process that floods us fills only its own
queue, and nobody else's messages are lost.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from multisite.control.rundir import bind
from multisite.errors import one_line
from multisite.supervisor.process import descriptors
from multisite.supervisor.process.spec import Identity
from multisite.supervisor.reexec import BYTES, GIVEN, OPEN, Handed, kept, taken
from multisite.supervisor.reexec import State as Packed

LONGEST = 65536  # bytes: names of modules are the longest message; anything longer on a pipe is lost
MOST = 64  # messages, or pieces, of one process that we take in a second; the others wait, and so does the process
END = b"\n\n"  # of a message on a pipe
MOST_LINES = 16  # of one message; few names are known

Said = dict[str, str]


class Channel(Handed):
    """Our end of one process's channel; `path` is where its socket is bound, "" for a pipe."""

    KEPT = kept(
        "is_over _second _taken",
        path=GIVEN,
        _descriptor=OPEN,
        _begun=BYTES,
    )
    ANEW = ("_is_pipe",)

    def __init__(self, descriptor: int, path: str = "") -> None:
        self.path = path
        self.is_over = False
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)
        self._is_pipe = not stat.S_ISSOCK(os.fstat(descriptor).st_mode)  # sockets keep messages apart
        self._begun = b""  # read from a pipe and not taken yet
        self._second, self._taken = 0, 0

    @classmethod
    def pipe(cls) -> tuple[Channel, int]:
        """Return a channel, and the end that our own process inherits.

        Raises:
            OSError: there are no descriptors left.
        """
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        return cls(ours), theirs

    @classmethod
    def at(cls, path: str, owner: Identity) -> Channel:
        """Return a channel for a process that finds `path` in NOTIFY_SOCKET and runs as `owner`.

        Raises:
            OSError: the socket cannot be bound there.
        """
        bound = bind(path, socket.SOCK_DGRAM)
        try:
            if owner.change:
                os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
        except OSError:
            bound.close()
            raise
        return cls(bound.detach(), path)

    @classmethod
    def taken_over(cls, state: Packed) -> Channel:
        """Return the channel that another program packed; in format 2 it is always a socket."""
        made = cls(taken(state["descriptor" if "descriptor" in state else "socket"]), state["path"])
        made.take_over(state)
        return made

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._descriptor

    @property
    def waits_until(self) -> float:
        """Monotonic second from which more may be received; 0: at once."""
        return self._second + 1.0 if self._taken >= MOST else 0.0

    @property
    def has_more(self) -> bool:
        """Whether a message has already been read and waits to be received."""
        return END in self._begun

    def receive(self, now: float) -> list[Said]:
        """Return the variables of each message that has arrived, up to what this second still allows."""
        if int(now) != self._second:
            self._second, self._taken = int(now), 0
        messages: list[Said] = []
        while self._taken < MOST and not self.is_over:
            message = self._begun_message()
            if message is None:
                data = descriptors.read(self._descriptor, LONGEST)
                if data is None:
                    break
                message = self._from(data)
            self._taken += 1
            if message is not None:
                messages.append(_variables(message))
        return messages

    def _begun_message(self) -> bytes | None:
        """Return a message that has been read completely, None if there is none."""
        message, end, rest = self._begun.partition(END)
        if not end:
            return None
        self._begun = rest
        return message

    def _from(self, data: bytes) -> bytes | None:
        """Return the message from a socket; what a pipe brings may be incomplete, and is kept."""
        self.is_over = not data and not self.path
        if not self._is_pipe:
            return data
        self._begun = (self._begun if len(self._begun) < LONGEST else b"") + data
        return None

    def close(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def _variables(data: bytes) -> Said:
    lines = data.decode("utf-8", "replace").split("\n", MOST_LINES)[:MOST_LINES]
    return dict(one_line(line).split("=", 1) for line in lines if "=" in line)
