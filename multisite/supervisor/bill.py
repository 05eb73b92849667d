"""Writes the bill: what each site has used since the last look is added to the day's document (`sites.spending`).

What processes of a site have used is in its tally. A worker serves many sites: its processor time is divided in
proportion to what each site has used in it, and its memory to what each site's import has added to it. What no request
has used, such as the start of the worker, is divided like the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

from multisite.config.model import Home
from multisite.runner.board import Record
from multisite.sites import usage
from multisite.sites.spending import MIB, NOTHING, Days, Rows, Spending, day_of
from multisite.sites.statefile import StateFile
from multisite.sites.tally import Tally
from multisite.supervisor.accounts import Accounts
from multisite.supervisor.process import kernel
from multisite.supervisor.reexec import Handed, converted, kept
from multisite.supervisor.site.supervised import SupervisedSite

WRITE_EVERY = 30.0  # seconds; what has been used since is lost where everything is killed
WEIGH_EVERY = 60.0  # seconds between two measurements of a process's memory
AT_ONCE = 0.005  # seconds of a second that measuring memory may take: the kernel walks all pages of a process for it
OUR_PART = 0.0001  # seconds of processor time, about, that a worker uses for a request besides the application
_ALL = ""  # no site's name: the worker itself

_log = logging.getLogger("multisite.supervisor")


class Bill(Handed):
    """Keeps the document of today.

    Args:
        home: whose bill it is.
        folder: where the workers count.
        before: what sites had used when this supervisor began.

    Attributes:
        in_workers: bytes of the workers that each site used at the last look.
    """

    KEPT = kept(
        _own=converted(
            lambda own: {name: list(one) for name, one in own.items()},
            lambda told: {name: Spending(*row) for name, row in told.items()},
        ),
    )
    ANEW = (
        "in_workers",
        "_days",
        "_folder",
        "_past",
        "_day",
        "_rows",
        "_seen",
        "_workers",
        "_sizes",
        "_at",
        "_read_at",
        "_is_new",
    )

    def __init__(self, home: Home, folder: str, before: Mapping[str, Tally]) -> None:
        self._days, self._folder, self._past = Days(home), folder, StateFile(home, usage.FOLDER)
        self._own: Rows = {name: _reading(tally) for name, tally in before.items()}  # of processes; billed up to here
        self._sizes = Sizes()
        self.in_workers: dict[str, float] = {}
        self._at = 0.0  # when the next look is due
        self._read_at: float | None = None
        found = self._days.all()
        self._day = found[-1] if found else ""
        self._rows, readings = self._days.read(self._day) if found else ({}, {})
        self._is_new = not readings
        self._seen: Rows = {name: Spending(*row) for name, row in readings.get("seen", {}).items()}  # of workers
        self._workers: dict[str, dict[str, float]] = readings.get("workers", {})

    def tick(self, sites: Iterable[SupervisedSite], accounts: Accounts, now: float) -> None:
        """Do what is due: measure memory each second, write each half minute."""
        alive = [one for one in sites if one.pids]
        self._sizes.measure({pid: one.site.name for one in alive for pid in one.pids}, now)
        if now >= self._at:
            self._at = now + WRITE_EVERY
            self.write(accounts.totals(sites, kernel.cpu_of_all), now)

    def write(self, totals: Mapping[str, Tally], now: float, wall: float = 0.0) -> None:
        """Add what was used since the last time.

        Args:
            totals: what all sites' processes have used so far.
            now: monotonic seconds.
            wall: Unix seconds, 0.0: now.
        """
        used: Rows = {}
        for name, tally in totals.items():
            reading = _reading(tally)
            before = self._own.get(name, NOTHING)
            _add(used, name, _spent(reading, before, self._sizes.of(name)))
            self._own[name] = reading.highest(before)
        self._read_workers(used, now)
        self._read_at = now
        self._keep({name: one for name, one in used.items() if any(one)}, day_of(wall or time.time()))

    def _keep(self, used: Rows, day: str) -> None:
        before, self._day = self._day, max(day, self._day)  # a clock that was set back adds to the newest day
        old = self._rows if before and before != self._day else {}
        if old:
            self._rows = {}
        for name, one in used.items():
            _add(self._rows, name, one)
        if not used and not old and before:
            return
        readings = {"seen": {name: list(one) for name, one in self._seen.items()}, "workers": self._workers}
        if not self._days.store(self._day, self._rows, readings):
            return _log.warning("MS562 the bill of %s cannot be written", self._day)
        if old:
            self._days.store(before, old)  # its readings are in the new one
            self._days.forget(self._day)

    # The workers

    def _read_workers(self, used: Rows, now: float) -> None:
        try:
            counted, since = usage.read(self._folder, self._past)
            records = list(usage.records(self._folder, self._past))
        except OSError:
            return
        began = self._is_new and day_of(since) < day_of(
            time.time()
        )  # what was used before there was a bill is not ours
        for name, sums in counted.items():
            seen = sums.all_of_them()
            reading = Spending(requests=seen.requests, received=seen.received, sent=seen.sent)
            before = self._seen.get(name, reading if began else NOTHING)
            _add(used, name, reading.since(before))
            self._seen[name] = reading.highest(before)
        workers: dict[tuple[int, bool], dict[str, Record]] = {}
        for name, record, is_dead in records:
            workers.setdefault((record.pid, is_dead), {})[name] = record
        known = {_key(sites): (pid, is_dead, sites) for (pid, is_dead), sites in workers.items()}
        self._workers = {key: one for key, one in self._workers.items() if key in known}
        self.in_workers = {}
        for key, (pid, is_dead, sites) in known.items():
            cpu = 0.0 if is_dead else kernel.cpu(pid)
            if began and key not in self._workers:
                self._workers[key] = _readings(cpu, sites)
            self._divide_time(key, cpu, sites, used)
            if not is_dead:
                self._divide_memory(self._sizes.weigh(pid, now), sites, now, used)
        self._is_new = False

    def _divide_time(self, key: str, cpu: float, sites: Mapping[str, Record], used: Rows) -> None:
        """Divide the processor time of a worker; of one that is gone, no more is known than what its sites have used.

        Where no site has used any, it is divided the next time.
        """
        before, found = self._workers.get(key, {}), _readings(cpu, sites)
        shares = {name: max(0.0, found[name] - before.get(name, 0.0)) for name in sites}
        total = sum(shares.values())
        if not total:
            return
        fresh = max(0.0, cpu - before.get(_ALL, 0.0)) if cpu else total
        for name, share in shares.items():
            if share:
                _add(used, name, Spending(cpu=fresh * share / total))
        self._workers[key] = {**found, _ALL: cpu or before.get(_ALL, 0.0)}

    def _divide_memory(self, size: int, sites: Mapping[str, Record], now: float, used: Rows) -> None:
        """Divide the memory of a worker by what each site's import has added to it."""
        total = sum(record.memory for record in sites.values())
        seconds = now - self._read_at if self._read_at is not None else 0.0
        for name, record in sites.items():
            if record.memory:
                part = size * record.memory / total
                self.in_workers[name] = self.in_workers.get(name, 0.0) + part
                _add(used, name, Spending(memory=part / MIB * seconds))


