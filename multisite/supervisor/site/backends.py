"""The backends of one site, as a list with questions."""

from __future__ import annotations

from multisite.supervisor.lifecycle import State
from multisite.supervisor.site.backend import Backend

HELD = (State.BACKOFF, State.FATAL)
_BEST_FIRST = (State.RUNNING, State.STARTING, State.DRAINING, State.STOPPING, *reversed(HELD), State.STOPPED)


class Backends(list[Backend]):
    """Any number of backends on one socket."""

    @property
    def state(self) -> State:
        """The state of the site as a whole: that of its best backend."""
        states = {backend.state for backend in self}
        return next((state for state in _BEST_FIRST if state in states), State.STOPPED)

    @property
    def pids(self) -> list[int]:
        """The processes that they own."""
        return [backend.pid for backend in self if backend.pid]

    @property
    def alive(self) -> list[Backend]:
        """Those that own a process."""
        return [backend for backend in self if backend.alive]

    @property
    def lasting(self) -> list[Backend]:
        """Those that own a process, are not ending, and need no replacement."""
        return [backend for backend in self.alive if not backend.leaving and not backend.obsolete]

    @property
    def serving_since(self) -> list[float]:
        """Monotonic seconds at which each one that owns a process became ready."""
        return [backend.started for backend in self if backend.alive and backend.started]

    @property
    def deadline(self) -> float | None:
        """The next deadline of any, in monotonic seconds."""
        return min((backend.deadline for backend in self if backend.deadline is not None), default=None)

    @property
    def free_slot(self) -> int:
        """The first free place."""
        used = {backend.slot for backend in self}
        return next(number for number in range(len(used) + 1) if number not in used)

    def of(self, pid: int) -> Backend | None:
        """Return the one whose process is `pid`."""
        return next((backend for backend in self if backend.pid == pid), None) if pid else None

    def any_in(self, *states: State, besides: Backend | None = None) -> bool:
        """Tell whether any, or any except `besides`, is in one of the states."""
        return any(backend.state in states for backend in self if backend is not besides)

    def read_forks(self) -> None:
        """Note the processes that preloaders have made."""
        for backend in list(self):
            backend.read_fork()

    def end_forks(self) -> None:
        """Stop waiting for preloaders."""
        for backend in list(self):
            backend.end_fork()

    def kill(self) -> None:
        """End all processes at once."""
        for backend in self:
            backend.kill()
