"""What follows from the end of a process: it is put away, tried again or given up, or the others keep running."""

from __future__ import annotations

import contextlib
import signal
import time

from multisite.logs import past
from multisite.runner import leaseguard
from multisite.supervisor import planner
from multisite.supervisor.lifecycle import Event, State
from multisite.supervisor.site import deploy
from multisite.supervisor.site.backend import Backend, Exit
from multisite.supervisor.site.backends import HELD
from multisite.supervisor.site.failures import TOO_LATE, Unavailable
from multisite.supervisor.site.parts import SiteParts

ANOTHERS = "the site has another user, group or chroot now"
IN_THE_WORKERS = "the site runs in the workers"
UNASKED = (State.STARTING, State.RUNNING)


def heed(supervised: SiteParts, backend: Backend, *, refused: bool = False) -> None:
    """Feed `backend`, which has its `exit`, the event that follows; `refused`: it would fail again and again."""
    if not supervised.backends.any_in(State.STARTING, besides=backend):
        supervised.readiness.end()
    _count(supervised, backend)
    _feed(supervised, backend, refused)
    if backend.exit and backend.exit.state is State.STARTING:
        write_down(supervised, backend)
    settle(supervised, backend)
    supervised.deploys.see()


def write_down(supervised: SiteParts, backend: Backend) -> None:
    """Write down its start, which is over, for those who look later."""
    journey = backend.journey
    if backend.kind:
        begun = time.time() - (supervised.loop.now() - journey.begun)
        how = {"way": journey.way, "failure": journey.failure, "incident": journey.incident}
        past.started(supervised.site.name, backend.kind, begun, journey.steps, **how)


def _count(supervised: SiteParts, backend: Backend) -> None:
    """Count the end of a process, or of an attempt to start one, by its cause."""
    exit_ = backend.exit
    assert exit_
    if exit_.state is State.STARTING:
        supervised.costs.failed()
    elif exit_.state is State.RUNNING:
        supervised.costs.stopped("max_requests" if _is_planned(backend, exit_) else "crash")
    else:
        supervised.costs.stopped({ANOTHERS: "owner", IN_THE_WORKERS: "moved"}.get(backend.reason, backend.reason))


def _feed(supervised: SiteParts, backend: Backend, refused: bool) -> None:
    exit_, failures, now = backend.exit, supervised.failures, supervised.loop.now()
    assert exit_
    if exit_.served and (exit_.state not in UNASKED or _is_planned(backend, exit_)):
        failures.end_row()
    if exit_.state not in UNASKED:  # it ended as it was asked to, or just before
        if exit_.state is State.DRAINING and backend.ours and exit_.code not in (0, -signal.SIGTERM, leaseguard.LOST):
            failures.tell(backend, exit_, now)
        backend.feed(Event.EXITED, backend.reason)
    elif _is_planned(backend, exit_):
        backend.feed(Event.EXITED, "max_requests")
    elif exit_.state is State.STARTING and (backend.obsolete or deploy.is_first(supervised.backends)):
        _keep_old(supervised, backend, exit_)
    elif exit_.state is State.STARTING and supervised.deploys.is_trial:
        _end_trial(supervised, backend, exit_)
    elif exit_.state is State.RUNNING and failures.is_proven(exit_):
        # A request has ended it: that costs the request, and no other waits long. The socket stays, and a request that
        # waits there starts the next one.
        failures.crashed(backend, exit_, now, supervised.costs.start_cost)
        backend.feed(Event.EXITED, exit_.reason)
    else:
        _fail(supervised, backend, exit_, refused)


def recycle(supervised: SiteParts, backend: Backend) -> None:
    """It accepts no more after its `max_requests`: start another one, while this one answers the rest."""
    may_leave = backend.ours and backend.site.max_requests > 0 and not _is_single_use(backend)
    if may_leave and backend.state is State.RUNNING:
        backend.feed(Event.STOP, "max_requests")
        supervised.queue.want()


def _keep_old(supervised: SiteParts, backend: Backend, exit_: Exit) -> None:
    """The replacement failed: the running processes stay."""
    now = supervised.loop.now()
    supervised.failures.report(backend, exit_, now, serving=True)
    if not backend.obsolete:
        supervised.failures.replaced_in_vain(backend, now)
        supervised.queue.since = None
        deploy.keep_all(supervised.backends)
    backend.feed(Event.EXITED, exit_.reason)


def _end_trial(supervised: SiteParts, backend: Backend, exit_: Exit) -> None:
    """A requested start failed: it was one attempt, and the next request that waits makes the next."""
    supervised.failures.report(backend, exit_, supervised.loop.now())
    supervised.deploys.give_up(backend.journey.failure)
    if not any(one.alive for one in supervised.backends if one is not backend):
        supervised.queue.forget_gone()  # our own probe of a silent server would start another one
    backend.feed(Event.EXITED, exit_.reason)


def _fail(supervised: SiteParts, backend: Backend, exit_: Exit, refused: bool) -> None:
    now, failures = supervised.loop.now(), supervised.failures
    delay = failures.count(backend, exit_, now)
    is_start = exit_.state is State.STARTING and not refused
    failures.fail(backend, exit_, now, is_retried=is_start and not delay and supervised.queue.is_waited_in)
    failures.refused = exit_.reason if refused else ""
    backend.feed(Event.FAILED, exit_.reason, delay)
    if refused or (planner.gives_up(failures.in_a_row) and exit_.state is State.STARTING and not exit_.lacking):
        backend.feed(Event.GIVE_UP, exit_.reason)
    others = any(one.alive for one in supervised.backends if one is not backend)
    if (delay or refused) and not others:
        supervised.queue.close(failures.unavailable(backend.deadline, now))
    failures.announce(exit_, backend.state.value, loops=delay > 0)


def settle(supervised: SiteParts, backend: Backend) -> None:
    """Put away a backend that has come to rest."""
    backends = supervised.backends
    if backend.state is not State.STOPPED:
        return
    if backend in backends:
        backends.remove(backend)
    if not backends and (supervised.listener.is_open or supervised.failures.in_a_row):
        with contextlib.suppress(Unavailable):
            supervised.queue.ensure(watch=True)


def reset(supervised: SiteParts) -> None:
    """Forget all failures."""
    supervised.failures.reset()
    for backend in [backend for backend in supervised.backends if backend.state in HELD]:
        backend.feed(Event.RESET)
        settle(supervised, backend)


def expire(supervised: SiteParts, backend: Backend) -> None:
    """Handle a deadline that has passed."""
    if backend.state is State.STARTING:
        backend.reason = TOO_LATE
    backend.feed(Event.DEADLINE, backend.reason)
    settle(supervised, backend)


def try_once(supervised: SiteParts, backend: Backend) -> None:
    """Allow one more attempt."""
    supervised.failures.in_a_row = planner.GIVE_UP_AFTER - 1
    backend.feed(Event.RESET)
    settle(supervised, backend)


def _is_planned(backend: Backend, exit_: Exit) -> bool:
    """Tell whether a process exited after its only request, as it reported: a site's code may exit with 0, too."""
    return exit_.state is State.RUNNING and exit_.code == 0 and backend.leaves and _is_single_use(backend)


def _is_single_use(backend: Backend) -> bool:
    """Tell whether the next request, and nothing before it, should start another one."""
    return backend.launch is not None and backend.launch.once
