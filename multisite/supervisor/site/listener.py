"""A site's listening socket, which outlives its processes, and the folders that lead front ends to it.

The kernel's queue of this socket is the waiting room: while no process of the site runs, its being
readable is what starts one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Iterable

from multisite.control.rundir import LONGEST_PATH, RuntimeDir
from multisite.supervisor.handover import Handed, Keeper, taken
from multisite.supervisor.handover import State as Packed
from multisite.supervisor.process import descriptors

_FAR = 2**62  # nanoseconds


class Listener(Handed):
    """The socket at `path`, which is open or not; those whom `rundir` lets in may connect."""

    HANDED = ("_folders", "is_withdrawn")
    PARTS = ("_socket",)
    ANEW = ("path", "_rundir", "_link")

    def __init__(self, path: str, rundir: RuntimeDir, link: str = "http.sock") -> None:
        self.path = path
        self._rundir, self._link = rundir, link
        self._socket: socket.socket | None = None
        self._folders: list[str] = []
        self.is_withdrawn = False

    @property
    def is_open(self) -> bool:
        """Whether connections are taken."""
        return self._socket is not None

    def fileno(self) -> int:
        """Return the descriptor; -1 while closed."""
        return self._socket.fileno() if self._socket else -1

    def open(self, backlog: int, domains: Iterable[str] = ()) -> None:
        """Bind the socket anew if it is not open, and put a link to it into the folder of each domain.

        Raises:
            OSError: it cannot be bound; the message says why.
        """
        self._bring_back()
        if not self._socket:
            self._socket = self._bind(backlog)
        elif not os.path.exists(self.path) or self._is_shut_down:  # by a server that cleans up
            self._socket.close()
            self._socket = self._bind(backlog)
        self._rundir.access.admit_to_socket(self.path)
        self._link_from(domains)

    @property
    def _is_shut_down(self) -> bool:
        """Whether a process that had it has called shutdown(2): nobody can connect any more."""
        poll = select.poll()
        poll.register(self.fileno(), 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def withdraw(self) -> None:
        """Let nobody new connect until `open`; whoever has connected is taken care of all the same."""
        with contextlib.suppress(OSError):
            os.rename(self.path, self._aside)
            self.is_withdrawn = True

    def _bring_back(self) -> None:
        if self.is_withdrawn:
            self.is_withdrawn = False
            with contextlib.suppress(OSError):
                os.rename(self._aside, self.path)

    @property
    def _aside(self) -> str:
        return self.path + "-"

    def _bind(self, backlog: int) -> socket.socket:
        if len(os.fsencode(self.path)) > LONGEST_PATH:
            reason = f"the path is longer than {LONGEST_PATH} bytes; choose a shorter [service] runtime_dir"
            raise OSError(errno.ENAMETOOLONG, reason, self.path)
        descriptors.claim(1)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old_umask = os.umask(0o177)
        try:
            bound.bind(self.path)
            bound.listen(max(1, backlog))
            # A file's access time moves when it is older than the change of the contents (relatime, mount(8)); with
            # that in the far future each connect(2) sets it, and `last_use` can tell when the site was asked last.
            os.utime(self.path, ns=(0, _FAR))
        except OSError:
            bound.close()
            raise
        finally:
            os.umask(old_umask)
        return bound

    def pack(self, keep: Keeper) -> Packed:
        """Return what `take_over` takes."""
        return {**self.hand(), "socket": keep(self.fileno())}

    def take_over(self, state: Packed) -> None:
        """Go on where another program was."""
        if state["socket"] >= 0:
            self._socket = socket.socket(fileno=taken(state["socket"]))
        self.go_on(state)

    def last_use(self) -> float:
        """Return the Unix time of the last connection; 0.0: there was none."""
        try:
            return os.stat(self.path).st_atime
        except OSError:
            return 0.0

    def last_mark(self) -> float:
        """Return the Unix time of the last connection that a worker has marked as a use; 0.0: there was none.

        Servers that count nothing cannot tell health checks from requests; the workers can.
        """
        try:
            modified = os.stat(self.path).st_mtime_ns
        except OSError:
            return 0.0
        return 0.0 if modified >= _FAR else modified / 1e9

    def _link_from(self, domains: Iterable[str]) -> None:
        root = os.path.dirname(os.path.dirname(self.path))
        wanted = [os.path.join(root, "domains", domain) for domain in domains]
        for folder in set(self._folders) - set(wanted):
            self._unlink(folder)
        self._folders = wanted
        target = os.path.join("..", "..", "sites", os.path.basename(self.path))
        for folder in wanted:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            self._rundir.access.admit_to_folder(folder)
            link = os.path.join(folder, self._link)
            if not os.path.islink(link) or os.readlink(link) != target:
                temporary = f"{link}.new"
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                os.symlink(target, temporary)
                os.replace(temporary, link)

    def _unlink(self, folder: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, self._link))
            os.rmdir(folder)

    def close(self) -> None:
        """Take no more connections; those that wait are reset."""
        if self._socket:
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                os.unlink(self._aside if self.is_withdrawn else self.path)
            self.is_withdrawn = False
        for folder in self._folders:
            self._unlink(folder)
        self._folders = []
