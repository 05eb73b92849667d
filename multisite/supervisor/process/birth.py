"""The birth of a process that a preloader forks: asked for, announced by itself, and perhaps lost on the way.

The channel is a pair of SEQPACKET sockets. The new process announces itself on it, and the kernel adds who speaks.
It says what fails, and closes it when it is set up. If nobody has announced himself when the channel ends, there is no
such process, and a plain start takes its place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import struct

from multisite.errors import one_line
from multisite.supervisor.process import kernel
from multisite.supervisor.process.kernel import Child

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_LONGEST = 4096
_MOST = 8  # messages that are taken at a time
BORN = b"born"
REFUSED = b"no "


class Birth:
    """Our end of a channel.

    Args:
        uid: whose the new process has to be.
        preloader: the process that is asked for it.

    Attributes:
        child: the new process, once there is one.
        refused: why the preloader has not made it.
        failure: why the process cannot be what it should.
        over: there is nothing more to come.
    """

    def __init__(self, uid: int, preloader: int) -> None:
        self.child: Child | None = None
        self.refused = self.failure = ""
        self.over = False
        self._uid, self._preloader = uid, preloader
        self._socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.theirs.setblocking(True)

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._socket.fileno()

    def hear(self) -> None:
        """Take what has been said."""
        for _ in range(_MOST):
            if self.over:
                return
            try:
                data, extra, _flags, _address = self._socket.recvmsg(_LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return
            except OSError:
                data, extra = b"", []
            if data == BORN:
                self._take(extra)
            elif data.startswith(REFUSED):
                self.refused = one_line(data[len(REFUSED) :].decode("utf-8", "replace"))
            elif data:
                self.failure = one_line(data.decode("utf-8", "replace"))
            else:
                self.over = True

    def _take(self, extra: list[tuple[int, int, bytes]]) -> None:
        """Believe a process that is our own child and nobody else's: it is held from here on."""
        for level, kind, content in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS and not self.child:
                pid, uid, _gid = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])
                if uid == self._uid and pid != self._preloader:
                    self._hold(pid)

    def _hold(self, pid: int) -> None:
        try:
            self.child = Child(pid)
        except OSError as error:
            self.refused = f"process {pid} cannot be held: {error.strerror}"
            if error.errno in (errno.EMFILE, errno.ENFILE) and kernel.parent(pid) == os.getpid():
                os.kill(pid, signal.SIGKILL)  # it has the site's socket, and nobody would know of it

    def give_up(self) -> None:
        """Wait no longer: whoever announces himself from now on learns that he is too late, and ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
        self.hear()
        self.over = True

    def close(self) -> None:
        """Close it."""
        self._socket.close()
        self.theirs.close()
