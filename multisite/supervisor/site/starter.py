"""Plans and starts the backends of one site, as far as a process of which nobody knows yet whether it is ready."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from multisite.config.model import Home, Site
from multisite.config.policies import Refused
from multisite.logs import servicelog
from multisite.supervisor import planner
from multisite.supervisor.lifecycle import Event, State
from multisite.supervisor.notify import Said
from multisite.supervisor.process import launch
from multisite.supervisor.process.sitelog import Journey, SiteLog
from multisite.supervisor.process.spec import Given, Launch, Surroundings
from multisite.supervisor.reexec import Handed, Keeper
from multisite.supervisor.reexec import State as Packed
from multisite.supervisor.site.backend import Backend
from multisite.supervisor.site.backends import Backends
from multisite.supervisor.site.context import Context
from multisite.supervisor.site.costs import Scoreboard
from multisite.supervisor.site.deploy import Deploys
from multisite.supervisor.site.exits import Exits
from multisite.supervisor.site.queue import WaitQueue
from multisite.supervisor.site.readiness import Readiness

_LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC)


class Starter(Handed):
    """Has `launcher` make processes, and `exits` decide where that fails; `belong` is told who is to have the site.

    Attributes:
        journey: of the last start.
    """

    PARTS = ("journey", "_backends")
    ANEW = ("_launcher", "_room", "_readiness", "_deploys", "_exits", "_belong")

    def __init__(
        self,
        launcher: Launcher,
        backends: Backends,
        room: WaitQueue,
        readiness: Readiness,
        deploys: Deploys,
        exits: Exits,
        belong: Callable[[Launch], None],
    ) -> None:
        self.journey: Journey | None = None
        self._launcher, self._backends, self._room = launcher, backends, room
        self._readiness, self._deploys, self._exits, self._belong = readiness, deploys, exits, belong

    def pack(self, keep: Keeper) -> Packed:
        """Return what `take_over` takes."""
        return {
            "journey": self.journey.pack() if self.journey else None,
            "backends": [[one.slot, one.serial, one.pack(keep)] for one in self._backends],
        }

    def take_over(self, state: Packed) -> None:
        """Go on where another program was."""
        self.journey = Journey.taken_over(state["journey"]) if state["journey"] else None
        for slot, serial, packed in state["backends"]:
            backend = self._launcher.backend(slot, serial)
            backend.take_over(packed, self._launcher.log)
            self._add(backend)
            if backend.state is State.STARTING and not backend.told and not backend.ready_at:
                self._readiness.expect(backend)

    def _add(self, backend: Backend) -> None:
        self._backends.append(backend)
        self.journey = backend.journey

    def start(self) -> None:
        """Start one more backend."""
        backend = self._launcher.backend(self._backends.free_slot)
        self._add(backend)
        backend.feed(Event.WANTED)
        backend.journey.enter("prepare", backend.since)
        try:
            how = self._launcher.plan(backend.slot, backend.serial, smoke=self._deploys.needs_smoke)
            self._belong(how)
            self._make(backend, how, self._given(backend, how))
        except Refused as error:
            self._refuse(backend, str(error))
        except OSError as error:
            self._cannot_spawn(backend, error)
        else:
            for note in how.notes:
                self._launcher.say(note)
            if not how.told and not how.tried:
                self._readiness.expect(backend)

    def _given(self, backend: Backend, how: Launch) -> Given:
        """Have all there that the process is given; what it speaks on is made with it.

        Raises:
            OSError: it cannot be made.
        """
        board = self._launcher.prepare(how, backend.slot)
        return Given(self._room.open(), board=board)

    def _make(self, backend: Backend, how: Launch, given: Given) -> None:
        """Have a preloader make the process, or make it ourselves.

        Raises:
            OSError: it cannot be made.
        """
        if not self._launcher.fork(backend, how, given, lambda: self._lost(backend)):
            self._launcher.spawn(backend, how, given)

    def _lost(self, backend: Backend) -> None:
        """A preloader has not made the process."""
        if backend.state is not State.STARTING or not backend.launch:
            backend.cannot_spawn(backend.reason)
            self._exits.take(backend)
            return
        try:
            self._launcher.spawn(backend, backend.launch, self._given(backend, backend.launch))
        except OSError as error:
            self._cannot_spawn(backend, error)

    def _cannot_spawn(self, backend: Backend, error: OSError) -> None:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
        backend.cannot_spawn(reason, lacking=error.errno in _LACKING)
        self._exits.take(backend)

    def _refuse(self, backend: Backend, reason: str) -> None:
        backend.cannot_spawn(reason)
        self._exits.take(backend, refused=True)

    def check(self, refused: str) -> None:
        """Enter FATAL where the site could not be started as its file says, and leave it when it could.

        `refused`: why it could not the last time that this was known, "" if it could.
        """
        reason = self._launcher.obstacle()
        if reason != refused:
            self._exits.reset()
        if reason and reason != refused:
            self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        """Enter FATAL for what is known without a start."""
        self._backends[:] = self._backends.alive
        backend = self._launcher.backend(0)
        self._backends.append(backend)
        backend.feed(Event.WANTED)
        self._refuse(backend, reason)

    def hear(self) -> None:
        """Take note of the processes that preloaders have made."""
        for backend in list(self._backends):
            backend.hear()

    def hear_no_more(self) -> None:
        """Wait for no preloader any longer."""
        for backend in list(self._backends):
            backend.end_fork()


@dataclass
class Launcher:
    """Plans, prepares and makes the processes of `site` as its file says now.

    Attributes:
        log: takes what they print.
        heard: takes what they say.
    """

    site: Site
    home: Home
    shared: Context
    scoreboard: Scoreboard
    log: SiteLog
    heard: Callable[[Backend, Said], None] = lambda _backend, _said: None

    def backend(self, slot: int, serial: int = 0) -> Backend:
        """Return a new backend, or the one that had the number `serial` before, at the place `slot`."""
        number = serial or self.shared.next_serial()
        backend = Backend(self.site, slot, number, self.shared.loop, self.say, self.heard)
        backend.answered_before = self.scoreboard.answered(slot)
        return backend

    def has_answered(self, backend: Backend) -> bool:
        """Tell whether a backend has answered a request; a server that does not count has, once it has lasted."""
        if backend.ours:
            return self.scoreboard.answered(backend.slot) > backend.answered_before
        return bool(backend.started) and self.shared.loop.now() - backend.started >= planner.ANSWERED_AFTER

    def say(self, what: str) -> None:
        """Tell it in the log of the service."""
        servicelog.site_logger(self.site.name).info("%s", what)

    def plan(self, slot: int, serial: int, *, smoke: bool = False) -> Launch:
        """Decide how to start the backend `serial` at the place `slot`.

        `smoke`: it has to answer the site's smoke request before it takes any other.

        Raises:
            Refused: it cannot be started as its file says.
        """
        around = Surroundings(
            environ=os.environ,
            notify=self.shared.rundir.notify(serial),
            private=self.shared.rundir.private(self.site.name),
            mark=self.shared.mark_of(self.site.name, serial),
            slot=slot,
            examine=self.shared.placing.wanted(self.site, self.home) if self.shared.placing else "",
            smoke=smoke,
            head_limits=self.shared.servers.head_limits,
        )
        return launch.plan(self.site, self.home, around)

    def obstacle(self) -> str:
        """Return why no process could be started as the site's file says, as far as that is known; "" if one could."""
        try:
            self.plan(0, self.shared.serial)
        except Refused as error:
            return str(error)
        return ""

    def prepare(self, how: Launch, slot: int) -> int:
        """Make what belongs to the site's own user; returns the descriptor of the scoreboard, -1 where nobody counts.

        Raises:
            OSError: it cannot be made.
        """
        if launch.needs_private(self.site):
            self.shared.rundir.give(self.site.name, how.identity.uid, how.identity.gid)
        return self.scoreboard.make(slot) if how.job else -1

    def fork(self, backend: Backend, how: Launch, given: Given, lost: Callable[[], None]) -> bool:
        """Have a preloader make the process; False where it needs a plain start.

        `lost` is called if it turns out later that there is no process.
        """
        return backend.fork(how, given, self.log, self.shared.preloaders, lost)

    def spawn(self, backend: Backend, how: Launch, given: Given) -> None:
        """Make the process.

        Raises:
            OSError: none can be made.
        """
        backend.spawn(how, given, self.shared.limits, self.log)
