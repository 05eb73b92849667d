"""Makes the processes of one site: what is to be run, what has to be there before, and who makes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from multisite.config.model import Home, Site
from multisite.config.policies import Refused
from multisite.logs import servicelog
from multisite.supervisor import planner
from multisite.supervisor.notify import Said
from multisite.supervisor.process import launch
from multisite.supervisor.process.sitelog import SiteLog
from multisite.supervisor.process.spec import Given, Launch, Surroundings
from multisite.supervisor.site.backend import Backend
from multisite.supervisor.site.scoreboard import Scoreboard
from multisite.supervisor.site.shared import Shared


@dataclass
class Launcher:
    """Plans, prepares and makes the processes of `site` as its file says now.

    Attributes:
        log: takes what they print.
        heard: takes what they say.
    """

    site: Site
    home: Home
    shared: Shared
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
