"""Where requests wait for a process: the site's listening socket, watched while nothing runs."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Protocol

from multisite.config.model import Site
from multisite.control.peers import sock_diag
from multisite.control.rundir import RuntimeDir, bind
from multisite.errors import BackendUnavailable
from multisite.supervisor.loop import Loop
from multisite.supervisor.process import descriptors
from multisite.supervisor.reexec import Form, Handed, kept, taken_socket
from multisite.supervisor.site.failures import Unavailable
from multisite.supervisor.site.refuse import move, turn_away

RETRY_AFTER = 10  # seconds, if the socket cannot be made or the site is stopped
STOPPED = "the site is being stopped"


class Whose(Protocol):
    """A site as its queue sees it: requests to our own server may wait there with their clients' connections."""

    site: Site
    domains: tuple[str, ...]

    def want(self) -> None:
        """Note that a request waits."""

    def turned_away(self, count: int) -> None:
        """Note that this many requests, which no worker counts, were answered with an error."""


class WaitQueue(Handed):
    """Knows since when a request waits for the site `whose`, and tells the site when the first one comes.

    Attributes:
        since: monotonic seconds; None: no request is known to wait.
        owner: who owns the site whose processes last got the socket, "" if none did (`Launch.owner`).
    """

    KEPT = kept("since owner _told")
    ANEW = ("listener", "_whose", "_loop", "_logger")

    def __init__(self, whose: Whose, listener: SiteSocket, loop: Loop, logger: logging.Logger) -> None:
        self.listener = listener
        self.since: float | None = None
        self.owner = ""
        self._told = ""
        self._whose, self._loop, self._logger = whose, loop, logger

    def open(self) -> int:
        """Open the socket if necessary; returns its descriptor.

        Raises:
            OSError: it cannot be made.
        """
        self.listener.open(self._whose.site.max_waiting, self._whose.domains)
        return self.listener.fileno()

    def ensure(self, *, watch: bool) -> None:
        """Open the socket if necessary; with `watch` also watch it for connections, unless a request is known to wait.

        Raises:
            Unavailable: it cannot be made.
        """
        try:
            self.open()
        except OSError as error:
            reason = f"{error.filename or self.listener.path}: {error.strerror}"
            if reason != self._told:
                self._logger.error("MS563 cannot make its socket: %s", reason)
            self._told = reason
            raise Unavailable(reason, RETRY_AFTER) from None
        self._told = ""
        if watch and self.since is None:
            self._loop.watch(self.listener, lambda _events: self._whose.want())

    @property
    def is_waited_in(self) -> bool:
        """Whether a connection waits that nothing has accepted; it starts a process as soon as one may be started."""
        if not self.listener.is_open:
            return False
        poll = select.poll()
        poll.register(self.listener.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def want(self) -> None:
        """Note that a request waits, or that a process is wanted for another reason."""
        self._loop.forget(self.listener)
        if self.since is None:
            self.since = self._loop.now()

    def served(self) -> None:
        """Note that the waiting requests are taken care of."""
        self._loop.forget(self.listener)
        self.since = None

    def close(self, told: Unavailable | None = None) -> None:
        """Take no more requests; those that wait get a page, or are reset and ask us.

        Args:
            told: why, and for how long.
        """
        self.served()
        if self._whose.site.is_ours and self.listener.is_open:
            self._turn_away(told or Unavailable(STOPPED, RETRY_AFTER))
        self.listener.close()

    def renew(self, *, watch: bool, reason: str = STOPPED, retry_after: float = RETRY_AFTER) -> None:
        """Answer all waiting requests, while no process takes any; later ones wait at another socket."""
        if self.listener.is_open:
            self.served()
            self._turn_away(Unavailable(reason, retry_after), everybody=True)
            self.listener.close()
            with contextlib.suppress(Unavailable):  # the next request learns of it
                self.ensure(watch=watch)

    def forget_gone(self) -> None:
        """Replace a queue in which no client waits any more with an empty one; no process takes requests.

        A connection that has brought its client along is closed, and the client waits: it moves to the new queue.
        """
        if not self.listener.is_open or not have_gone(self.listener.fileno()):
            return
        self.listener.withdraw()
        queue = os.dup(self.listener.fileno())
        try:
            is_left = have_gone(queue)  # and no request has come at the last moment
            if is_left:
                self.served()
                self.listener.close()
            with contextlib.suppress(Unavailable):
                self.ensure(watch=True)
            if is_left and self._whose.site.is_ours:
                move(queue, self.listener.path, BackendUnavailable(STOPPED, RETRY_AFTER))
        finally:
            os.close(queue)

    def _turn_away(self, told: Unavailable, everybody: bool = False) -> None:
        self.listener.withdraw()
        error = BackendUnavailable(told.reason, round(told.retry_after))
        error.incident = told.incident
        turned, uncounted = turn_away(self.listener.fileno(), 2 * self._whose.site.max_waiting + 2, error, everybody)
        if uncounted:
            self._whose.turned_away(uncounted)
        if turned:
            self._logger.warning("MS564 answered %s waiting requests with %s: %s", turned, error.status, told.reason)


_FAR = 2**62  # nanoseconds


class SiteSocket(Handed):
    """The socket at `path`, open or not; those whom `rundir` allows may connect.

    Attributes:
        is_withdrawn: it is out of the way until `open`.
        is_shut: it stays out of the way until it is released: the site is out of service.
    """

    KEPT = kept(
        "_folders is_withdrawn is_shut",
        _socket=Form(
            lambda bound, keep: keep(bound.fileno() if bound else -1),
            lambda told, _made: taken_socket(told) if told >= 0 else None,
        ),
    )
    ANEW = ("path", "_rundir", "_links")

    def __init__(self, path: str, rundir: RuntimeDir, links: tuple[str, ...] = ("http.sock",)) -> None:
        self.path = path
        self._rundir, self._links = rundir, links
        self._socket: socket.socket | None = None
        self._folders: list[str] = []
        self.is_withdrawn = self.is_shut = False

    @property
    def is_open(self) -> bool:
        """Whether it accepts connections."""
        return self._socket is not None

    def fileno(self) -> int:
        """Return the descriptor; -1 while closed."""
        return self._socket.fileno() if self._socket else -1

    def open(self, backlog: int, domains: Iterable[str] = ()) -> None:
        """Bind the socket again if it is not open, and put a link to it into the directory of each domain.

        Raises:
            OSError: it cannot be bound; the message gives the reason.
        """
        if self.is_withdrawn and not self.is_shut:
            self._bring_back()
        place = self._aside if self.is_withdrawn else self.path
        if not self._socket:
            self._socket = self._bind(backlog)
        elif not os.path.exists(place) or self._is_shut_down:  # removed by a server that cleans up
            self._socket.close()
            self._socket = None  # in case the next line fails
            self._socket = self._bind(backlog)
        if self.is_shut:
            self.shut()
            return
        self._rundir.access.admit_to_socket(self.path)
        self._link_from(domains)

    @property
    def _is_shut_down(self) -> bool:
        """Whether a process that had it has called shutdown(2), so that nothing can connect any more."""
        poll = select.poll()
        poll.register(self.fileno(), 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def withdraw(self) -> None:
        """Refuse new connections until `open`; connections that wait already are still served."""
        with contextlib.suppress(OSError):
            os.rename(self.path, self._aside)
            self.is_withdrawn = True

    def shut(self) -> None:
        """Refuse new connections, and keep front ends away, even if a process needs the socket; see `is_shut`."""
        self.is_shut = True
        if self.is_open and (not self.is_withdrawn or os.path.exists(self.path)):
            self.withdraw()
        for folder in self._folders:
            self._unlink(folder)
        self._folders = []

    def _bring_back(self) -> None:
        self.is_withdrawn = False
        with contextlib.suppress(OSError):
            os.rename(self._aside, self.path)

    @property
    def _aside(self) -> str:
        return self.path + "-"

    def _bind(self, backlog: int) -> socket.socket:
        descriptors.claim(1)
        bound = bind(self.path)
        try:
            bound.listen(max(1, backlog))
            # A file's access time moves when it is older than the change of the contents (relatime, mount(8)); with a
            # change time in the far future each connect(2) sets it, and `last_use` shows when the site was last asked.
            os.utime(self.path, ns=(0, _FAR))
        except OSError:
            bound.close()
            raise
        return bound

    def last_use(self) -> float:
        """Return the Unix time of the last connection; 0.0: there was none."""
        try:
            return os.stat(self.path).st_atime
        except OSError:
            return 0.0

    def last_mark(self) -> float:
        """Return the Unix time of the last connection that a worker has marked as use; 0.0: there was none.

        Servers that do not count cannot distinguish health checks from requests; the workers can.
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
            for link in (os.path.join(folder, name) for name in self._links):
                if not os.path.islink(link) or os.readlink(link) != target:
                    temporary = f"{link}.new"
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary)
                    os.symlink(target, temporary)
                    os.replace(temporary, link)

    def _unlink(self, folder: str) -> None:
        with contextlib.suppress(OSError):
            for name in self._links:
                os.unlink(os.path.join(folder, name))
            os.rmdir(folder)

    def close(self) -> None:
        """Accept no more connections; those that wait are reset."""
        if self._socket:
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                os.unlink(self._aside if self.is_withdrawn else self.path)
            self.is_withdrawn = False
        for folder in self._folders:
            self._unlink(folder)
        self._folders = []


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
        OSError: the kernel does not tell.
    """
    inode = os.fstat(listener).st_ino
    answer = sock_diag(_REQUEST.pack(socket.AF_UNIX, 0, 0, _LISTENS, inode, _SHOW_WAITING, _ANY, _ANY))
    return [
        each for kind, value in _attributes(answer) if kind == _WAITING for (each,) in struct.iter_unpack("=I", value)
    ]


def have_gone(listener: int) -> bool:
    """Tell whether connections wait and each is closed at its other end; False if that is not known."""
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
