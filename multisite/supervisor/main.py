"""The supervisor itself: one loop over requests, processes, sockets and the clock."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time

from multisite.errors import ConfigError
from multisite.live import LiveHome
from multisite.supervisor import planner, process, sweep
from multisite.supervisor.commands import Commands
from multisite.supervisor.connections import Connections
from multisite.supervisor.control import Control
from multisite.supervisor.crew import NO_CONNECTIONS, Crew
from multisite.supervisor.lifecycle import State
from multisite.supervisor.loop import Loop
from multisite.supervisor.memory import Scales
from multisite.supervisor.notify import NotifySocket
from multisite.supervisor.planner import SpawnBudget
from multisite.supervisor.prctl import set_name
from multisite.supervisor.process import Limits
from multisite.supervisor.roster import Roster
from multisite.supervisor.rundir import RuntimeDir
from multisite.supervisor.servers import Servers
from multisite.supervisor.shared import Shared
from multisite.supervisor.view import view

LOOK_EVERY = 1.0  # seconds between two looks at the configuration
CROWDED_PAUSE = 0.05  # seconds between two attempts to find room
LONELY_AT_FIRST = 10.0  # seconds that a detached supervisor waits for its first server

_log = logging.getLogger("multisite.supervisor")


class Supervisor:
    """Starts, watches and stops the backends of one home.

    Args:
        live: the configuration, opened.
        lock: descriptor of the lock on the runtime directory, held for life.
        foreground: stay, however many servers there are.
    """

    def __init__(self, live: LiveHome, rundir: RuntimeDir, lock: int, *, foreground: bool) -> None:
        self.leaving = False
        self._foreground = foreground
        self._lock = lock
        self._loop = Loop()
        self._started = self._loop.now()
        self._notify = NotifySocket()
        self._servers = Servers(self._loop)
        self._rundir = rundir
        limits = Limits()
        limits.raise_own()
        process.become_subreaper()
        self._shared = Shared(self._loop, rundir, limits, self._notify.name, rundir.mark)
        self._roster = Roster(live, self._shared)
        self._budget = SpawnBudget()
        self._scales = Scales()
        self._look_at = 0.0
        self._crowded = False
        self._loop.watch(self._notify, lambda _events: self._told())
        self._loop.catch(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self._recover()
        commands = Commands(self._roster, self._servers, rundir, self.look_soon, self._loop.now)
        self._control = Control(rundir.control, self._loop, commands.answer)

    def look_soon(self) -> None:
        """Have the configuration looked at."""
        self._look_at = 0.0

    def _recover(self) -> None:
        """Clear away what a supervisor that was killed left in the runtime directory and among the processes."""
        left = sweep.of_another(self._shared.mark)
        if left:
            _log.warning("ended %s processes of an earlier supervisor", left)
        self._rundir.clear()

    # The loop

    def run(self) -> None:
        """Serve until told to leave, or until the last server is gone."""
        _log.info("supervisor of %s is ready, process %s", self._roster.home.path, os.getpid())
        while not self.leaving:
            self._loop.turn(self._timeout())
            self._signals()
            self._tick()
            if not self._foreground and not self._servers and self._is_lonely():
                _log.info("the last server is gone")
                self.leaving = True
        self._leave()

    def _is_lonely(self) -> bool:
        return self._servers.seen_any or self._loop.now() - self._started > LONELY_AT_FIRST

    def _timeout(self) -> float:
        now = self._loop.now()
        due = [self._look_at]
        if self._crowded:
            due.append(now + CROWDED_PAUSE)
        for crew in self._roster.busy:
            due += [moment for moment in (crew.backends.deadline, crew.next_look) if moment is not None]
            if crew.state is State.RUNNING and crew.site.idle_timeout:
                due.append(max(now + 0.02, crew.activity.last_use + crew.site.idle_timeout))
            elif crew.state is State.DRAINING:
                due.append(now + CROWDED_PAUSE)
        return min(due) - now

    def _signals(self) -> None:
        came, self._loop.signals = self._loop.signals, set()
        self._reap()  # a SIGCHLD may stand for many
        if came & {signal.SIGTERM, signal.SIGINT}:
            self.leaving = True
        if signal.SIGHUP in came:
            self.look_soon()

    def _reap(self) -> None:
        ended = list(process.reap())
        for pid, status in ended:
            any(crew.ended(pid, status) for crew in self._roster.busy)
        if ended:
            alive = [(crew, backend) for crew in self._roster.busy for backend in crew.backends if backend.pid]
            living = {self._shared.mark_of(crew.site.name, backend.serial) for crew, backend in alive}
            sweep.strays(self._shared.mark, living, {backend.pid for _, backend in alive})

    def _told(self) -> None:
        for pid, variables in self._notify.receive():
            leader = process.session(pid) or pid
            for crew in self._roster.busy:
                crew.told(leader, variables)

    def _tick(self) -> None:
        now = self._loop.now()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            self._roster.look(now)
            self._scales.weigh(self._roster.values(), self._roster.home.supervisor.memory_budget, now)
        busy = self._roster.busy
        if not busy:
            self._crowded = False
            return
        connected = self._roster.connections()
        for crew in busy:
            crew.tick(now, connected.get(crew.listener.path, NO_CONNECTIONS))
        self._plan(busy, connected, now)

    def _plan(self, busy: list[Crew], connected: dict[str, Connections], now: float) -> None:
        views = [view(crew, now, connected.get(crew.listener.path, NO_CONNECTIONS)) for crew in busy]
        options = self._roster.home.supervisor
        limits = planner.Limits(options.max_backends, options.memory_budget, 2 * (os.cpu_count() or 1) + 2)
        decisions = planner.plan(views, limits, now, self._budget)
        for decision in decisions:
            if isinstance(decision, planner.Stop):
                self._roster[decision.name].stop(decision.reason)
            else:
                self._roster.starting(decision.name).start(decision.count)
        self._crowded = any(crew.is_waiting for crew in busy)

    # The end

    def _leave(self) -> None:
        """Stop everything: ask, wait, kill; then remove our sockets."""
        _log.info("supervisor of %s leaves", self._roster.home.path)
        self._control.close()
        for crew in self._roster.values():
            crew.close()
        deadline = self._loop.now() + max((crew.site.stop_timeout for crew in self._roster.values()), default=0.0)
        while any(crew.pids for crew in self._roster.values()) and self._loop.now() < deadline:
            self._loop.turn(min(CROWDED_PAUSE, deadline - self._loop.now()))
            self._reap()
            self._tick_leaving()
        for crew in self._roster.values():
            crew.kill()
        self._end_children()
        self._recover()
        self._servers.close()
        self._notify.close()

    def _tick_leaving(self) -> None:
        connected = self._roster.connections()
        for crew in self._roster.values():
            if crew.pids:
                crew.tick(self._loop.now(), connected.get(crew.listener.path, NO_CONNECTIONS))

    @staticmethod
    def _end_children() -> None:
        """Kill what is left, again and again: the children of what is dead fall to us."""
        deadline = time.monotonic() + 5.0
        while process.children() and time.monotonic() < deadline:
            sweep.all_children()
            list(process.reap())
            time.sleep(0.002)


def run(home: str, foreground: bool = False, lock: int | None = None, ready: int = -1) -> int:
    """Supervise the sites of `home`; returns the exit code.

    Args:
        home: its directory.
        foreground: stay, however many servers there are (``multisite supervise``).
        lock: descriptor of the lock, where who started us has taken it already.
        ready: descriptor that gets one byte when the control socket is there.

    Raises:
        ConfigError, RuntimeDirError: the home or its runtime directory cannot be used.
    """
    set_name("multisite-superv")
    live = LiveHome(home)
    rundir = RuntimeDir(live.open().home)
    if not foreground:
        logging.getLogger("multisite.live").setLevel(logging.CRITICAL)  # the workers have told it
    rundir.make()
    if lock is None:
        lock = rundir.lock()
        if lock is None:
            pid, other = rundir.holder()
            raise rundir.other_home() if other != rundir.home else AlreadyRunning(pid)
    rundir.sign(lock)
    supervisor = Supervisor(live, rundir, lock, foreground=foreground)
    if ready >= 0:
        with contextlib.suppress(OSError):
            os.write(ready, b"1")
        os.close(ready)
    supervisor.run()
    return 0


class AlreadyRunning(ConfigError):
    """A supervisor of this home runs already."""

    def __init__(self, pid: int) -> None:
        Exception.__init__(self, "already running")
        self.reason = f"a supervisor of this home runs already (process {pid})"
        self.problems = ()
