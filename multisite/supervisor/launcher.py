"""Starts a backend of one site: what is to be run, and what has to be there before."""

from __future__ import annotations

import os
from dataclasses import dataclass

from multisite.model import Home, Site
from multisite.supervisor import launch
from multisite.supervisor.launch import Surroundings
from multisite.supervisor.process import Launch
from multisite.supervisor.scoreboard import Scoreboard
from multisite.supervisor.shared import Shared


@dataclass(frozen=True)
class Launcher:
    """Plans and prepares the processes of `site` as its file says now."""

    site: Site
    home: Home
    shared: Shared
    scoreboard: Scoreboard

    def plan(self, slot: int, serial: int, *, smoke: bool = False) -> Launch:
        """Decide how to start the backend `serial` at the place `slot`.

        `smoke`: it has to answer the site's smoke request before it takes any other.

        Raises:
            Refused: it cannot be started as its file says.
        """
        around = Surroundings(
            environ=os.environ,
            notify=self.shared.notify,
            private=self.shared.rundir.private(self.site.name),
            board=self.scoreboard.path,
            mark=self.shared.mark_of(self.site.name, serial),
            slot=slot,
            examine=self.shared.placing.wanted(self.site, self.home) if self.shared.placing else "",
            smoke=smoke,
        )
        return launch.plan(self.site, self.home, around)

    def prepare(self, how: Launch, slot: int) -> None:
        """Make what belongs to the site's own user.

        Raises:
            OSError: it cannot be made.
        """
        if how.job:
            self.scoreboard.make(how.identity, slot)
        if launch.needs_private(self.site):
            folder = self.shared.rundir.private(self.site.name)
            os.makedirs(folder, 0o700, exist_ok=True)
            if how.identity.change:
                os.chown(folder, how.identity.uid, how.identity.gid)
