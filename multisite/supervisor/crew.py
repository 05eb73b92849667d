"""The backends of one site, and the listening socket that outlives them."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Mapping

from multisite import logs
from multisite.model import Home, Site
from multisite.sitedir import Stamp
from multisite.supervisor import draining, launch, planner, process, replacement
from multisite.supervisor.activity import Activity
from multisite.supervisor.backend import Backend
from multisite.supervisor.backends import Backends
from multisite.supervisor.connections import Connections, connections
from multisite.supervisor.deploy import FAILED, TRYING, Deploy
from multisite.supervisor.exits import Exits
from multisite.supervisor.failures import Failures, Unavailable
from multisite.supervisor.handover import Keeper
from multisite.supervisor.handover import State as Packed
from multisite.supervisor.journey import Journey
from multisite.supervisor.launcher import Launcher
from multisite.supervisor.lifecycle import Event, State
from multisite.supervisor.listener import Listener
from multisite.supervisor.output import SiteLog
from multisite.supervisor.privilege import Refused
from multisite.supervisor.process import Launch
from multisite.supervisor.readiness import Readiness
from multisite.supervisor.scoreboard import Figures, Scoreboard
from multisite.supervisor.shared import Shared
from multisite.supervisor.waiting import WaitingRoom
from multisite.tally import Tally

NO_CONNECTIONS = Connections()
MOST_LESSONS = 4  # of one process; each costs us milliseconds
MOST_REPORTS = 8  # of one process about its examination
_LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC)
_PACKED = ("starts", "cold_starts", "first_start", "cpu", "alive", "start_cost", "size")


class Crew:
    """One spawned site: from one to many backends on one listening socket.

    Attributes:
        stamp: of the version of its site that it has.
        journey: of the last start.
        starts: how many there have been; cold_starts: how many of them because somebody waited while nothing ran.
        first_start: Unix time; 0.0: never.
        cpu, alive: seconds of processor time and of service of the processes that have ended.
        start_cost: seconds that the last one took.
        size: bytes that one of its processes used when that was measured last; 0: never.
        is_put_to_rest: somebody has stopped it, and nobody has asked for it since.
        is_due: it is to run although nobody has asked for it (`multisite.supervisor.warming`).
        deploy: the last attempt to have another version serve.
        is_followed: an older version serves in the workers, until this one has shown that it is good.
    """

    def __init__(self, site: Site, home: Home, domains: tuple[str, ...], stamp: Stamp, shared: Shared) -> None:
        self.site, self.home, self.domains, self.stamp = site, home, domains, stamp
        self.backends = Backends()
        self.journey: Journey | None = None
        self.starts = self.cold_starts = 0
        self.first_start = self.cpu = self.alive = 0.0
        self._is_asked_for = False
        self.start_cost = 0.0
        self.size = 0
        self.is_due = self.is_put_to_rest = self.is_followed = False
        self.deploy = Deploy()
        self._shared, self._loop = shared, shared.loop
        self._logger = logs.site_logger(site.name)
        self.failures = Failures(site.name, shared.notes, self._logger)
        self.activity = Activity(self._loop.now())
        link = "uwsgi.sock" if site.protocol == "uwsgi" else "http.sock"
        self.listener = Listener(shared.rundir.socket(site.name), shared.rundir, link)
        self.room = WaitingRoom(self.listener, self._loop, self._logger, self.want)
        self.room.backlog, self.room.domains = site.max_waiting, domains
        self.room.takes_clients = site.is_ours
        self.log = SiteLog(site)
        self.scoreboard = Scoreboard(shared.rundir.board(site.name))
        self._launcher = Launcher(site, home, shared, self.scoreboard)
        self._readiness = Readiness(self.listener.path)
        self._exits = Exits(self.backends, self.failures, self.room, self._loop)

    def __repr__(self) -> str:
        return f"<Crew {self.site.name} {self.state.name} {len(self.pids)} processes>"

    def pack(self, keep: Keeper) -> Packed:
        """Return what `take_over` takes."""
        return {
            **{name: getattr(self, name) for name in _PACKED},
            "stamp": self.stamp,
            "wanted_since": self.room.since,
            "journey": self.journey.pack() if self.journey else None,
            "deploy": self.deploy.as_dict(),
            "failures": self.failures.pack(),
            "activity": self.activity.pack(),
            "listener": self.listener.pack(keep),
            "scoreboard": self.scoreboard.pack(keep),
            "backends": [[one.slot, one.serial, one.pack(keep)] for one in self.backends],
        }

    def take_over(self, state: Packed) -> None:
        """Go on where another program was."""
        for name in _PACKED:
            setattr(self, name, state.get(name, getattr(self, name)))
        self.deploy = Deploy(**state.get("deploy", {}))
        self.failures.take_over(state["failures"])
        self.activity.take_over(state["activity"])
        self.listener.take_over(state["listener"])
        self.scoreboard.take_over(state["scoreboard"])
        self.room.since = state["wanted_since"]
        self.journey = Journey.taken_over(state["journey"]) if state["journey"] else None
        for slot, serial, packed in state["backends"]:
            backend = Backend(self.site, slot, serial, self._loop, self._say)
            backend.take_over(packed, self.log)
            self.backends.append(backend)
            self.journey = backend.journey  # the last that was started
            if backend.state is State.STARTING and not backend.told and not backend.ready_at:
                self._readiness.expect(backend, self.backends[:-1], self._loop.now(), self.start_cost)
        if self.listener.is_open and not self.backends:
            with contextlib.suppress(Unavailable):
                self.room.ensure(watch=True)

    # As others see it

    @property
    def state(self) -> State:
        """The state of the site as a whole: that of its best backend."""
        return self.backends.state

    @property
    def pids(self) -> list[int]:
        """The processes that it owns."""
        return self.backends.pids

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to watch: a process, a deadline or somebody who waits."""
        return bool(self.backends) or self.is_waiting

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits for a process that has not been started."""
        return self.room.since is not None

    def figures(self) -> Figures:
        """Return what the site's own processes count, where they do."""
        return self.scoreboard.read(self.pids)

    def tally(self, wall: float, cpu: float | None = None) -> Tally:
        """Return what the site has used since this crew was made.

        Args:
            wall: Unix seconds now.
            cpu: seconds of its living processes, where that is known; else they are asked, without their children.
        """
        now, figures = self._loop.now(), self.figures()
        living = sum(map(process.cpu, self.pids)) if cpu is None else cpu
        return Tally(
            self.starts,
            self.cold_starts,
            figures.requests,
            figures.errors,
            figures.busy,
            figures.received,
            figures.sent,
            self.cpu + living,
            self.alive + sum(now - since for since in self.backends.serving_since),
            self.first_start,
            wall - (now - self.activity.last_use) if self.starts else 0.0,
            figures.latencies,
        )

    def look_at_use(self, now: float, connected: Connections) -> int:
        """Note whether the site is used; returns how many requests and connections are."""
        figures = self.figures()
        begun = max(self.backends.serving_since, default=now)
        self.activity.asked_at(figures.last_use if figures.last_use > begun else 0.0)
        busy = connected.waiting + (connected.open if figures.in_flight is None else figures.in_flight)
        if figures.in_flight is None and (self.site.ignore_activity or self.site.ignore_agents):
            self.activity.look(now, 0, figures, self.listener.last_mark())
        else:
            self.activity.look(now, busy - figures.quiet, figures, self.listener.last_use())
        return busy

    def connected(self) -> Connections:
        """Ask the kernel for this site's connections now."""
        return connections(os.path.dirname(self.listener.path)).get(self.listener.path, NO_CONNECTIONS)

    def needs_connections(self, now: float) -> bool:
        """Tell whether what is to be done now depends on what the kernel knows of the connections."""
        due = self.activity.last_use + self.site.idle_timeout if self.site.idle_timeout else None
        idle = due is not None and now >= due and self.state is State.RUNNING
        return idle or self.next_look is not None or self.backends.any_in(State.DRAINING)

    # The listening socket

    def ensure(self) -> str:
        """Have the socket there; returns its path.

        Raises:
            Unavailable: no process can be had before some time has passed or something has changed.
        """
        if not self.pids:
            self._check_plan()
        if self.state is State.FATAL or (self.state is State.BACKOFF and self.failures.in_a_row > 1):
            raise self.failures.unavailable(self.backends.deadline, self._loop.now())
        self.room.ensure(watch=not self.backends)
        return self.listener.path

    def _check_plan(self) -> None:
        """Enter FATAL where the site could not be started as its file says, and leave it when it could."""
        try:
            self._launcher.plan(0, self._shared.serial)
        except Refused as error:
            if self.failures.refused != str(error):
                self.reset()
                self._give_up(str(error))
        else:
            if self.failures.refused:
                self.reset()

    def want(self) -> None:
        """Note that somebody waits."""
        self._is_asked_for = True
        self.is_put_to_rest = False
        self.activity.asked_at(self._loop.now())
        self.room.want()
        self.activity.used(self._loop.now())

    # Starting

    def start(self, count: int) -> None:
        """Start `count` more backends."""
        self.cold_starts += self._is_asked_for and not self.backends.alive
        self._is_asked_for = False
        self.room.served()
        for _ in range(count):
            self._start_one()

    def _start_one(self) -> None:
        backend = self._new_backend()
        self.starts += 1
        self.first_start = self.first_start or time.time()
        try:
            how = self._launcher.plan(backend.slot, backend.serial, smoke=self._needs_smoke)
            self._launcher.prepare(how, backend.slot)
            self._make(backend, how)
        except Refused as error:
            backend.cannot_spawn(str(error))
            self._ended(backend, refused=True)
        except OSError as error:
            self._cannot_spawn(backend, error)
        else:
            for note in how.notes:
                self._say(note)
            if not how.told and not how.tried:
                self._readiness.expect(backend, self.backends, self._loop.now(), self.start_cost)

    @property
    def _needs_smoke(self) -> bool:
        """Whether what starts now has to show that it is good: there is something better, or its version failed."""
        return self.backends.any_in(State.RUNNING) or self.is_followed or self.deploy.state in (TRYING, FAILED)

    def _make(self, backend: Backend, how: Launch) -> None:
        """Have a preloader make the process, or make it ourselves.

        Raises:
            OSError: it cannot be made.
        """
        self.room.open()
        listener, preloaders = self.listener.fileno(), self._shared.preloaders
        if not backend.fork(how, listener, self.log, preloaders, lambda: self._lost(backend)):
            backend.spawn(how, listener, self._shared.limits, self.log)

    def _lost(self, backend: Backend) -> None:
        """A preloader has not made the process."""
        if backend.state is not State.STARTING or not backend.launch:
            backend.cannot_spawn(backend.reason)
            self._ended(backend)
            return
        try:
            self.room.open()
            backend.spawn(backend.launch, self.listener.fileno(), self._shared.limits, self.log)
        except OSError as error:
            self._cannot_spawn(backend, error)

    def _cannot_spawn(self, backend: Backend, error: OSError) -> None:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
        backend.cannot_spawn(reason, lacking=error.errno in _LACKING)
        self._ended(backend)

    def _new_backend(self) -> Backend:
        backend = Backend(self.site, self.backends.free_slot, self._shared.next_serial(), self._loop, self._say)
        self.backends.append(backend)
        self.journey = backend.journey
        backend.feed(Event.WANTED)
        backend.journey.enter("prepare", self._loop.now())
        return backend

    def told(self, pid: int, variables: dict[str, str]) -> None:
        """Take note of what the process `pid`, or one of its session, says (sd_notify(3))."""
        backend = self.backends.of(pid)
        if backend and backend.launch and "MODULES" in variables and backend.lessons < MOST_LESSONS:
            backend.lessons += 1
            self._shared.preloaders.learn(backend.launch, variables["MODULES"])
        if backend and backend.state is State.RUNNING and "FACTS" in variables:
            self._hear_facts(backend, variables["FACTS"])
        if backend and backend.state is State.STARTING:
            backend.status = variables.get("STATUS", backend.status)[:1000]
            if variables.get("READY") == "1":
                self._is_ready(backend)
            elif variables.get("TRIED") == "1" and backend.on_trial and not backend.told:
                backend.on_trial = False
                others = [one for one in self.backends if one is not backend]
                self._readiness.expect(backend, others, self._loop.now(), self.start_cost)

    def _hear_facts(self, backend: Backend, told: str) -> None:
        """Take note of what a process has found out about its site; it does not speak without end."""
        if backend.launch and backend.launch.examine and self._shared.placing and backend.reports < MOST_REPORTS:
            backend.reports += 1
            self._shared.placing.take(self.site, backend.launch.examine, told)

    def _is_ready(self, backend: Backend) -> None:
        now = self._loop.now()
        backend.feed(Event.READY, f"ready after {now - backend.journey.begun:.3f} s")
        self.activity.used(now)
        self.is_followed = False
        self.failures.ready(backend.journey)
        self.start_cost = backend.journey.duration
        replacement.relieve(self.backends, launch.backends(self.site))
        if self.deploy.state == FAILED and not self.failures.replacement:
            self.deploy = self.deploy.done()
        self._see_deploy()
        if backend.launch:
            self._shared.preloaders.served(backend.launch)

    def hear(self) -> None:
        """Take note of the processes that preloaders have made for it."""
        for backend in list(self.backends):
            backend.hear()

    def end_births(self) -> None:
        """Wait for no preloader any longer."""
        for backend in list(self.backends):
            backend.end_birth()

    @property
    def next_look(self) -> float | None:
        """Monotonic seconds of the next look at a silent server, or None."""
        return self._readiness.next_look(self.backends)

    # Ending

    def stop(self, reason: str) -> None:
        """Have all backends end; requests in flight are finished."""
        self.is_put_to_rest = reason == "asked"
        self.room.since = None
        if self.is_put_to_rest:
            self._put_to_rest()
        for backend in list(self.backends):
            backend.feed(Event.STOP, reason)
            if backend.state is State.DRAINING:
                draining.end_if_drained(backend, self.connected(), self.connected)
            self._exits.settle(backend)

    def _put_to_rest(self) -> None:
        """Somebody stops it: whoever waits while none serves, our own probe among them, is not to start it again."""
        self.failures.end_row()
        now = self._loop.now()
        for backend in self._readiness.look(self.backends, max(now, self.next_look or now), self.connected()):
            self._is_ready(backend)
        self._readiness.end()
        if not self.backends.any_in(State.RUNNING, State.DRAINING):
            self.room.renew(watch=not self.backends)

    def replace(self, reason: str) -> None:
        """Have new backends beside the running ones, which end when the new ones are ready."""
        self.reset()
        self.is_put_to_rest = False
        if replacement.mark_all(self.backends, reason):
            self.deploy = self.deploy.next(reason)
            self.room.want()

    def _see_deploy(self) -> None:
        """Note what has become of the new version."""
        if self.failures.replacement:
            self.deploy = self.deploy.failed(self.failures.replacement)
        elif self.failures.last and self.failures.in_a_row > 1:
            self.deploy = self.deploy.seen(self.backends, self.failures.last.failure)
        else:
            self.deploy = self.deploy.seen(self.backends, "")

    def weigh(self, sizes: Mapping[int, int]) -> None:
        """Note how many bytes each process uses, and replace those above the site's memory_limit."""
        for backend in self.backends:
            backend.memory = sizes.get(backend.pid, 0)
        self.size = max((one.memory for one in self.backends if one.state is State.RUNNING), default=0) or self.size
        if replacement.mark_large(self.backends, self.site.memory_limit, self._logger):
            self.room.want()

    def reset(self) -> None:
        """Forget all failures."""
        self._exits.reset()

    def ended(self, pid: int, status: int, spent: float) -> Backend | None:
        """Take note of the end of a process; returns the backend that it was, None if it is none of ours."""
        backend = self.backends.of(pid)
        if backend:
            self.cpu += spent
            self.alive += backend.ended(status).served
            self._ended(backend)
        return backend

    def _ended(self, backend: Backend, *, refused: bool = False) -> None:
        if not self.backends.any_in(State.STARTING, besides=backend):
            self._readiness.end()
        self._exits.take(backend, refused=refused)
        self._see_deploy()

    def _give_up(self, reason: str) -> None:
        """Enter FATAL for what is known without a start."""
        self.backends[:] = [backend for backend in self.backends if backend.alive]
        backend = Backend(self.site, 0, self._shared.next_serial(), self._loop, self._say)
        self.backends.append(backend)
        backend.feed(Event.WANTED)
        backend.cannot_spawn(reason)
        self._ended(backend, refused=True)

    # Time

    def tick(self, now: float, connected: Connections) -> None:
        """Do what is due."""
        for backend in self._readiness.look(self.backends, now, connected):
            self._is_ready(backend)
        for backend in list(self.backends):
            backend.resume_output(now)
            draining.end_if_drained(backend, connected, self.connected)
            overdue = backend.end_birth(now)
            if overdue:
                self._shared.preloaders.lost(overdue)
            self._heed_time(backend, now)
        if self.room.since is not None:
            replacement.make_room(self.backends, now - self.room.since)
        self._keep_up()
        self._see_deploy()

    def _heed_time(self, backend: Backend, now: float) -> None:
        if backend.deadline is not None and now >= backend.deadline:
            self._exits.expire(backend)
        elif backend.state is State.RUNNING and now - backend.started >= planner.STABLE_AFTER:
            self.failures.well()
        elif backend.state is State.FATAL and now - backend.since >= planner.FATAL_PAUSE:
            self._exits.try_once(backend)

    def _keep_up(self) -> None:
        """Have as many processes as the file says, as long as one serves."""
        lasting = [one for one in self.backends.alive if not one.leaving and not one.obsolete]
        held = self.backends.any_in(State.BACKOFF, State.FATAL)
        serves = any(backend.state is State.RUNNING for backend in lasting)
        if serves and len(lasting) < launch.backends(self.site) and not held:
            self.room.want()

    # The end of it

    def close(self) -> None:
        """Stop and take no more requests: the site is no longer enabled, or the supervisor leaves."""
        self._readiness.end()
        self.stop("disabled")
        self.room.close()
        self.log.close()

    def put_away(self) -> None:
        """Let go of what outlives the processes: nothing of the site runs any more."""
        self.scoreboard.close()
        self.log.close()

    def kill(self) -> None:
        """End all processes at once."""
        for pid in self.pids:
            process.kill(pid)

    def offer(self, site: Site, home: Home, domains: tuple[str, ...], stamp: Stamp) -> None:
        """Take a newer version of the site's file; running processes are replaced if it differs, or was touched."""
        changed = site != self.site or stamp != self.stamp or home.env != self.home.env
        self.site, self.home, self.domains, self.stamp = site, home, domains, stamp
        self._launcher = Launcher(site, home, self._shared, self.scoreboard)
        self.room.backlog, self.room.domains = site.max_waiting, domains
        self.room.takes_clients = site.is_ours
        if changed:
            self.log.close()
            self.log = SiteLog(site, self.log.followers)
            self.replace("reload")
        elif self.failures.refused and not self.pids:
            self._check_plan()  # moya.conf may allow now what it did not
        if self.listener.is_open:
            with contextlib.suppress(Unavailable):
                self.room.ensure(watch=False)

    def _say(self, what: str) -> None:
        self._logger.info("%s", what)
