"""Moves sites with ``mode = auto`` into the workers and out of them, by what their examination and their use show.

A site's process reports what its examination found (`multisite.runner.examine`); `placement.settle` decides. The result
is a document (`sites.placements`) that every worker looks at once a second. Only this module writes it, at most once in
`LOOK_EVERY` seconds.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from multisite.config.model import Home, Site
from multisite.errors import AppLoadError
from multisite.runner.follow import AGAIN_AFTER
from multisite.sites import catalogue, changes, claims, placement, sharing, usage
from multisite.sites.figures import Sums
from multisite.sites.placement import CHANGED, ENOUGH, MINUTE, Examined, Heat, Placement, Saving
from multisite.sites.placements import Placements, Row, row_of
from multisite.sites.statefile import StateFile
from multisite.supervisor import accounts
from multisite.supervisor.lifecycle import State
from multisite.supervisor.process import launch
from multisite.supervisor.reexec import Form, Handed, converted, kept
from multisite.supervisor.reexec import State as Packed
from multisite.supervisor.site.costs import Figures
from multisite.supervisor.site.exits import IN_THE_WORKERS
from multisite.supervisor.site.failures import Unavailable
from multisite.supervisor.site.supervised import SupervisedSite
from multisite.supervisor.sites import SupervisedSites

LOOK_EVERY = 2.0  # seconds
LINGERS = 5.0  # seconds without a request after which the process of a site in the workers ends
LEFT = "it was in the workers when the service ended"
HELD_FOR = 3600.0  # seconds that a site stays out that was slow in the workers, or could not be imported there
BUSY = "it has sent BUSY=1, so it is at work without a request"
PATIENCE = 30.0  # seconds after which it is clear that the workers hand its requests over and so do not measure them
BLOCKED_FOR = 10.0  # seconds until we check again what keeps a busy site out

_log = logging.getLogger("multisite.supervisor")


class Use(Handed):
    """Readings of one counter of requests, over a minute."""

    KEPT = kept(
        "_changed",
        _readings=converted(
            lambda readings: [[now, asdict(sums)] for now, sums in readings],
            lambda told: deque((now, Sums(**sums)) for now, sums in told),
        ),
    )

    def __init__(self, now: float) -> None:
        self._changed = now
        self._readings: deque[tuple[float, Sums]] = deque()

    @classmethod
    def taken_over(cls, state: Packed) -> Use:
        """Return the readings that another program took."""
        made = cls(0.0)
        made.take_over(state)
        return made

    def add(self, now: float, sums: Sums) -> None:
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


class Promotion(Handed):
    """Where the sites of a home run.

    Args:
        sites: those that are, or have been, supervised; no others are examined.
        folder: of the counts of the workers.
        clock: returns the monotonic time.
    """

    KEPT = kept(
        "_names _blocked _changed",
        _rows=converted(
            lambda rows: {name: asdict(row) for name, row in rows.items()},
            lambda told: {name: row for name, one in told.items() if (row := row_of(one))},
        ),
        _uses=Form(
            lambda uses, keep: {name: use.pack(keep) for name, use in uses.items()},
            lambda told, _made: {name: Use.taken_over(one) for name, one in told.items()},
        ),
    )
    ANEW = ("_sites", "_folder", "_clock", "_file", "_seen", "_look_at", "_savings")  # savings are measured again

    def __init__(self, sites: SupervisedSites, folder: str, clock: Callable[[], float]) -> None:
        self._sites, self._folder, self._clock = sites, folder, clock
        self._file = Placements(sites.home)
        self._rows = {name: row for name, row in self._file.rows().items() if row.version}
        self._uses: dict[str, Use] = {}
        self._names: dict[str, claims.Names] = {}  # names of modules, by site moved into the workers
        self._blocked: dict[str, tuple[float, str]] = {}  # until when, and why, busy sites cannot move
        self._savings = Savings()
        self._seen: catalogue.Catalogue | None = None
        self._look_at = 0.0
        self._changed = False

    def wanted(self, site: Site, home: Home) -> str:
        """Return the version of the site's code that its next process must examine, "" for none."""
        if not sharing.is_examined(site, home):
            return ""
        version, row = changes.version_of(site, home), self._rows.get(site.name)
        other = launch.stranger(site, home)
        if other:  # the report of its process must not bring its code to another user
            found = Examined((placement.of_another(other, sharing.facts(site).user),))
            self._take_findings(site.name, f"{version} as {other}", found)
            return ""
        return "" if row and row.version == version and _is_known(row.found, site) else version

    def take_facts(self, site: Site, version: str, told: str) -> None:
        """Handle what a process reports about its site, whatever that is.

        A process that lies brings its own code into the workers, which run as the same user (`wanted`): it could do the
        same harm to them from where it is.
        """
        found = placement.heard(told)
        if found:
            self._take_findings(site.name, version, found)

    def _take_findings(self, name: str, version: str, found: Examined) -> None:
        row = self._rows.get(name)
        if not row or row.version != version:
            was_here = row is not None and row.was_here
            self._put(name, Row(version, found, "spawned", "", time.time(), was_here=was_here))
        elif not row.found.findings:
            self._put(name, replace(row, found=found.after(row.found)))
        self._decide(name, self._clock())

    def examine(self, name: str) -> None:
        """Examine the newest code of a site: start a process for that, beside those that serve.

        Raises:
            KeyError, Unavailable: as `SupervisedSites.supervise`.
        """
        supervised = self._sites.supervise(name)
        supervised.ensure()
        if supervised.pids:
            supervised.replace("its code is examined again")
        else:
            supervised.deploys.is_followed = True
            supervised.want()

    def refuse(self, name: str, version: str, why: str) -> None:
        """Keep a version of a site out of the workers: one of them could not import it."""
        row = self._rows.get(name)
        if row and row.version == version and not row.held:
            self._put(name, replace(row, held=why[: placement.LONGEST]))
            self._decide(name, self._clock())

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY
        self._forget_gone()
        here = {name for name, row in self._rows.items() if row.is_here}
        counted = here | self._savings.keys()
        sums = usage.read(self._folder, self._past(), counted)[0] if counted else {}
        for name in list(self._rows):  # there may be thousands; those at rest cost one look
            supervised = self._sites.get(name)
            if name in here or (supervised and supervised.backends):
                self._measure(name, now, sums)
                self._weigh_up(name, now, sums)
                self._decide(name, now)
                self._dismiss(name, now)
            else:
                self._uses.pop(name, None)
                self._savings.pop(name, None)
        self._store()

    def _past(self) -> StateFile:
        return StateFile(self._sites.home, usage.FOLDER)

    def _forget_gone(self) -> None:
        if self._seen is not self._sites.catalogue:
            self._seen = self._sites.catalogue
            for name in self._rows.keys() - self._seen.entries.keys():
                self._forget(name)

    def _forget(self, name: str) -> None:
        del self._rows[name]
        for known in (self._uses, self._names, self._blocked, self._savings):
            known.pop(name, None)
        self._changed = True

    def leave(self) -> None:
        """Move all sites out of the workers, because the service ends: their next use shows again which are busy."""
        for name, row in self._rows.items():
            if row.is_here:
                self._move(name, row, Placement("spawned", LEFT))
        self._store()

    def _put(self, name: str, row: Row) -> None:
        self._changed |= self._rows.get(name) != row
        self._rows[name] = row

    def _store(self) -> None:
        if self._changed and self._file.store(self._rows):
            self._changed = False

    def _measure(self, name: str, now: float, sums: dict[str, Sums]) -> None:
        use, supervised = self._uses.setdefault(name, Use(now)), self._sites.get(name)
        if self._rows[name].is_here:
            use.add(now, sums.get(name, Sums()))
        elif supervised:
            use.add(now, Sums(supervised.figures().requests or 0))

    def _weigh_up(self, name: str, now: float, sums: dict[str, Sums]) -> None:
        """Measure, once, what sharing would save for a clean, light and busy site that may not share."""
        row, supervised, site = self._rows[name], self._sites.get(name), self._site(name)
        options = self._sites.home.supervisor
        fits = site and supervised and not (site.share or row.saving or placement.objection(row.found, options))
        if not fits or self._uses[name].heat(now).requests < options.promote_after:
            self._savings.pop(name, None)
            return
        assert supervised
        seconds = self._savings.read(supervised, sums.get(name, Sums()), now)
        if seconds is not None:
            workers = len(usage.pids(self._folder, self._past()))
            self._put(name, replace(row, saving=_saving(supervised, seconds, row.found.memory, workers)))

    def _decide(self, name: str, now: float) -> None:
        row, site = self._rows[name], self._site(name)
        if not site:
            self._forget(name)
            return
        if row.held and not row.is_here and time.time() - row.since > HELD_FOR:
            row = replace(row, held="")
            self._put(name, row)
        decided = self._decided(site, row, now)
        if decided.kind != row.kind:
            self._change(name, row, decided)
        elif decided.reason:
            self._put(name, replace(row, reason=decided.reason))

    def _decided(self, site: Site, row: Row, now: float) -> Placement:
        options, heat = self._sites.home.supervisor, self._uses.setdefault(site.name, Use(now)).heat(now)
        found = placement.settle(
            row.found if placement.is_tried(site) else replace(row.found, is_untried=False),
            heat,
            options,
            here=row.is_here,
            idle_timeout=site.idle_timeout,
            share=site.share,
            saving=row.saving,
        )
        if row.held:
            return Placement("spawned", row.held)
        if not found.shareable or row.is_here:
            return found
        until, why = self._blocked.get(site.name, (now, ""))
        if now >= until:
            why = self._obstacle(site, row)
            self._blocked[site.name] = (now + BLOCKED_FOR, why)
        return Placement("spawned", why) if why else found

    def _change(self, name: str, row: Row, decided: Placement) -> None:
        if row.is_here and decided.cause == placement.SLOW:
            row = replace(row, held=decided.reason)
            self._put(name, row)
        if not row.is_here or decided.cause == placement.IDLE or self._is_running(name):
            self._move(name, row, decided)

    def _move(self, name: str, row: Row, decided: Placement) -> None:
        where = "runs in the workers" if decided.shareable else "runs in its own process"
        _log.info("site %s: %s: %s", name, where, decided.reason)
        was_here = row.was_here or decided.shareable
        self._put(name, replace(row, kind=decided.kind, reason=decided.reason, since=time.time(), was_here=was_here))
        self._uses.pop(name, None)
        self._blocked.pop(name, None)
        if not decided.shareable:
            self._names.pop(name, None)

    def _is_running(self, name: str) -> bool:
        """Tell whether a process of the site serves; start one if none does."""
        try:
            supervised = self._sites.supervise(name)
            supervised.ensure()
        except (KeyError, OSError, Unavailable):
            return False
        if not supervised.pids:
            supervised.want()
        return supervised.state is State.RUNNING

    def _site(self, name: str) -> Site | None:
        """Return a site that is examined, according to its file as it is now."""
        found = self._sites.catalogue
        if name not in found.entries or found.entries[name].broken or found.hosting(name):
            return None
        site = found.site(name)
        return site if sharing.is_examined(site, self._sites.home) else None

    def _obstacle(self, site: Site, row: Row) -> str:
        """Return why the workers cannot import a site now; if they can, return "" and remember its names."""
        home, supervised = self._sites.home, self._sites.get(site.name)
        if supervised and supervised.says_busy:
            return BUSY  # which it could not report there
        if changes.version_of(site, home) != row.version:
            return CHANGED
        held = catalogue.ledger(home, lambda: self._sites.catalogue).others(site.name)
        others = {name: names for name, names in self._names.items() if name != site.name}
        where = sharing.place_among(site, home, {**held, **others})
        if not where.shareable:
            return where.reason
        with contextlib.suppress(AppLoadError):  # its process would have failed first
            self._names[site.name] = sharing.wanted(site).names
        return ""

    def _dismiss(self, name: str, now: float) -> None:
        """End the process of a site that runs in the workers when it has had no request for a while.

        A warm site keeps its process, for when it leaves the workers.
        """
        row, supervised = self._rows.get(name), self._sites.get(name)
        if row and row.is_here and supervised and not supervised.is_due and _is_unused(supervised, now):
            supervised.stop(IN_THE_WORKERS)


