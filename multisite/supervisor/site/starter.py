"""Starts the backends of one site: plans, prepares, forks or spawns them, and listens to them until they serve."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from functools import partial

from multisite.config.policies import Refused
from multisite.logs import incidents, past
from multisite.supervisor import planner
from multisite.supervisor.lifecycle import Event, State
from multisite.supervisor.notify import Said
from multisite.supervisor.process import launch
from multisite.supervisor.process.kernel import Connections
from multisite.supervisor.process.spec import Given, Launch, Surroundings
from multisite.supervisor.site import exits
from multisite.supervisor.site.backend import Backend
from multisite.supervisor.site.exits import ANOTHERS
from multisite.supervisor.site.parts import SiteParts

MOST_LESSONS = 4  # of one process; each costs us milliseconds
LONGEST_REQUEST = 86400.0  # seconds, of a request that a process reports as slow
MOST_REPORTS = 8  # of one process about its examination
_LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC)


def new_backend(supervised: SiteParts, slot: int, serial: int = 0) -> Backend:
    """Return a new backend, or the one that had the number `serial` before, at the place `slot`."""
    context = supervised.context
    tell, notified = partial(supervised.logger.info, "%s"), partial(_notified, supervised)
    backend = Backend(supervised.site, slot, serial or context.next_serial(), context.loop, tell, notified)
    backend.answered_before = supervised.scoreboard.answered(slot)
    return backend


def add(supervised: SiteParts, backend: Backend) -> None:
    """Add a backend to the site."""
    supervised.backends.append(backend)
    supervised.journey = backend.journey


def start(supervised: SiteParts, kind: str) -> None:
    """Start one more backend; `kind` is why (`multisite.sites.tally.KINDS`)."""
    backend = new_backend(supervised, supervised.backends.free_slot)
    backend.kind = kind
    add(supervised, backend)
    backend.feed(Event.WANTED)
    backend.journey.enter("prepare", backend.since)
    try:
        how = plan(supervised, backend.slot, backend.serial, smoke=supervised.deploys.needs_smoke)
        belong(supervised, how)
        given = _given(supervised, backend, how)
        lost = partial(_lost, supervised, backend)
        if not backend.fork(how, given, supervised.log, supervised.context.preloaders, lost):
            backend.spawn(how, given, supervised.context.limits, supervised.log)
    except Refused as error:
        _refuse(supervised, backend, str(error))
    except OSError as error:
        _cannot_spawn(supervised, backend, error)
    else:
        for note in how.notes:
            supervised.logger.info("%s", note)
        if not how.told and not how.tried:
            supervised.readiness.expect(backend)


def plan(supervised: SiteParts, slot: int, serial: int, *, smoke: bool = False) -> Launch:
    """Decide how to start the backend `serial` at the place `slot`, by the site's file as it is now.

    `smoke`: it must answer the site's smoke request before any other.

    Raises:
        Refused: it cannot be started that way.
    """
    site, home, context = supervised.site, supervised.home, supervised.context
    around = Surroundings(
        environ=os.environ,
        notify=context.rundir.notify(serial),
        private=context.rundir.private(site.name),
        mark=context.mark_of(site.name, serial),
        slot=slot,
        examine=context.examining.wanted(site, home) if context.examining else "",
        smoke=smoke,
        head_limits=context.servers.head_limits,
        fence=supervised.lease.number,
        warning=context.leases.warning if context.leases else 0.0,
    )
    return launch.plan(site, home, around)


def _given(supervised: SiteParts, backend: Backend, how: Launch) -> Given:
    """Open everything that the process receives; its channel is made together with it.

    Raises:
        OSError: something cannot be opened.
    """
    if launch.needs_private(supervised.site):
        supervised.context.rundir.give(supervised.site.name, how.identity.uid, how.identity.gid)
    board = supervised.scoreboard.make(backend.slot) if how.job else -1
    return Given(supervised.queue.open(), board=board, fence=supervised.lease.shown)


def _lost(supervised: SiteParts, backend: Backend) -> None:
    """Start the process plainly, because a preloader did not make it."""
    how = backend.launch
    if backend.state is not State.STARTING or not how:
        backend.cannot_spawn(backend.reason)
        exits.heed(supervised, backend)
        return
    try:
        backend.spawn(how, _given(supervised, backend, how), supervised.context.limits, supervised.log)
    except OSError as error:
        _cannot_spawn(supervised, backend, error)


def _cannot_spawn(supervised: SiteParts, backend: Backend, error: OSError) -> None:
    reason = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    backend.cannot_spawn(reason, lacking=error.errno in _LACKING)
    exits.heed(supervised, backend)


def _refuse(supervised: SiteParts, backend: Backend, reason: str) -> None:
    backend.cannot_spawn(reason)
    exits.heed(supervised, backend, refused=True)


def check(supervised: SiteParts) -> None:
    """Enter FATAL if the site could not be started as its file is, and leave FATAL if it could."""
    refused, reason = supervised.failures.refused, ""
    try:
        plan(supervised, 0, supervised.context.serial)
    except Refused as error:
        reason = str(error)
    if reason != refused:
        exits.reset(supervised)
    if reason and reason != refused:
        supervised.backends[:] = supervised.backends.alive
        backend = new_backend(supervised, 0)
        supervised.backends.append(backend)
        backend.feed(Event.WANTED)
        _refuse(supervised, backend, reason)


# Whose the site is


def belong(supervised: SiteParts, how: Launch) -> None:
    """Give the site to the user that `how` names; its former owner loses it."""
    if supervised.queue.owner not in ("", how.owner):
        _change_hands(supervised)
    supervised.queue.owner = how.owner


def _change_hands(supervised: SiteParts) -> None:
    """Part with all processes, and with their socket and scoreboard.

    They finish what they have begun. Requests that wait for them are asked to come again.
    """
    supervised.logger.warning("MS565 %s: its processes end, and it gets a new socket and scoreboard", ANOTHERS)
    supervised.readiness.end()
    for backend in [one for one in supervised.backends if one.child or one.is_unborn]:
        backend.feed(Event.STOP, ANOTHERS)
    supervised.queue.renew(watch=False, reason=ANOTHERS)
    supervised.costs.settle(supervised.figures())
    supervised.scoreboard.close()
    for backend in supervised.backends:
        backend.answered_before = 0


# From a started process to a serving one


def _notified(supervised: SiteParts, backend: Backend, variables: Said) -> None:
    """Handle what a process reports about itself (sd_notify(3)), with a bound on its modules and findings."""
    context, how = supervised.context, backend.launch
    if "MODULES" in variables and how and backend.lessons < MOST_LESSONS:
        backend.lessons += 1
        context.preloaders.learn(how, variables["MODULES"])
    examines = how.examine if how and backend.state is State.RUNNING else ""
    if "FACTS" in variables and examines and context.examining and backend.reports < MOST_REPORTS:
        backend.reports += 1
        context.examining.take_facts(supervised.site, examines, variables["FACTS"])
    if variables.get("RECYCLES") == "1":
        exits.recycle(supervised, backend)
    if variables.get("LEAVES") == "1":
        backend.leaves = True
    if variables.get("HUNG") == "1" and backend.ours:
        backend.hung = variables.get("STATUS", "")[:1000]
    if "SLOW" in variables and backend.ours:
        _write_slow(supervised.site.name, variables["SLOW"])
    if "INCIDENT" in variables and backend.ours:
        incidents.told(supervised.site.name, variables["INCIDENT"])
    if "BUSY" in variables:
        backend.is_busy = variables["BUSY"] == "1"
        supervised.work.done(supervised.loop.now())
    if backend.state is State.STARTING:
        backend.told_of_start(variables)
        if variables.get("READY") == "1":
            serve(supervised, backend)
        elif variables.get("TRIED") == "1" and backend.on_trial and not backend.told:
            backend.on_trial = False
            supervised.readiness.expect(backend)


def _write_slow(site: str, told: str) -> None:
    """Write down a slow request that no worker has seen; a site can report anything."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        method, path, status, seconds = json.loads(told)
        spent = min(max(0.0, float(seconds)), LONGEST_REQUEST)
        past.was_slow(site, str(method)[:20], str(path), int(status) % 1000, spent, (None, None, spent))


def serve_ready(supervised: SiteParts, now: float, connected: Connections) -> None:
    """Mark silent processes that are ready now as serving."""
    for backend in supervised.readiness.check_due(now, connected):
        serve(supervised, backend)


def serve(supervised: SiteParts, backend: Backend) -> None:
    """Mark a process that is ready as serving."""
    now = supervised.loop.now()
    backend.feed(Event.READY, f"ready after {now - backend.journey.begun:.3f} s")
    supervised.activity.used(now)
    supervised.failures.ready(backend.journey)
    supervised.costs.ready(backend.journey.duration)
    exits.write_down(supervised, backend)
    supervised.deploys.ready(launch.backends(supervised.site))
    if backend.launch:
        supervised.context.preloaders.served(backend.launch)


def has_answered(supervised: SiteParts, backend: Backend) -> bool:
    """Tell whether a backend has answered a request; a server that does not count has, once it has lasted."""
    if backend.ours:
        return supervised.scoreboard.answered(backend.slot) > backend.answered_before
    return bool(backend.started) and supervised.loop.now() - backend.started >= planner.ANSWERED_AFTER
