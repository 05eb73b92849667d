"""What sites do in each second, for their histories (`multisite.sites.history`).

What the workers count is read from their files: one system call for each worker, and a comparison with what was there a
second ago. Only a record that has changed costs more. What a site's own processes count, their processor time and
their memory are looked at while there are any. Of a worker's memory, a site has the share that the bill has found.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic_ns

from multisite.config.model import Home
from multisite.runner import board
from multisite.runner.board import LATENCIES
from multisite.sites import history, usage
from multisite.sites.history import History, Sample
from multisite.sites.statefile import StateFile
from multisite.sites.tally import quantile
from multisite.supervisor.process import descriptors, kernel
from multisite.supervisor.process.kernel import Connections
from multisite.supervisor.site.costs import Figures
from multisite.supervisor.site.parts import NO_CONNECTIONS
from multisite.supervisor.site.supervised import SupervisedSite

MOST_OPEN = 128  # histories that are mapped at once, unless descriptors run out; others are opened when needed
WEIGH_EVERY = 5.0  # seconds between two measurements of memory
WEIGH_SHARE = 100  # which take at most 1/100 of the time
IDLE_CPU = 0.005  # seconds of processor time in a second that are no activity
SWEEP_EVERY = 3600.0  # seconds between two looks for histories of sites that are gone
GONE_AFTER = 7 * 86400.0  # seconds that such a history is kept
_SLOW = 95.0  # per cent of the requests that are answered within a sample's `latency`
_NONE = (0,) * (len(LATENCIES) + 1)

Counts = tuple[int, int, tuple[int, ...]]  # requests that have ended, errors, and the buckets of their times
NOTHING: Counts = (0, 0, _NONE)


class Recorder:
    """Writes the histories of a home's sites.

    Args:
        home: where the state directory is.
        folder: where the workers count.
        is_there: tells whether there still is a site of that name.
        in_workers: returns how many bytes of the workers each site uses.
    """

    def __init__(
        self,
        home: Home,
        folder: str,
        is_there: Callable[[str], bool],
        in_workers: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._home, self._is_there, self._in_workers = home, is_there, in_workers
        self._workers = Workers(folder, home)
        self._open: dict[str, History] = {}
        self._own: dict[str, Counts] = {}
        self._cpu: dict[str, float] = {}
        self._sizes: dict[str, float] = {}
        self._weigh_at = self._sweep_at = 0.0
        self._is_begun = False
        self._alive: set[str] = set()  # at the last look

    def tick(self, sites: Iterable[SupervisedSite], connected: Mapping[str, Connections], now: float) -> None:
        """Add what was done since the last call, a second ago.

        Args:
            sites: those that are supervised.
            connected: what the kernel knew of their connections a moment ago.
            now: monotonic seconds.
        """
        samples: dict[str, Sample] = {}
        for name, done in self._workers.changes():
            samples[name] = samples.get(name, history.NOTHING).and_(_sample(done))
        sites = list(sites)
        if not self._is_begun:  # what sites count that were taken over has been counted
            self._is_begun = True
            self._own = {one.site.name: _counts(one.figures().own) for one in sites}
            self._cpu = {one.site.name: _cpu(one) for one in sites}
        alive = [one for one in sites if one.pids or one.is_waiting]
        names = {one.site.name for one in alive}
        ended = self._alive - names
        for supervised in [*alive, *(one for one in sites if one.site.name in ended)]:
            sample = self._of_processes(supervised, connected)
            if sample:
                name = supervised.site.name
                samples[name] = samples.get(name, history.NOTHING).and_(sample)
        self._forget({one.site.name for one in sites}, names)
        self._weigh([one for one in alive if one.site.name in samples], now)
        when, most = time.time(), 0 if descriptors.are_low() else MOST_OPEN  # each has a descriptor
        shares = self._in_workers()
        for name, sample in samples.items():
            memory = self._sizes.get(name, 0.0) + shares.get(name, 0.0)
            self._add(name, when, sample._replace(memory=memory))
            self._close_above(most)
        self._close_above(most)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_EVERY
            self._sweep(when)

    def _forget(self, known: set[str], alive: set[str]) -> None:
        """Keep counts and seconds of the sites that are supervised, and sizes of those that have processes."""
        self._alive = alive
        self._own = {name: counts for name, counts in self._own.items() if name in known}
        self._cpu = {name: cpu for name, cpu in self._cpu.items() if name in known}
        self._sizes = {name: size for name, size in self._sizes.items() if name in alive}

    def _of_processes(self, supervised: SupervisedSite, connected: Mapping[str, Connections]) -> Sample | None:
        """Return what a site's own processes did, and how much waits for them; None: nothing."""
        name, figures = supervised.site.name, supervised.figures().own
        counts, cpu = _counts(figures), _cpu(supervised)
        before, used = self._own.get(name, NOTHING), max(0.0, cpu - self._cpu.get(name, 0.0))
        self._own[name], self._cpu[name] = counts, cpu
        waiting = connected.get(supervised.listener.path, NO_CONNECTIONS).waiting or int(supervised.is_waiting)
        done = _since(before, counts)
        if done == NOTHING and used < IDLE_CPU and not waiting:
            return None
        return _sample(done)._replace(cpu=used, waiting=float(waiting))

    def _weigh(self, sites: Iterable[SupervisedSite], now: float) -> None:
        """Measure memory now and then; the kernel walks all pages of a process for it."""
        if now < self._weigh_at or not sites:
            return
        begun = time.monotonic()
        for supervised in sites:
            self._sizes[supervised.site.name] = float(sum(map(kernel.memory, supervised.pids)))
        self._weigh_at = now + max(WEIGH_EVERY, WEIGH_SHARE * (time.monotonic() - begun))

    def _add(self, name: str, when: float, sample: Sample) -> None:
        kept = self._open.pop(name, None)
        if kept is None:
            try:
                os.makedirs(history.folder(self._home), mode=0o700, exist_ok=True)
                kept = History(history.path_of(self._home, name))
            except (OSError, ValueError):  # a disk that is full costs the history only
                return
        self._open[name] = kept  # the last one of those that are open
        kept.add(when, sample)

    def _close_above(self, most: int) -> None:
        while len(self._open) > most:
            self._open.pop(next(iter(self._open))).close()

    def _sweep(self, when: float) -> None:
        """Remove the histories of sites that are gone."""
        with contextlib.suppress(OSError), os.scandir(history.folder(self._home)) as found:
            for item in list(found):
                name = history.name_of(item.name)
                with contextlib.suppress(OSError):
                    if name and not self._is_there(name) and when - item.stat().st_mtime > GONE_AFTER:
                        if name in self._open:
                            self._open.pop(name).close()
                        os.unlink(item.path)

    def close(self) -> None:
        """Write no more."""
        for kept in self._open.values():
            kept.close()
        self._open.clear()


