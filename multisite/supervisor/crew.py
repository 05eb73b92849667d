"""The backends of one site, and the listening socket that outlives them."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import time
from dataclasses import dataclass

from multisite import logs
from multisite.model import Home, Site
from multisite.sitedir import Stamp
from multisite.supervisor import launch, planner, process
from multisite.supervisor.backend import Backend, Exit
from multisite.supervisor.connections import Connections
from multisite.supervisor.journey import Journey
from multisite.supervisor.launch import Surroundings
from multisite.supervisor.lifecycle import Event, State
from multisite.supervisor.listener import Listener
from multisite.supervisor.loop import Loop
from multisite.supervisor.output import SiteLog
from multisite.supervisor.planner import SiteView
from multisite.supervisor.privilege import Refused
from multisite.supervisor.process import Launch, Limits
from multisite.supervisor.rundir import RuntimeDir
from multisite.supervisor.scoreboard import Figures, Scoreboard

NOT_LOADED = 3  # the exit status of our runner for an application that cannot be imported; its STATUS= says why
NO_CONNECTIONS = Connections()
HANDOVER_PATIENCE = 5.0  # seconds that a replacement waits for room before its predecessor makes some
SETTLED_AFTER = 1.0  # seconds after which a silent server beside its predecessor is taken for ready
PROBE_FIRST, PROBE_LONGEST = 0.01, 0.25  # seconds between two looks whether a silent server has begun to accept
SERVING = (State.STARTING, State.RUNNING)  # a silent server may have taken requests before it is known to be ready
_STATES = (
    State.RUNNING,
    State.STARTING,
    State.DRAINING,
    State.STOPPING,
    State.FATAL,
    State.BACKOFF,
    State.STOPPED,
)


@dataclass
class Shared:
    """What all crews have in common."""

    loop: Loop
    rundir: RuntimeDir
    limits: Limits
    notify: str
    mark: str
    group: int | None = None
    serial: int = 0

    def next_serial(self) -> int:
        """Return a number that no backend has had."""
        self.serial += 1
        return self.serial


class Unavailable(Exception):
    """No process of the site can be had just now."""

    def __init__(self, reason: str, retry_after: float, incident: str = "") -> None:
        super().__init__(reason)
        self.reason, self.retry_after, self.incident = reason, retry_after, incident


class Crew:
    """One spawned site: from one to many backends on one listening socket."""

    def __init__(self, site: Site, home: Home, domains: tuple[str, ...], stamp: Stamp, shared: Shared) -> None:
        self.site, self.home, self.domains, self._file_stamp = site, home, domains, stamp
        self.backends: list[Backend] = []
        self.journey: Journey | None = None  # of the last start
        self.failure: Journey | None = None  # of the last start or run that failed; None once one was well
        self.replace_failure = ""  # why the last replacement of a running backend did not come about
        self.memory = 0
        self.starts = 0
        self._shared, self._loop = shared, shared.loop
        link = "uwsgi.sock" if site.protocol == "uwsgi" else "http.sock"
        self.listener = Listener(shared.rundir.socket(site.name), link, shared.group)
        self.log = SiteLog(site)
        self.scoreboard = Scoreboard(shared.rundir.board(site.name))
        self._logger = logs.site_logger(site.name)
        self._wanted_since: float | None = None
        self._start_cost = 0.0  # seconds that the last start took
        self._failures = 0
        self._failed_at = 0.0
        self._refused = ""  # why it could not be started as its file says
        self._last_use = self._loop.now()
        self._last_stamp = 0.0
        self._probe: socket.socket | None = None
        self._probe_at = 0.0
        self._probe_pause = PROBE_FIRST

    def __repr__(self) -> str:
        return f"<Crew {self.site.name} {self.state.name} {len(self.pids)} processes>"

    # As others see it

    @property
    def state(self) -> State:
        """The state of the site as a whole: that of its best backend."""
        states = {backend.state for backend in self.backends}
        return next((state for state in _STATES if state in states), State.STOPPED)

    @property
    def pids(self) -> list[int]:
        """The processes that it owns."""
        return [backend.pid for backend in self.backends if backend.pid]

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to watch: a process, a deadline or somebody who waits."""
        return bool(self.backends) or self._wanted_since is not None

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits for a process that has not been started."""
        return self._wanted_since is not None

    def view(self, now: float, connected: Connections) -> SiteView:
        """Describe the site for the planner."""
        alive = [backend for backend in self.backends if backend.alive]
        lasting = [backend for backend in alive if not backend.leaving and not backend.obsolete]
        held = any(backend.state in (State.BACKOFF, State.FATAL) for backend in self.backends)
        running = bool(alive) and all(backend.state is State.RUNNING for backend in alive)
        figures = self.figures()
        in_flight = connected.open if figures.in_flight is None else figures.in_flight
        self._note_use(now, in_flight + connected.waiting, figures)
        idle = running and not in_flight and not connected.waiting
        return SiteView(
            self.site.name,
            missing=0 if held else max(0, launch.backends(self.site) - len(lasting)),
            wanted_since=self._wanted_since,
            processes=len(alive),
            leaving=sum(backend.leaving for backend in alive),
            starting=sum(backend.state is State.STARTING for backend in alive),
            idle_since=self._last_use if idle else None,
            idle_timeout=self.site.idle_timeout,
            memory=self.memory,
            start_cost=self._start_cost,
            failures=self._failures,
        )

    def figures(self) -> Figures:
        """Return what the site's own processes count, where they do."""
        return self.scoreboard.read(self.pids)

    def _note_use(self, now: float, busy: int, figures: Figures) -> None:
        """Move the last use on: by the scoreboard, else by the kernel's time of the last connection."""
        stamp = self.listener.last_use()
        if busy:
            self._last_use = now
        elif figures.in_flight is not None:
            self._last_use = max(self._last_use, figures.last_use)
        elif stamp != self._last_stamp:  # of the wall clock, whose jumps may not move it far
            self._last_use = max(self._last_use, now - min(2.0, max(0.0, time.time() - stamp)))
        self._last_stamp = stamp

    @property
    def last_use(self) -> float:
        """Monotonic seconds of the last request that was seen."""
        return self._last_use

    # The listening socket

    def ensure(self) -> str:
        """Have the socket there; returns its path.

        Raises:
            Unavailable: no process can be had before some time has passed or something has changed.
        """
        if not self.pids:
            self._check_plan()
        if self.state is State.FATAL or (self.state is State.BACKOFF and self._failures > 1):
            raise self._unavailable()
        self._open()
        return self.listener.path

    def _check_plan(self) -> None:
        """Enter FATAL where the site could not be started as its file says, and leave it when it could."""
        try:
            self._plan(0, self._shared.serial)
        except Refused as error:
            if self._refused != str(error):
                self.reset()
                self._give_up(str(error))
        else:
            if self._refused:
                self.reset()

    def _open(self) -> None:
        try:
            self.listener.open(self.site.max_waiting, self.domains)
        except OSError as error:
            reason = f"{error.filename or self.listener.path}: {error.strerror}"
            self._logger.error("its socket cannot be made: %s", reason)
            raise Unavailable(reason, 30) from None
        self._listen()

    def _listen(self) -> None:
        """Watch the socket while nothing runs and nobody is known to wait: who connects starts a process."""
        if self.listener.is_open and not self.backends and self._wanted_since is None:
            self._loop.watch(self.listener, lambda _events: self.want())

    def want(self) -> None:
        """Note that somebody waits."""
        self._loop.forget(self.listener)
        if self._wanted_since is None:
            self._wanted_since = self._last_use = self._loop.now()

    def _close(self) -> None:
        self._loop.forget(self.listener)
        self.listener.close()
        self._wanted_since = None

    def _unavailable(self) -> Unavailable:
        now = self._loop.now()
        deadlines = [backend.deadline for backend in self.backends if backend.deadline]
        wait = max(1.0, min(deadlines, default=now + 60.0) - now)
        reason = self.failure.failure if self.failure else "it cannot be started"
        return Unavailable(reason, wait, self.failure.incident if self.failure else "")

    # Starting

    def start(self, count: int) -> None:
        """Start `count` more backends."""
        self._loop.forget(self.listener)
        self._wanted_since = None
        for _ in range(count):
            self._start_one()

    def _start_one(self) -> None:
        used = {backend.slot for backend in self.backends}
        slot = next(number for number in range(len(used) + 1) if number not in used)
        serial = self._shared.next_serial()
        backend = Backend(self.site, slot, serial, self._loop, self._say)
        self.backends.append(backend)
        self.journey = backend.journey
        self.starts += 1
        backend.feed(Event.WANTED)
        backend.journey.enter("prepare", self._loop.now())
        try:
            how = self._plan(slot, serial)
            self._prepare(how, slot)
            self.listener.open(self.site.max_waiting, self.domains)
            backend.spawn(how, self.listener.fileno(), self._shared.limits, self.log)
        except Refused as error:
            backend.cannot_spawn(str(error))
            self._ended(backend, refused=True)
        except OSError as error:
            backend.cannot_spawn(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))
            self._ended(backend)
        else:
            for note in how.notes:
                self._logger.info("%s", note)
            if not how.told:
                self._begin_probe(backend)

    def _plan(self, slot: int, serial: int) -> Launch:
        around = Surroundings(
            environ=os.environ,
            notify=self._shared.notify,
            private=self._shared.rundir.private(self.site.name),
            board=self.scoreboard.path,
            mark=f"{self._shared.mark}:{self.site.name}:{serial}",
            slot=slot,
        )
        return launch.plan(self.site, self.home, around)

    def _prepare(self, how: Launch, slot: int) -> None:
        """Make what belongs to the site's own user."""
        if how.job:
            self.scoreboard.make(how.identity, slot)
        if launch.needs_private(self.site):
            folder = self._shared.rundir.private(self.site.name)
            os.makedirs(folder, 0o700, exist_ok=True)
            if how.identity.change:
                os.chown(folder, how.identity.uid, how.identity.gid)

    # Readiness

    def told(self, pid: int, variables: dict[str, str]) -> None:
        """Take note of what the process `pid`, or one of its session, says (sd_notify(3))."""
        for backend in self.backends:
            if backend.pid == pid and backend.state is State.STARTING:
                backend.status = variables.get("STATUS", backend.status)[:1000]
                if variables.get("READY") == "1":
                    self._is_ready(backend)

    def _is_ready(self, backend: Backend) -> None:
        backend.feed(Event.READY, f"ready after {self._loop.now() - backend.journey.begun:.3f} s")
        self._last_use = max(self._last_use, self._loop.now())
        self.replace_failure = ""
        self._start_cost = backend.journey.duration
        old = next((one for one in self.backends if one.obsolete and one.state in SERVING), None)
        if old and not backend.obsolete:
            old.feed(Event.STOP, old.obsolete)

    def _begin_probe(self, backend: Backend) -> None:
        """Connect to the socket: that a silent server accepts this shows that it is ready.

        Where a predecessor accepts as well, it shows nothing; there the new one is ready when it has lasted.
        """
        if any(one.state in (State.RUNNING, State.DRAINING) or one.obsolete for one in self.backends):
            lasting = max(SETTLED_AFTER, 2 * self._start_cost)
            backend.ready_at = self._loop.now() + min(lasting, self.site.start_timeout * 0.9)
            return
        self._end_probe()
        self._probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with contextlib.suppress(OSError):  # the queue is full, so there is something to be accepted in any case
            self._probe.connect(self.listener.path)
        self._probe_pause = PROBE_FIRST
        self._probe_at = self._loop.now() + self._probe_pause

    def _end_probe(self) -> None:
        if self._probe:
            self._probe.close()
            self._probe = None

    def look_for_silent(self, now: float, connected: Connections) -> None:
        """Take servers that say nothing for ready when they have accepted a connection."""
        for backend in self.backends:
            if backend.state is State.STARTING and backend.ready_at and now >= backend.ready_at:
                self._is_ready(backend)
        if not self._probe or now < self._probe_at:
            return
        self._probe_pause = min(PROBE_LONGEST, self._probe_pause * 1.4)
        self._probe_at = now + self._probe_pause
        if connected.open or not connected.waiting:
            for backend in self.backends:
                if backend.state is State.STARTING and not backend.ready_at:
                    self._is_ready(backend)
            self._end_probe()

    @property
    def next_look(self) -> float | None:
        """Monotonic seconds of the next look at a silent server, or None."""
        looks = [one.ready_at for one in self.backends if one.state is State.STARTING and one.ready_at]
        return min([*looks, *([self._probe_at] if self._probe else [])], default=None)

    # Ending

    def stop(self, reason: str) -> None:
        """Have all backends end; requests in flight are finished."""
        self._wanted_since = None
        for backend in list(self.backends):
            backend.feed(Event.STOP, reason)
            if backend.state is State.DRAINING and not self._graceful(backend):
                self._end_if_drained(backend, self.connected())
            self._settle(backend)

    def replace(self, reason: str) -> None:
        """Have new backends beside the running ones, which end when the new ones are ready."""
        self.reset()
        for backend in self.backends:
            if backend.state in SERVING:
                backend.obsolete = reason
                self._wanted_since = self._wanted_since or self._loop.now()

    def limit_memory(self, sizes: dict[int, int]) -> None:
        """Replace backends whose size in bytes is above the site's memory_limit."""
        limit = self.site.memory_limit
        for backend in self.backends:
            if limit and sizes.get(backend.pid, 0) > limit and backend.state is State.RUNNING and not backend.obsolete:
                self._logger.warning(
                    "process %s uses %s MiB, more than memory_limit", backend.pid, sizes[backend.pid] >> 20
                )
                backend.obsolete = "memory"
                self._wanted_since = self._wanted_since or self._loop.now()

    def reset(self) -> None:
        """Forget all failures."""
        self._failures, self._refused, self.replace_failure = 0, "", ""
        for backend in list(self.backends):
            if backend.state in (State.BACKOFF, State.FATAL):
                backend.feed(Event.RESET)
                self._settle(backend)

    def ended(self, pid: int, status: int) -> bool:
        """Take note of the end of a process; False if it is none of ours."""
        for backend in list(self.backends):
            if backend.pid == pid:
                backend.ended(status)
                self._ended(backend)
                return True
        return False

    def _ended(self, backend: Backend, refused: bool = False) -> None:
        exit_ = backend.exit
        assert exit_
        if not any(one.state is State.STARTING for one in self.backends if one is not backend):
            self._end_probe()
        if exit_.state in (State.STARTING, State.RUNNING):
            self._failed(backend, exit_, refused)
        else:
            backend.feed(Event.EXITED, backend.reason)
        self._settle(backend)

    def _failed(self, backend: Backend, exit_: Exit, refused: bool) -> None:
        """A backend ended that nobody asked to."""
        if self._is_planned(backend, exit_):
            backend.feed(Event.EXITED, "max_requests")
            self._wanted_since = self._wanted_since or self._loop.now()
            return
        if exit_.state is State.STARTING and any(one.obsolete for one in self.backends):
            self._keep_old(backend, exit_)
            return
        self._count_failure(backend, exit_)
        self._report(backend, exit_)
        delay = planner.backoff(self._failures, random.random)
        backend.feed(Event.EXITED, exit_.reason, delay)
        self._refused = exit_.reason if refused else ""
        if refused or planner.gives_up(self._failures):
            backend.feed(Event.GIVE_UP, exit_.reason)
        others = any(one.alive for one in self.backends if one is not backend)
        if (delay or refused) and not others:
            self._close()

    @staticmethod
    def _is_planned(backend: Backend, exit_: Exit) -> bool:
        ours = bool(backend.launch and backend.launch.job)
        return exit_.state is State.RUNNING and exit_.code == 0 and ours and backend.site.max_requests > 0

    def _keep_old(self, backend: Backend, exit_: Exit) -> None:
        """The replacement failed: what runs goes on."""
        self._report(backend, exit_)
        if not backend.obsolete:
            self.replace_failure = exit_.reason
            self._wanted_since = None
            for one in self.backends:
                one.obsolete = ""
        backend.feed(Event.EXITED, exit_.reason)
        backend.feed(Event.STOP)

    def _count_failure(self, backend: Backend, exit_: Exit) -> None:
        """Count failures in a row; several processes that fail together are one."""
        if exit_.served >= planner.STABLE_AFTER:
            self._failures = 0
        if not self._failures or backend.journey.begun >= self._failed_at:
            self._failures += 1
            self._failed_at = self._loop.now()

    def _report(self, backend: Backend, exit_: Exit) -> None:
        when = "while serving" if exit_.state is State.RUNNING else "before it was ready"
        reason = exit_.reason if backend.launch is None else f"{exit_.reason} {when}"
        if exit_.code == NOT_LOADED and backend.status and backend.launch and backend.launch.job:
            reason = backend.status
        if backend.reason == "start_timeout":
            reason = f"it was not ready within {self.site.start_timeout:g} s"
        backend.journey.fail(reason, logs.incident(), self._loop.now())
        self.failure = backend.journey
        self._logger.error("incident %s: %s", backend.journey.incident, backend.journey)

    def _give_up(self, reason: str) -> None:
        """Enter FATAL for what is known without a start."""
        self.backends = [backend for backend in self.backends if backend.alive]
        backend = Backend(self.site, 0, self._shared.next_serial(), self._loop, self._say)
        self.backends.append(backend)
        backend.feed(Event.WANTED)
        backend.cannot_spawn(reason)
        self._ended(backend, refused=True)

    def _settle(self, backend: Backend) -> None:
        """Put away a backend that has come to rest."""
        if backend.state is not State.STOPPED:
            return
        if backend in self.backends:
            self.backends.remove(backend)
        if not self.backends and (self.listener.is_open or self._failures):
            try:
                self._open()
            except Unavailable:
                return

    def _keep_up(self) -> None:
        """Have as many processes as the file says, as long as one serves."""
        serving = [backend for backend in self.backends if backend.state is State.RUNNING and not backend.obsolete]
        if serving and len(serving) < launch.backends(self.site) and self._wanted_since is None:
            self._wanted_since = self._loop.now()

    # Time

    @property
    def deadline(self) -> float | None:
        """The next deadline of any backend, in monotonic seconds."""
        return min((backend.deadline for backend in self.backends if backend.deadline is not None), default=None)

    def tick(self, now: float, connected: Connections) -> None:
        """Do what is due."""
        self.look_for_silent(now, connected)
        for backend in list(self.backends):
            backend.resume_output(now)
            if backend.state is State.DRAINING and not self._graceful(backend):
                self._end_if_drained(backend, connected)
            if backend.deadline is not None and now >= backend.deadline:
                self._expire(backend)
            elif backend.state is State.RUNNING and now - backend.started >= planner.STABLE_AFTER:
                self._failures, self.failure = 0, None
            elif backend.state is State.FATAL and now - backend.since >= planner.FATAL_PAUSE:
                self._failures = planner.GIVE_UP_AFTER - 1  # one attempt
                backend.feed(Event.RESET)
                self._settle(backend)
        self._make_room(now)
        self._keep_up()

    def _expire(self, backend: Backend) -> None:
        if backend.state is State.STARTING:
            backend.reason = "start_timeout"
        backend.feed(Event.DEADLINE, backend.reason)
        self._settle(backend)

    @staticmethod
    def _graceful(backend: Backend) -> bool:
        return bool(backend.launch and backend.launch.graceful)

    def _end_if_drained(self, backend: Backend, connected: Connections) -> None:
        """End a server that may lose what it has accepted: freeze it, look again, and only then end it."""
        if connected.open:
            return
        process.freeze(backend.pid)
        if self.connected().open:
            process.thaw(backend.pid)
        else:
            backend.feed(Event.DRAINED, backend.reason)

    def connected(self) -> Connections:
        """Ask the kernel for this site's connections now."""
        from multisite.supervisor.connections import connections

        return connections(os.path.dirname(self.listener.path)).get(self.listener.path, NO_CONNECTIONS)

    def _make_room(self, now: float) -> None:
        """Let a predecessor go first where there is no room for two."""
        waiting = self._wanted_since is not None and now - self._wanted_since > HANDOVER_PATIENCE
        old = [backend for backend in self.backends if backend.obsolete and backend.state is State.RUNNING]
        if waiting and old and not any(backend.state is State.STARTING for backend in self.backends):
            old[0].feed(Event.STOP, old[0].obsolete)

    # The end of it

    def close(self) -> None:
        """Stop and take no more requests: the site is no longer enabled, or the supervisor leaves."""
        self._end_probe()
        self.stop("disabled")
        self._close()
        self.scoreboard.close()
        self.log.close()

    def kill(self) -> None:
        """End all processes at once."""
        for backend in self.backends:
            if backend.pid:
                process.kill(backend.pid)

    def offer(self, site: Site, home: Home, domains: tuple[str, ...], stamp: Stamp) -> None:
        """Take a newer version of the site's file; running processes are replaced if it differs, or was touched."""
        changed = site != self.site or stamp != self._file_stamp or home.env != self.home.env
        self.site, self.home, self.domains, self._file_stamp = site, home, domains, stamp
        if changed:
            self.log.close()
            self.log = SiteLog(site, self.log.followers)
            self.replace("reload")
        if self.listener.is_open:
            self.listener.open(site.max_waiting, domains)

    def _say(self, what: str) -> None:
        self._logger.log(logging.INFO, "%s", what)
