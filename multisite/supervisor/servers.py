"""The WSGI servers that the supervisor serves: it exits with the last of them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from multisite.control.serverprocess import command_line, server_of
from multisite.sites.server import HEAD_LIMITS
from multisite.supervisor.loop import Loop
from multisite.supervisor.process import descriptors, kernel
from multisite.supervisor.reexec import Handed, Keeper, State, kept, taken

MOST_SERVERS = 1000


@dataclass(frozen=True)
class _Server:
    """What is known about a watched server: its pidfd, its user and program, its command line and vector."""

    descriptor: int
    user: int
    program: str
    command: bytes
    vector: bytes


class Servers(Handed):
    """The server processes that asked for something, each watched until it ends.

    Workers come and go; what counts is the process that would start their successors.

    Attributes:
        head_limits: how large the head of a request may be, by gunicorn's names, as a worker last reported; empty if
        none has reported anything.
    """

    KEPT = kept("seen_any head_limits")
    BY_HAND = ("_watched",)
    ANEW = ("_loop",)

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._watched: dict[int, _Server] = {}  # by pid
        self.head_limits: dict[str, int] = {}
        self.seen_any = False

    def __bool__(self) -> bool:
        return bool(self._watched)

    @property
    def pids(self) -> list[int]:
        """Their processes."""
        return sorted(self._watched)

    def register(self, caller: int, head_limits: object = None) -> None:
        """Watch the server that `caller` is a worker of, and remember the limits that it reports."""
        self._watch(server_of(caller))
        if isinstance(head_limits, dict):
            told = {name: head_limits.get(name) for name in HEAD_LIMITS}
            self.head_limits = {name: limit for name, limit in told.items() if type(limit) is int}

    def pack(self, keep: Keeper) -> State:
        """Return what `take_over` accepts."""
        return {**super().pack(keep), "watched": [(pid, keep(one.descriptor)) for pid, one in self._watched.items()]}

    def take_over(self, state: State) -> None:
        """Continue where another program stopped."""
        super().take_over(state)
        for pid, descriptor in state["watched"]:
            self._add(pid, taken(descriptor))

    def _watch(self, pid: int) -> None:
        if pid in self._watched or pid <= 1 or len(self._watched) >= MOST_SERVERS:
            return
        try:
            descriptors.claim(1)
            descriptor = os.pidfd_open(pid)
        except OSError:
            return  # it has exited already, or asks again
        self._add(pid, descriptor)

    def _add(self, pid: int, descriptor: int) -> None:
        vector = kernel.read(pid, "auxv")
        self._watched[pid] = _Server(descriptor, kernel.user(pid), _program(pid), command_line(pid), vector)
        self.seen_any = True
        self._loop.watch(descriptor, lambda _events: self._gone(pid))

    def _gone(self, pid: int) -> None:
        server = self._watched.pop(pid)
        self._loop.forget(server.descriptor)
        os.close(server.descriptor)
        if not self._watched:
            self._look_for_successor(pid, server)

    def _look_for_successor(self, gone: int, server: _Server) -> None:
        """Find the server that replaced another (gunicorn's USR2): its workers will ask us in time.

        gunicorn tells its successor its own pid; others execute the same command line. Anyone can claim either, so we
        believe only the same program of the same user. A process that was forked from the server that exited is one of
        its workers, and will exit too.
        """
        upgraded = str(gone).encode()
        for pid in kernel.pids():
            if pid == os.getpid() or (server.vector and kernel.read(pid, "auxv") == server.vector):
                continue
            if kernel.user(pid) != server.user or _program(pid) != server.program:
                continue
            same = bool(server.command) and command_line(pid) == server.command
            if same or kernel.environment(pid).get(b"GUNICORN_PID") == upgraded:
                self._watch(server_of(pid))

    def close(self) -> None:
        """Stop watching all of them."""
        for server in self._watched.values():
            self._loop.forget(server.descriptor)
            with contextlib.suppress(OSError):
                os.close(server.descriptor)
        self._watched.clear()


def _program(pid: int) -> str:
    """Return the path of the program that a process executes; "" if it is not known.

    An upgraded server executes another file of that name than its predecessor, whose file no longer exists.
    """
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError:
        return ""