def _readings(cpu: float, sites: Mapping[str, Record]) -> dict[str, float]:
    """Return the seconds of processor time of a worker, and of each site in it."""
    return {**{name: _used_in(record) for name, record in sites.items()}, _ALL: cpu}


def _used_in(record: Record) -> float:
    """Return about how many seconds of processor time a worker has used for a site: the application, and our own part.

    The application's is measured, of some of its requests where there are many.
    """
    measured, ended = sum(record.latencies), sum(record.statuses)
    return record.cpu * (ended / measured if 0 < measured < ended else 1.0) + OUR_PART * record.requests


class Sizes(Handed):
    """How much memory processes use: each is measured once in a minute, the longest known first."""

    ANEW = ("_sizes", "_means")

    def __init__(self) -> None:
        self._sizes: dict[int, tuple[float, int]] = {}  # by pid: when, bytes
        self._means: dict[str, float] = {}

    def measure(self, pids: Mapping[int, str], now: float) -> None:
        """Measure some of the processes of sites, as long as there is time.

        Args:
            pids: the name of the site of each process.
            now: monotonic seconds.
        """
        due = sorted((self._sizes.get(pid, (0.0, 0))[0], pid) for pid in pids)
        begun = time.monotonic()
        for when, pid in due:
            if (when and now - when < WEIGH_EVERY) or time.monotonic() - begun > AT_ONCE:
                break
            self.weigh(pid, now)
        self._sizes = {pid: one for pid, one in self._sizes.items() if pid in pids or now - one[0] < 2 * WEIGH_EVERY}
        found: dict[str, list[int]] = {}
        for pid, name in pids.items():
            if pid in self._sizes:
                found.setdefault(name, []).append(self._sizes[pid][1])
        self._means |= {name: sum(sizes) / len(sizes) for name, sizes in found.items()}

    def of(self, name: str) -> float:
        """Return the bytes that one process of a site used last, with its children; 0.0 where none was measured."""
        return self._means.get(name, 0.0)

    def weigh(self, pid: int, now: float) -> int:
        """Return the bytes that a process uses with its children, measured within the last minute."""
        when, size = self._sizes.get(pid, (0.0, 0))
        if not when or now - when >= WEIGH_EVERY:
            size = sum(map(kernel.memory, kernel.family(pid)))
            self._sizes[pid] = now, size
        return size


def _reading(tally: Tally) -> Spending:
    """Return the counters of a tally; in the place of memory the seconds that processes were there."""
    return Spending(tally.cpu, tally.alive, tally.requests or 0, tally.received, tally.sent, tally.starts)


def _spent(reading: Spending, before: Spending, size: float) -> Spending:
    used = reading.since(before)
    return used._replace(memory=used.memory * size / MIB)


def _add(rows: Rows, name: str, one: Spending) -> None:
    rows[name] = rows.get(name, NOTHING).plus(one)


def _key(sites: Mapping[str, Record]) -> str:
    """Name a worker so that no later one with its number has the name: by when it first served a site."""
    first = min(sites.values(), key=lambda record: record.started)
    return f"{first.pid}-{first.started:.6f}"