class Workers:
    """What each worker of a home has counted, and what has changed since the last look."""

    def __init__(self, folder: str, home: Home) -> None:
        self._folder, self._key = folder, StateFile(home, usage.FOLDER).key
        self._seen: dict[str, bytes] = {}

    def changes(self) -> Iterator[tuple[str, Counts]]:
        """Yield the name of each site of which a worker has counted more, and what; nothing at the first look."""
        seen: dict[str, bytes] = {}
        is_first = not self._seen
        with contextlib.suppress(OSError):
            for file, descriptor in usage.files(self._folder, self._key):
                before = self._seen.get(file, b"")
                data = _records(descriptor, len(before))
                seen[file] = data
                if data != before and not is_first:
                    yield from _changes(before, data)
        self._seen = seen or {"": b""}


def _records(descriptor: int, known: int) -> bytes:
    """Return all records of a worker that have a name; `known` bytes there were at the last look."""
    if os.fstat(descriptor).st_size < usage.MOST_SITES * usage.SIZE:
        return b""  # of an earlier release
    more = 16 * usage.SIZE
    data = os.pread(descriptor, known + more, 0)
    while len(data) >= usage.SIZE and data[-usage.SIZE] and len(data) < usage.MOST_SITES * usage.SIZE:
        further = os.pread(descriptor, len(data), len(data))
        if not further:
            break
        data += further
    size = len(data)
    while size >= usage.SIZE and not data[size - usage.SIZE]:
        size -= usage.SIZE
    return data[:size]


def _changes(before: bytes, data: bytes) -> Iterator[tuple[str, Counts]]:
    now = monotonic_ns()
    for at in range(0, len(data), usage.SIZE):
        new, old = data[at : at + usage.SIZE], before[at : at + usage.SIZE]
        if new == old:
            continue
        name = new[: usage.NAME].rstrip(b"\0").decode("ascii", "replace")
        record, earlier = board.record_of(new[usage.NAME :], now), board.record_of(old[usage.NAME :], now)
        if record:
            done = _since(_counts(earlier) if earlier else NOTHING, _counts(record))
            if done != NOTHING:
                yield name, done


def _cpu(supervised: SupervisedSite) -> float:
    """Return the processor time of all processes that a site has had since it has been supervised."""
    return supervised.costs.spent.cpu + sum(map(kernel.cpu, supervised.pids))


def _counts(counted: Figures | board.Record) -> Counts:
    return sum(counted.statuses), counted.errors, counted.latencies or _NONE


def _since(before: Counts, now: Counts) -> Counts:
    """Return the differences; a file that began again counts from nothing."""
    times = tuple(max(0, one - other) for one, other in zip(now[2], before[2], strict=True))
    return max(0, now[0] - before[0]), max(0, now[1] - before[1]), times


def _sample(done: Counts) -> Sample:
    requests, errors, times = done
    slow = quantile(LATENCIES, times, _SLOW) or 0.0
    return Sample(float(requests), float(errors), latency=min(slow, 2 * LATENCIES[-1]))
