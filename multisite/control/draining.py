"""Whether this machine drains a home: `/health` answers 503, and all other requests are answered as usual.

An administrator's drain is noted in the home, in a file for this machine: other machines may share the home, and the
workers may run as another user than whoever drains. It lasts until it is undone, or until the last server of the home
that ran when it began has ended; a server that starts later is ready. A supervisor that is about to exit notes its
own drain in its runtime directory, which it takes back when it exits.

Only `/health` reads the notes, so a drain costs no other request anything, and is known at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

from multisite.config import jsonfile
from multisite.config.model import Home
from multisite.control import serverprocess

PREFIX = "draining-"  # of the file in the home; this machine's name follows
LEAVING = "draining.json"  # in the runtime directory


@dataclass(frozen=True, slots=True)
class Drain:
    """One drain.

    Attributes:
        since: Unix time.
        began: seconds since the boot.
        boot: id of that boot.
        servers: pid of each server that is known to have run then, and the seconds from the boot to its start.
        until: seconds since the boot at which it is over in any case, 0.0 for no such time.
    """

    since: float
    began: float
    boot: str
    servers: tuple[tuple[int, float], ...] = ()
    until: float = 0.0

    def is_of(self, server: int) -> bool:
        """Tell whether the drain holds for a server of this home, which runs."""
        return self._is_on() and (self.found(serverprocess.started(server)) or self._has_servers())

    def holds(self, known: Iterable[int]) -> bool:
        """Tell whether the drain is in force, as whoever is no server sees it.

        Args:
            known: servers of the home that run now; there may be others, which have had no request yet.
        """
        if not self._is_on() or self._has_servers():
            return self._is_on()
        running = list(filter(None, map(serverprocess.started, known)))
        return any(map(self.found, running)) if running else not self.servers

    def found(self, start: float) -> bool:
        """Tell whether a process ran when the drain began; `start` is in seconds since the boot, in whole ticks."""
        return start + serverprocess.TICK <= self.began

    def _is_on(self) -> bool:
        return self.boot == serverprocess.boot() and not 0.0 < self.until <= _now()

    def _has_servers(self) -> bool:
        return any(serverprocess.started(pid) == start for pid, start in self.servers)


def begin(servers: Iterable[int] = (), limit: float = 0.0) -> Drain:
    """Return a drain that begins now.

    Args:
        servers: pids of the servers that are known.
        limit: seconds after which it is over in any case; 0.0 for none.
    """
    found = tuple((pid, start) for pid in sorted(set(servers)) if (start := serverprocess.started(pid)))
    now = _now()
    return Drain(time.time(), now, serverprocess.boot(), found, now + limit if limit else 0.0)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def node() -> str:
    """Return the name of this machine."""
    return socket.gethostname() or "localhost"


def file_of(home: Home) -> str:
    """Return the file of an administrator's drain of `home` on this machine."""
    return os.path.join(home.path, f"{PREFIX}{node().replace(os.sep, '_')}.json")


def leaving_file(runtime_dir: str) -> str:
    """Return the file of the drain of the supervisor that uses a runtime directory."""
    return os.path.join(runtime_dir, LEAVING)


def read(path: str) -> Drain | None:
    """Return the drain that is noted in a file, in force or not; None for none, and for one that cannot be read."""
    try:
        with open(path, "rb") as file:
            told = json.loads(file.read(1 << 20))
        servers = tuple((int(pid), float(start)) for pid, start in told["servers"])
        return Drain(float(told["since"]), float(told["began"]), str(told["boot"]), servers, float(told["until"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def note(path: str, drain: Drain) -> None:
    """Write a drain down.

    Raises:
        OSError: the file cannot be written.
    """
    jsonfile.replace(path, asdict(drain))


def undo(path: str) -> bool:
    """End a drain; tell whether there was a note of one.

    Raises:
        OSError: the file cannot be removed.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def is_draining(home: Home) -> bool:
    """Tell, in a process of a server of `home`, whether it is drained."""
    path = file_of(home)
    found = [(path, read(path)), ("", read(leaving_file(home.runtime_dir)))]
    if not any(drain for _, drain in found):
        return False
    server = serverprocess.server_of(os.getpid())
    for where, drain in found:
        if drain and drain.is_of(server):
            if where:
                _join(where, drain, server)
            return True
    return False


def _join(path: str, drain: Drain, server: int) -> None:
    """Add a server to a drain that began before anything was known of it, if this user may."""
    one = (server, serverprocess.started(server))
    if one not in drain.servers and drain.found(one[1]):
        with contextlib.suppress(OSError):
            if read(path) == drain:
                note(path, replace(drain, servers=(*drain.servers, one)))


def of_home(home: Home, known: Callable[[], Iterable[int]]) -> Drain | None:
    """Return the drain of `home` that is in force on this machine, as whoever is no server sees it; None for none.

    Args:
        known: returns the servers of the home that run now; called if a drain is noted.
    """
    found = [read(file_of(home)), read(leaving_file(home.runtime_dir))]
    return next((drain for drain in found if drain and drain.holds(known())), None)
