"""When a server that reports nothing counts as ready."""

from __future__ import annotations

import contextlib
import socket

from multisite.supervisor.lifecycle import State
from multisite.supervisor.loop import Loop
from multisite.supervisor.process.kernel import Connections
from multisite.supervisor.reexec import Handed
from multisite.supervisor.site.backend import Backend
from multisite.supervisor.site.backends import Backends
from multisite.supervisor.site.costs import Costs

SETTLED_AFTER = 1.0  # seconds after which a silent server beside its predecessor counts as ready
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.25  # seconds between two looks


class Readiness(Handed):
    """Watches the silent servers among `backends`, on the socket at `path`.

    A connection to it that no longer waits shows that a server accepts. If a predecessor accepts as well, that shows
    nothing; then the new one is ready once it has lasted.
    """

    ANEW = ("_path", "_backends", "_costs", "_loop", "_probe", "_pause", "_at")  # `expect` begins again

    def __init__(self, path: str, backends: Backends, costs: Costs, loop: Loop) -> None:
        self._path, self._backends, self._costs, self._loop = path, backends, costs, loop
        self._probe: socket.socket | None = None
        self._pause = FIRST_PAUSE
        self._at = 0.0

    def expect(self, backend: Backend) -> None:
        """From now on, find out when `backend`, which has just been started, is ready."""
        now, others = self._loop.now(), [one for one in self._backends if one is not backend]
        if any(one.state in (State.RUNNING, State.DRAINING) or one.obsolete for one in others):
            lasting = max(SETTLED_AFTER, 2 * self._costs.start_cost)
            backend.ready_at = now + min(lasting, backend.site.start_timeout * 0.9)
        else:
            self._connect(now)

    def _connect(self, now: float) -> None:
        self.end()
        self._probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with contextlib.suppress(OSError):  # the queue is full, so there is something to accept in any case
            self._probe.connect(self._path)
        self._pause = FIRST_PAUSE
        self._at = now + self._pause

    def end(self) -> None:
        """Hang up: no server is expected any more."""
        if self._probe:
            self._probe.close()
            self._probe = None

    def check_due(self, now: float, connected: Connections) -> list[Backend]:
        """Return the backends that are ready now."""
        starting = [backend for backend in self._backends if backend.state is State.STARTING]
        ready = [backend for backend in starting if backend.ready_at and now >= backend.ready_at]
        if self._is_accepted(now, connected):
            self.end()
            ready += [one for one in starting if not (one.ready_at or one.told or one.on_trial)]
        return ready

    def _is_accepted(self, now: float, connected: Connections) -> bool:
        if not self._probe or now < self._at:
            return False
        self._pause = min(LONGEST_PAUSE, self._pause * 1.4)
        self._at = now + self._pause
        return bool(connected.open or not connected.waiting)

    @property
    def next_look(self) -> float | None:
        """Monotonic seconds of the next look at a silent server, or None."""
        looks = [one.ready_at for one in self._backends if one.state is State.STARTING and one.ready_at]
        return min([*looks, *([self._at] if self._probe else [])], default=None)
