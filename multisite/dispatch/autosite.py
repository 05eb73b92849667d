"""A site with ``mode = auto`` as a worker has it: served from its process, or here, as the supervisor has decided.

Whoever asks for it meets its process first. When the supervisor has moved it into the workers, each of them imports
it beside the process, and answers by itself once that is whole. When it leaves again, its process answers at once, and
its modules go when no request can be left that uses them.
"""

from __future__ import annotations

import logging
import math
import threading
from typing import Any

from multisite.config.model import Home
from multisite.dispatch.site import InProcessSite
from multisite.errors import MultisiteError, NeedsProcess
from multisite.inprocess import generation, workdir
from multisite.inprocess.generation import Generation
from multisite.logs.requests import SPAWNED
from multisite.sites import changes, sharing
from multisite.sites.placements import Placements
from multisite.sites.server import head_limits

LINGERS = 30.0  # seconds at least from the last request here until the modules go
ASK_AGAIN = 60.0  # seconds until a supervisor that could not be had is asked for again

_log = logging.getLogger("multisite.placed")


class Reach:
    """Whether this process can have a supervisor: where it cannot, its sites live here, as before there was one."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._why, self._ask_at = "", 0.0

    def obstacle(self, now: float) -> str:
        """Return why there are no processes for sites, "" if there are; found out at the first need."""
        with self._lock:
            if now >= self._ask_at:
                self._why = self._ask()
                self._ask_at = now + ASK_AGAIN if self._why else math.inf
            return self._why

    def _ask(self) -> str:
        from multisite.control.client import Client

        try:
            Client(self._home).meet(head_limits())
        except (MultisiteError, OSError) as error:
            _log.warning("sites with mode = auto are imported by the workers unseen: %s", error)
            return str(error)
        return ""


class AutoSite(InProcessSite):
    """One enabled site in this worker, wherever it lives; what has no ``mode = auto`` is as its base class has it.

    Args:
        placements: of the home.
        reach: of this process.
    """

    def __init__(self, *args: Any, placements: Placements, reach: Reach, **more: Any) -> None:
        super().__init__(*args, **more)
        self._placements, self._reach = placements, reach
        self._version = ""  # of the code that was imported here
        self._refused = ("", 0.0)  # the decision that could not be followed: version, since when
        self._is_alone = False  # it is here because there are no processes
        self._leaving: Generation | None = None
        self._drop_at = 0.0

    def look(self, now: float) -> None:
        """Do what is due."""
        if self._offer or self._failure or not self._is_placed():
            super().look(now)
        else:
            self._layers.look()
            self._heed(now)

    def sweep(self, now: float) -> None:
        """Leave, if that is decided, and let go of what was left, whether or not anybody asks for the site."""
        if self._leaving and now >= self._drop_at:
            with self._unless_busy() as free:
                if free and self._leaving:
                    gone, self._leaving = self._leaving, None
                    generation.drop(self._site, self._ledger, gone)
        elif self._generation and self._is_placed() and self._decided()[0] != self._version:
            self._leave(now)

    def _is_placed(self) -> bool:
        """Whether the supervisor decides where it lives."""
        return not (self._is_alone or self._entry.broken) and sharing.is_examined(self._site, self._home)

    def _decided(self) -> tuple[str, float]:
        """Return the version of the site that is to be served here, "" for none, and since when."""
        row = self._placements.of(self.name)
        return (row.version, row.since) if row and row.is_here else ("", 0.0)

    def _heed(self, now: float) -> None:
        decided = self._decided()
        if self._generation:
            if decided[0] != self._version:
                self._leave(now)
            elif self._fired(now):
                self._triggers.take()
                self._take_file()
        elif decided[0] and self._how == SPAWNED and decided != self._refused:
            with self._unless_busy() as free:
                if free:
                    self._enter(decided)

    def _load(self) -> None:
        why = self._site.share and self._is_placed() and self._reach.obstacle(self._clock())
        if why:
            self._is_alone = True
            self._placements.alone(self.name, why)
        if not self._is_placed():
            return super()._load()
        decided = self._decided()
        if not decided[0] or decided == self._refused or not self._enter(decided):
            self._verdicts.clear(self.name)
            self._serve_elsewhere()
        return None

    def _enter(self, decided: tuple[str, float]) -> bool:
        """Import the site beside its process, if that version is what is on disk; returns whether it is served here."""
        version = decided[0]
        if not self._site.share or changes.version_of(self._site, self._home) != version:
            return False
        self._triggers.begin(self._files())
        try:
            self._check_paths()
            newest = self._import()
        except MultisiteError as error:
            self._refused = decided
            _log.warning("site %s: cannot be imported by the workers: %s", self.name, error.reason)
            why = error.why if isinstance(error, NeedsProcess) else f"a worker could not import it: {error.reason}"
            self._tell("refuse", version=version, why=why)
            return False
        self._version, self._leaving = version, None
        self._serve(newest)
        _log.info("site %s: lives in the workers", self.name)
        return True

    def _check_paths(self) -> None:
        """Keep a site out that uses relative paths where it would not find what they mean."""
        row, why = self._placements.of(self.name), workdir.obstacle()
        if row and row.found.notes and why:
            raise NeedsProcess(f"it {row.found.notes[0]}, and {why}")

    def _leave(self, now: float) -> None:
        with self._unless_busy() as free:
            if free and self._generation:
                self._leaving, self._generation = self._generation, None
                self._drop_at = now + max(LINGERS, self._site.request_timeout)
                self._serve_elsewhere()
                _log.info("site %s: has left the workers", self.name)

    def _serve_elsewhere(self) -> None:
        assert self._elsewhere
        self._put(self._elsewhere(self._site, self._home), SPAWNED)

    def _take_file(self) -> None:
        """Have new code examined in a process; what is here goes on until the supervisor has decided."""
        if not self._is_placed():
            super()._take_file()
        else:
            self._tell("examine")

    def _tell(self, command: str, **more: str) -> None:
        from multisite.control.client import Client

        client = Client(self._home)
        try:
            client.ensure(self.name, limits=head_limits())  # starts a supervisor where there is none
            client.ask({"do": command, "site": self.name, **more})
        except (MultisiteError, OSError) as error:
            _log.warning("site %s: goes on with its old code: %s", self.name, error)

    def _drop(self) -> None:
        self._generation, self._leaving = self._generation or self._leaving, None
        super()._drop()
