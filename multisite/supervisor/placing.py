"""Moves sites with ``mode = auto`` into the workers and out of them, by what their examination and their use say.

A site's process tells what its examination found (`multisite.runner.examine`); the decision is `placement.settle`. What
comes of it stands in a document (`multisite.placements`) that every worker looks at once a second.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from multisite import catalogue, codeversion, examined, placement, sharing, usage
from multisite.examined import Examined
from multisite.model import Home, Site
from multisite.placement import MINUTE, Heat, Placement
from multisite.placements import Placements, Row
from multisite.runner.examine import AGAIN_AFTER
from multisite.statefile import StateFile
from multisite.supervisor.crew import Crew
from multisite.supervisor.failures import Unavailable
from multisite.supervisor.lifecycle import State
from multisite.supervisor.roster import Roster

LOOK_EVERY = 2.0  # seconds
LINGERS = 5.0  # seconds without a request after which the process of a site that lives in the workers ends
LEFT = "it was in the workers when the service ended"
CHANGED = "its files have changed since they were examined; its next start examines them"

_log = logging.getLogger("multisite.supervisor")


class Use:
    """Readings of one counter of requests, over a minute."""

    def __init__(self, now: float) -> None:
        self._changed = now
        self._readings: deque[tuple[float, usage.Sums]] = deque()

    def add(self, now: float, sums: usage.Sums) -> None:
        """Take a reading."""
        if self._readings and sums.requests != self._readings[-1][1].requests:
            self._changed = now
        self._readings.append((now, sums))
        while len(self._readings) > 2 and now - self._readings[1][0] >= MINUTE:
            self._readings.popleft()

    def heat(self, now: float) -> Heat:
        """Return how the site is used."""
        if not self._readings:
            return Heat(idle=now - self._changed)
        first, last = self._readings[0][1], self._readings[-1][1]
        measured = last.measured - first.measured
        average = (last.busy - first.busy) / measured if measured >= placement.ENOUGH else 0.0
        return Heat(last.requests - first.requests, now - self._changed, average)


class Placing:
    """Where the sites of a roster live.

    Args:
        roster: of the sites; those that have been examined have, or have had, a crew there.
        folder: where the workers count.
        clock: tells the monotonic time.
    """

    def __init__(self, roster: Roster, folder: str, clock: Callable[[], float]) -> None:
        self._roster, self._folder, self._clock = roster, folder, clock
        self._file = Placements(roster.home)
        self._rows = dict(self._file.rows())
        self._uses: dict[str, Use] = {}
        self._look_at = 0.0
        self._changed = False

    def wanted(self, site: Site, home: Home) -> str:
        """Return the version of the site's code that its next process is to examine, "" for none."""
        if not sharing.is_examined(site, home):
            return ""
        version, row = codeversion.version_of(site, home), self._rows.get(site.name)
        return "" if row and row.version == version and _is_known(row.found) else version

    def take(self, site: Site, version: str, told: str) -> None:
        """Take note of what a process says of its site, whatever it says: it can harm that site only."""
        found, row = examined.heard(told), self._rows.get(site.name)
        if not version or not found:
            return
        if row and row.version == version:
            if not row.found.findings:
                found = replace(found, requests=max(found.requests, row.found.requests))
                self._put(site.name, replace(row, found=found))
        else:
            self._put(site.name, Row(version, found, "spawned", "", time.time()))
        self._decide(site.name, self._clock())
        self._store()

    def examine(self, name: str) -> None:
        """Have the newest code of a site examined: a process is started, beside whatever serves.

        Raises:
            KeyError, Unavailable: as `Roster.crew`.
        """
        crew = self._roster.crew(name)
        crew.ensure()
        if crew.pids:
            crew.replace("its code is examined anew")
        else:
            crew.is_followed = True
            crew.want()

    def refuse(self, name: str, version: str, why: str) -> None:
        """Keep a version of a site out of the workers: one of them could not import it."""
        row = self._rows.get(name)
        if row and row.version == version and not row.held:
            self._put(name, replace(row, held=why[: examined.LONGEST]))
            self._decide(name, self._clock())
            self._store()

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY
        here = any(row.is_here for row in self._rows.values())
        sums = usage.read(self._folder, StateFile(self._roster.home, usage.FOLDER))[0] if here else {}
        for name in list(self._rows):
            self._measure(name, now, sums)
            self._decide(name, now)
            self._dismiss(name, now)
        self._store()

    def leave(self) -> None:
        """The service ends: who is busy the next time shows that anew."""
        for name, row in self._rows.items():
            if row.is_here:
                self._move(name, row, Placement("spawned", LEFT))
        self._store()

    def _put(self, name: str, row: Row) -> None:
        self._changed |= self._rows.get(name) != row
        self._rows[name] = row

    def _store(self) -> None:
        if self._changed:
            self._changed = False
            self._file.store(self._rows)

    def _measure(self, name: str, now: float, sums: dict[str, usage.Sums]) -> None:
        use, crew = self._uses.setdefault(name, Use(now)), self._roster.get(name)
        if self._rows[name].is_here:
            use.add(now, sums.get(name, usage.Sums()))
        elif crew:
            use.add(now, usage.Sums(crew.figures().requests or 0))

    def _decide(self, name: str, now: float) -> None:
        row, site = self._rows[name], self._site(name)
        if not site:
            del self._rows[name]
            self._uses.pop(name, None)
            self._changed = True
            return
        options, use = self._roster.home.supervisor, self._uses.setdefault(name, Use(now))
        decided = placement.settle(row.found, use.heat(now), options, here=row.is_here, idle_timeout=site.idle_timeout)
        if row.held:
            decided = Placement("spawned", row.held)
        elif decided.shareable and not row.is_here:
            why = self._obstacle(site, row)
            decided = Placement("spawned", why) if why else decided
        if decided.kind != row.kind:
            self._change(name, row, decided)
        elif decided.reason:
            self._put(name, replace(row, reason=decided.reason))

    def _change(self, name: str, row: Row, decided: Placement) -> None:
        if row.is_here and placement.SLOW in decided.reason:
            row = replace(row, held=decided.reason)
            self._put(name, row)
        if not row.is_here or placement.IDLE in decided.reason or self._is_running(name):
            self._move(name, row, decided)

    def _move(self, name: str, row: Row, decided: Placement) -> None:
        where = "lives in the workers" if decided.shareable else "lives in a process of its own"
        _log.info("site %s: %s: %s", name, where, decided.reason)
        self._put(name, replace(row, kind=decided.kind, reason=decided.reason, since=time.time()))
        self._uses.pop(name, None)

    def _is_running(self, name: str) -> bool:
        """Tell whether a process of the site serves; one is started if there is none."""
        try:
            crew = self._roster.crew(name)
            crew.ensure()
        except (KeyError, OSError, Unavailable):
            return False
        if not crew.pids:
            crew.want()
        return crew.state is State.RUNNING

    def _site(self, name: str) -> Site | None:
        """Return a site that is examined by what its file says now."""
        found = self._roster.catalogue
        if name not in found.entries or found.entries[name].broken or found.hosting(name):
            return None
        site = found.site(name)
        return site if sharing.is_examined(site, self._roster.home) else None

    def _obstacle(self, site: Site, row: Row) -> str:
        """Return why a site cannot be imported by the workers just now, "" if it can."""
        home = self._roster.home
        if codeversion.version_of(site, home) != row.version:
            return CHANGED
        ledger = catalogue.ledger(home, lambda: self._roster.catalogue)
        where = sharing.place_among(site, home, ledger)
        return "" if where.shareable else where.reason

    def _dismiss(self, name: str, now: float) -> None:
        """End the process of a site that lives in the workers once nobody has asked it for a while."""
        row, crew = self._rows.get(name), self._roster.get(name)
        if row and row.is_here and crew and time.time() - row.since > LINGERS and _is_unused(crew, now):
            crew.stop("the site lives in the workers")


def _is_unused(crew: Crew, now: float) -> bool:
    return crew.state is State.RUNNING and not crew.figures().in_flight and now - crew.activity.last_use > LINGERS


def _is_known(found: Examined) -> bool:
    """Tell whether nothing more is to be learnt of a version."""
    return bool(found.findings) or found.requests >= AGAIN_AFTER[-1]


def folder_of(runtime_dir: str) -> str:
    """Return where the workers count."""
    return os.path.join(runtime_dir, usage.FOLDER)
