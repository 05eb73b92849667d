"""What follows from the end of a process: put away, tried again, given up, or what runs goes on."""

from __future__ import annotations

import contextlib
import signal

from multisite.supervisor import planner
from multisite.supervisor.lifecycle import Event, State
from multisite.supervisor.loop import Loop
from multisite.supervisor.site import deploy
from multisite.supervisor.site.backend import Backend, Exit
from multisite.supervisor.site.backends import HELD, Backends
from multisite.supervisor.site.costs import Costs
from multisite.supervisor.site.deploy import Deploys
from multisite.supervisor.site.failures import TOO_LATE, Failures, Unavailable
from multisite.supervisor.site.queue import WaitQueue
from multisite.supervisor.site.readiness import Readiness

UNASKED = (State.STARTING, State.RUNNING)


class Exits:
    """Decides for the backends of one site."""

    def __init__(
        self,
        backends: Backends,
        failures: Failures,
        room: WaitQueue,
        readiness: Readiness,
        deploys: Deploys,
        costs: Costs,
        loop: Loop,
    ) -> None:
        self._backends, self._failures, self._room, self._loop = backends, failures, room, loop
        self._readiness, self._deploys, self._costs = readiness, deploys, costs

    def take(self, backend: Backend, *, refused: bool = False) -> None:
        """Feed `backend`, which has its `exit`, what has become of it; `refused`: it would fail again and again."""
        if not self._backends.any_in(State.STARTING, besides=backend):
            self._readiness.end()
        self._feed(backend, refused)
        self.settle(backend)
        self._deploys.see()

    def _feed(self, backend: Backend, refused: bool) -> None:
        exit_ = backend.exit
        assert exit_
        if exit_.served and (exit_.state not in UNASKED or _is_planned(backend, exit_)):
            self._failures.end_row()
        if exit_.state not in UNASKED:
            self._end(backend, exit_)
        elif _is_planned(backend, exit_):
            backend.feed(Event.EXITED, "max_requests")
        elif exit_.state is State.STARTING and (backend.obsolete or deploy.is_first(self._backends)):
            self._keep_old(backend, exit_)
        elif exit_.state is State.RUNNING and self._failures.is_proven(exit_):
            self._crashed(backend, exit_)
        else:
            self._failed(backend, exit_, refused)

    def _end(self, backend: Backend, exit_: Exit) -> None:
        """It has ended as it was asked to, or while it was about to."""
        if exit_.state is State.DRAINING and backend.ours and exit_.code not in (0, -signal.SIGTERM):
            self._failures.tell(backend, exit_, self._loop.now())
        backend.feed(Event.EXITED, backend.reason)

    def recycle(self, backend: Backend) -> None:
        """It accepts no more, as it has had its `max_requests`: have another one, while this one answers the rest."""
        may_leave = backend.ours and backend.site.max_requests > 0 and not _is_single_use(backend)
        if may_leave and backend.state is State.RUNNING:
            backend.feed(Event.STOP, "max_requests")
            self._room.want()

    def _crashed(self, backend: Backend, exit_: Exit) -> None:
        """A request has ended the process of a site that can serve: that costs the request, and nobody else waits long.

        The socket stays, and whoever waits there starts the next one.
        """
        self._failures.crashed(backend, exit_, self._loop.now(), self._costs.start_cost)
        backend.feed(Event.EXITED, exit_.reason)

    def _keep_old(self, backend: Backend, exit_: Exit) -> None:
        """The replacement failed: what runs goes on."""
        self._failures.report(backend, exit_, self._loop.now(), serving=True)
        if not backend.obsolete:
            self._failures.replaced_in_vain(backend, self._loop.now())
            self._room.since = None
            deploy.keep_all(self._backends)
        backend.feed(Event.EXITED, exit_.reason)

    def _failed(self, backend: Backend, exit_: Exit, refused: bool) -> None:
        now = self._loop.now()
        delay = self._failures.count(backend, exit_, now)
        self._failures.report(backend, exit_, now)
        self._failures.refused = exit_.reason if refused else ""
        backend.feed(Event.FAILED, exit_.reason, delay)
        if refused or (
            planner.gives_up(self._failures.in_a_row) and exit_.state is State.STARTING and not exit_.lacking
        ):
            backend.feed(Event.GIVE_UP, exit_.reason)
        others = any(one.alive for one in self._backends if one is not backend)
        if (delay or refused) and not others:
            self._room.close(self._failures.unavailable(backend.deadline, now))

    def settle(self, backend: Backend) -> None:
        """Put away a backend that has come to rest."""
        if backend.state is not State.STOPPED:
            return
        if backend in self._backends:
            self._backends.remove(backend)
        if not self._backends and (self._room.listener.is_open or self._failures.in_a_row):
            with contextlib.suppress(Unavailable):
                self._room.ensure(watch=True)

    def reset(self) -> None:
        """Forget all failures."""
        self._failures.reset()
        for backend in [backend for backend in self._backends if backend.state in HELD]:
            backend.feed(Event.RESET)
            self.settle(backend)

    def expire(self, backend: Backend) -> None:
        """A deadline has passed."""
        if backend.state is State.STARTING:
            backend.reason = TOO_LATE
        backend.feed(Event.DEADLINE, backend.reason)
        self.settle(backend)

    def try_once(self, backend: Backend) -> None:
        """Allow one attempt after all."""
        self._failures.try_once()
        backend.feed(Event.RESET)
        self.settle(backend)


def _is_planned(backend: Backend, exit_: Exit) -> bool:
    """Tell whether a process left after its only request, by its runner's word: a site's code may exit with 0, too."""
    return exit_.state is State.RUNNING and exit_.code == 0 and backend.leaves and _is_single_use(backend)


def _is_single_use(backend: Backend) -> bool:
    """Tell whether the next request, and not before, is to start another one."""
    return backend.launch is not None and backend.launch.once