def _is_unused(supervised: SupervisedSite, now: float) -> bool:
    idle = now - supervised.activity.last_use
    is_at_rest = supervised.state is State.RUNNING and not supervised.figures().in_flight
    return is_at_rest and idle > LINGERS and supervised.is_idle(now)


def _is_known(found: Examined, site: Site) -> bool:
    """Tell whether examining a version again can show nothing new."""
    return bool(found.findings) or (
        found.requests >= AGAIN_AFTER[-1] and not (found.is_untried and placement.is_tried(site))
    )


@dataclass(frozen=True, slots=True)
class _Begun:
    """Of one site: since when it is measured, and its counts at that time."""

    at: float
    there: Sums
    here: Figures


class Savings(dict[str, _Begun | None]):
    """The busy sites that may not share and are being measured, by name; None: the next reading is the first.

    In the workers these sites would need no processes, but each worker would hold their code. A request would save its
    way to the process and back: the difference between the time that workers measure and the time of the process.
    """

    def read(self, supervised: SupervisedSite, sums: Sums, now: float) -> float | None:
        """Take a reading of a site.

        Args:
            supervised: the site.
            sums: what the workers have counted for it.
            now: monotonic seconds.

        Returns:
            The seconds that a request would save, 0.0 if there are none or it cannot be known; None: not known yet.
        """
        name, figures = supervised.site.name, supervised.figures()
        begun = self.get(name)
        if begun is None:
            self[name] = _Begun(now, sums, figures)
            return None
        measured, asked = sums.measured - begun.there.measured, (figures.requests or 0) - (begun.here.requests or 0)
        if measured >= ENOUGH and asked >= ENOUGH:
            whole, inside = (sums.busy - begun.there.busy) / measured, (figures.busy - begun.here.busy) / asked
            return max(0.0, whole - inside)
        return 0.0 if now - begun.at > PATIENCE else None


def _saving(supervised: SupervisedSite, seconds: float, added: int, workers: int) -> Saving:
    """Return what a site would save.

    Args:
        supervised: the site; weighing its processes takes milliseconds.
        seconds: of each request.
        added: bytes that the site would add to each worker.
        workers: how many there are.
    """
    sizes = accounts.weighed(supervised.pids, accounts.by_session())
    return Saving(max(0, sum(sizes.values()) - added * workers), round(seconds, 5))
