"""The supervisor itself: one loop over requests, processes, sockets and the clock."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from typing import Any

from multisite import hosts
from multisite.catalogue import Catalogue
from multisite.errors import ConfigError
from multisite.live import LiveHome
from multisite.model import Home, Site
from multisite.supervisor import planner, process, sweep
from multisite.supervisor.connections import Connections, connections
from multisite.supervisor.control import Answer, Connection, Control
from multisite.supervisor.crew import NO_CONNECTIONS, Crew, Shared, Unavailable
from multisite.supervisor.lifecycle import State
from multisite.supervisor.loop import Loop
from multisite.supervisor.notify import NotifySocket
from multisite.supervisor.planner import SpawnBudget
from multisite.supervisor.prctl import set_name
from multisite.supervisor.process import Limits
from multisite.supervisor.rundir import RuntimeDir
from multisite.supervisor.servers import Servers
from multisite.supervisor.status import describe
from multisite.supervisor.triggers import Triggers

LOOK_EVERY = 1.0  # seconds between two looks at the configuration, the idle and the memory
MEMORY_EVERY = 5.0
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
        self.live = live
        self.crews: dict[str, Crew] = {}
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
        self._shared = Shared(self._loop, rundir, limits, self._notify.name, mark_of(rundir))
        self._budget = SpawnBudget()
        self._triggers = Triggers()
        self._look_at = self._memory_at = 0.0
        self._crowded = False
        self._loop.watch(self._notify, lambda _events: self._told())
        self._loop.catch(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self._recover()
        self._control = Control(rundir.control, self._loop, self._answer)

    @property
    def catalogue(self) -> Catalogue:
        """All sites as they are now."""
        assert self.live.catalogue
        return self.live.catalogue

    @property
    def home(self) -> Home:
        """The home as moya.conf describes it."""
        return self.catalogue.home

    def _recover(self) -> None:
        """Clear away what a supervisor that was killed left in the runtime directory and among the processes."""
        left = sweep.of_another(self._shared.mark)
        if left:
            _log.warning("ended %s processes of an earlier supervisor", left)
        for folder, _, names in os.walk(self._rundir.path, topdown=False):
            if folder == self._rundir.path:
                continue
            for name in names:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, name))
            if os.path.dirname(folder) != self._rundir.path:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)

    # The loop

    def run(self) -> None:
        """Serve until told to leave, or until the last server is gone."""
        _log.info("supervisor of %s is ready, process %s", self.home.path, os.getpid())
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
        for crew in self._busy():
            due += [moment for moment in (crew.deadline, crew.next_look) if moment is not None]
            if crew.state is State.RUNNING and crew.site.idle_timeout:
                due.append(max(now + 0.02, crew.last_use + crew.site.idle_timeout))
            elif crew.state is State.DRAINING:
                due.append(now + CROWDED_PAUSE)
        return min(due) - now

    def _busy(self) -> list[Crew]:
        """Those there is something to watch of: a few of all that were ever asked for."""
        return [crew for crew in self.crews.values() if crew.is_busy]

    def _signals(self) -> None:
        came, self._loop.signals = self._loop.signals, set()
        self._reap()  # a SIGCHLD may stand for many
        if came & {signal.SIGTERM, signal.SIGINT}:
            self.leaving = True
        if signal.SIGHUP in came:
            self._look_at = 0.0

    def _reap(self) -> None:
        for pid, status in process.reap():
            for crew in self._busy():
                mark = next((self._mark(crew, b.serial) for b in crew.backends if b.pid == pid), "")
                if mark and crew.ended(pid, status):
                    sweep.orphans(mark)
                    break

    def _mark(self, crew: Crew, serial: int) -> str:
        return f"{self._shared.mark}:{crew.site.name}:{serial}"

    def _told(self) -> None:
        for pid, variables in self._notify.receive():
            leader = process.session(pid) or pid
            for crew in self._busy():
                crew.told(leader, variables)

    def _tick(self) -> None:
        now = self._loop.now()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            self._look(now)
        busy = self._busy()
        if not busy:
            self._crowded = False
            return
        connected = connections(os.path.join(self._rundir.path, "sites"))
        for crew in busy:
            crew.tick(now, connected.get(crew.listener.path, NO_CONNECTIONS))
        self._plan(busy, connected, now)

    def _plan(self, busy: list[Crew], connected: dict[str, Connections], now: float) -> None:
        views = [crew.view(now, connected.get(crew.listener.path, NO_CONNECTIONS)) for crew in busy]
        options = self.home.supervisor
        limits = planner.Limits(options.max_backends, options.memory_budget, 2 * (os.cpu_count() or 1) + 2)
        decisions = planner.plan(views, limits, now, self._budget)
        for decision in decisions:
            crew = self.crews[decision.name]
            if isinstance(decision, planner.Stop):
                crew.stop(decision.reason)
            else:
                crew.start(decision.count)
        self._crowded = any(crew.is_waiting for crew in busy)

    # Once a second

    def _look(self, now: float) -> None:
        try:
            changed = self.live.look(now)
            for crew in list(self.crews.values()):
                entry = self.catalogue.entries.get(crew.site.name)
                changed |= bool(entry and self.live.refresh(entry.path))
        except OSError as error:
            _log.error("the configuration cannot be looked at: %s", error)
            return
        if changed:
            self._swap()
        for crew in list(self.crews.values()):
            if self._triggers.pulled(crew.site, self.home):
                self._pull(crew)
            elif not crew.is_busy and not crew.listener.is_open:
                del self.crews[crew.site.name]
        if now >= self._memory_at:
            self._memory_at = now + MEMORY_EVERY
            self._weigh()

    def _pull(self, crew: Crew) -> None:
        """A file says that the site is to be loaded anew."""
        if crew.state in (State.BACKOFF, State.FATAL):
            crew.reset()
        elif crew.pids:
            crew.replace("reload")

    def _swap(self) -> None:
        """Bring the crews into line with the configuration as it is now."""
        for name, crew in list(self.crews.items()):
            if name in self.catalogue.entries:
                stamp = self.catalogue.entries[name].stamp
                crew.offer(self.catalogue.site(name), self.home, self._domains(name), stamp)
            else:
                crew.close()

    def _weigh(self) -> None:
        """Measure memory where it counts, and replace what has grown too large."""
        budget = self.home.supervisor.memory_budget
        wanted = {name: crew for name, crew in self.crews.items() if crew.pids and (budget or crew.site.memory_limit)}
        if not wanted:
            return
        members: dict[int, list[int]] = {}
        for pid in process.processes():
            members.setdefault(process.session(pid), []).append(pid)
        for crew in wanted.values():
            sizes = {pid: sum(map(process.memory, members.get(pid, ()))) for pid in crew.pids}
            crew.memory = sum(sizes.values())
            crew.limit_memory(sizes)

    # Requests

    def _answer(self, request: Answer, connection: Connection) -> Answer | None:
        home = request.get("home")
        if home and os.path.realpath(str(home)) != os.path.realpath(self.home.path):
            return {"error": self._rundir.other_home().reason, "status": 503}
        handler = _COMMANDS.get(str(request.get("do")))
        if not handler:
            return {"error": f"there is no command {request.get('do')!r}", "status": 400}
        try:
            answer: Answer | None = handler(self, request, connection)
            return answer
        except Unavailable as error:
            wait = max(1, round(error.retry_after))
            return {"error": error.reason, "status": 503, "retry_after": wait, "incident": error.incident}
        except KeyError:
            return {"error": f"there is no site {request.get('site')!r}", "status": 404}

    def _ping(self, _request: Answer, _connection: Connection) -> Answer:
        return {"pid": os.getpid(), "home": self.home.path}

    def _ensure(self, request: Answer, connection: Connection) -> Answer:
        self._servers.register(connection.pid)
        return {"socket": self._crew(str(request["site"])).ensure()}

    def _crew(self, name: str) -> Crew:
        crew = self.crews.get(name)
        if crew and name in self.catalogue.entries:
            return crew
        site = self._site(name)
        stamp = self.catalogue.entries[name].stamp
        crew = self.crews[name] = Crew(site, self.home, self._domains(name), stamp, self._shared)
        self._triggers.pulled(site, self.home)  # from now on
        return crew

    def _site(self, name: str) -> Site:
        """Return a site; KeyError if there is none.

        Raises:
            Unavailable: its file is broken.
        """
        entry = self.catalogue.entries.get(name)
        if not entry:
            self.live.look_again()
        elif self.live.refresh(entry.path):
            self._swap()
        if self.catalogue.entries[name].broken:
            raise Unavailable("its file has errors; multisite check says which", 30)
        return self.catalogue.site(name)

    def _domains(self, name: str) -> tuple[str, ...]:
        """Return the domains that lead to this site alone, whatever the path."""
        site, owners = self.catalogue.site(name), self.catalogue.owners
        shared = {domain for domain, mount in owners if mount != "/"}
        exact = [domain for domain in site.domains if not hosts.is_pattern(domain) and domain not in shared]
        if site.redirect_to_canonical:
            exact = exact[:1]
        return tuple(domain for domain in exact if owners.get((domain, "/")) == name and "/" not in domain)

    def _status(self, _request: Answer, _connection: Connection) -> Answer:
        return {
            "supervisor": {
                "pid": os.getpid(),
                "home": self.home.path,
                "runtime_dir": self._rundir.path,
                "uptime": round(self._loop.now() - self._started, 3),
                "servers": self._servers.pids,
                "backends": sum(len(crew.pids) for crew in self.crews.values()),
                "max_backends": self.home.supervisor.max_backends,
            },
            "sites": {name: describe(crew, self._loop.now()) for name, crew in self.crews.items()},
        }

    def _restart(self, request: Answer, _connection: Connection) -> Answer:
        name = str(request["site"])
        crew = self.crews.get(name)
        if not crew:
            self._site(name)
            return {"done": "it was not running"}
        crew.replace("restart")
        return {"done": "restarting" if crew.pids else "it starts with its next request"}

    def _stop(self, request: Answer, _connection: Connection) -> Answer:
        name = str(request["site"])
        crew = self.crews.get(name)
        if not crew:
            self._site(name)
            return {"done": "it was not running"}
        pids = crew.pids
        crew.stop("asked")
        return {"done": "stopping" if pids else "it was not running", "pids": pids}

    def _reload(self, _request: Answer, _connection: Connection) -> Answer:
        self._look_at = 0.0
        return {"done": "reading the configuration"}

    def _logs(self, request: Answer, connection: Connection) -> Answer | None:
        crew = self._crew(str(request["site"]))
        lines = list(crew.journey.tail.lines) if crew.journey else []
        if not request.get("follow"):
            return {"lines": lines}
        connection.send({"lines": lines})

        def follow(new: list[str]) -> None:
            connection.send({"lines": new})

        crew.log.followers.append(follow)
        connection.on_close = lambda: crew.log.followers.remove(follow)
        return None

    # The end

    def _leave(self) -> None:
        """Stop everything: ask, wait, kill; then remove our sockets."""
        _log.info("supervisor of %s leaves", self.home.path)
        self._control.close()
        for crew in self.crews.values():
            crew.close()
        deadline = self._loop.now() + max((crew.site.stop_timeout for crew in self.crews.values()), default=0.0)
        while any(crew.pids for crew in self.crews.values()) and self._loop.now() < deadline:
            self._loop.turn(min(CROWDED_PAUSE, deadline - self._loop.now()))
            self._reap()
            self._tick_leaving()
        for crew in self.crews.values():
            crew.kill()
        sweep.all_children()
        self._wait_for_children()
        self._recover()
        self._servers.close()
        self._notify.close()

    def _tick_leaving(self) -> None:
        connected = connections(os.path.join(self._rundir.path, "sites"))
        for crew in self.crews.values():
            if crew.pids:
                crew.tick(self._loop.now(), connected.get(crew.listener.path, NO_CONNECTIONS))

    @staticmethod
    def _wait_for_children() -> None:
        deadline = time.monotonic() + 5.0
        while process.children() and time.monotonic() < deadline:
            list(process.reap())
            time.sleep(0.002)


_COMMANDS: dict[str, Any] = {
    "ping": Supervisor._ping,
    "ensure": Supervisor._ensure,
    "status": Supervisor._status,
    "restart": Supervisor._restart,
    "stop": Supervisor._stop,
    "reload": Supervisor._reload,
    "logs": Supervisor._logs,
}


def mark_of(rundir: RuntimeDir) -> str:
    """Return how the marks of all backends of a runtime directory begin."""
    status = os.stat(rundir.path)
    return f"{status.st_dev:x}.{status.st_ino:x}"


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
