"""What one site has cost: its last use, what its processes count on their scoreboard, and what ended ones used."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from multisite.runner import board
from multisite.runner.board import STATUSES
from multisite.sites.tally import REASONS, Tally, tally_of
from multisite.supervisor.lifecycle import State
from multisite.supervisor.process import descriptors
from multisite.supervisor.process.spec import SLOTS
from multisite.supervisor.reexec import Form, Handed, Keeper, kept, taken
from multisite.supervisor.site.backend import Backend


@dataclass
class Costs(Handed):
    """Keeps count.

    Attributes:
        spent: the starts, and what ended processes have used.
        start_cost: seconds that the last start took.
        size: bytes that one of the processes used at the last measurement; 0: never measured.
    """

    KEPT = kept(
        "start_cost size",
        spent=Form(lambda spent, _keep: spent.as_dict(), lambda told, made: tally_of(told) or made),
    )

    spent: Tally = field(default_factory=Tally)
    start_cost: float = 0.0
    size: int = 0

    def started(self, count: int, kind: str, waited: float | None = None) -> None:
        """Count some starts.

        Args:
            kind: one of `multisite.sites.tally.KINDS`; "cold": somebody waited for one of them while nothing ran.
            waited: seconds that somebody did.
        """
        cold = int(kind == "cold" and count > 0)
        kinds = {kind: cold or count, **({"warm": count - cold} if cold and count > cold else {})}
        self.spent += Tally(
            count,
            cold,
            first_start=time.time(),
            starts_by_kind=kinds,
            queued=int(waited is not None),
            queued_seconds=waited or 0.0,
        )

    def ready(self, seconds: float) -> None:
        """Count the duration of a start."""
        self.start_cost = seconds
        self.spent += Tally(ready=1, start_seconds=seconds)

    def stopped(self, reason: str) -> None:
        """Count the end of a process that had served; reasons other than `REASONS` are "other"."""
        self.spent += Tally(stops_by_reason={reason if reason in REASONS else "other": 1})

    def failed(self) -> None:
        """Count a start that failed."""
        self.spent += Tally(start_failures=1)

    def turned_away(self, count: int) -> None:
        """Count requests that no worker has counted and that we have answered ourselves, with a 503."""
        statuses = tuple(count if name == "5xx" else 0 for name in STATUSES)
        self.spent += Tally(requests=count, errors=count, statuses=statuses)

    def settle(self, figures: Figures) -> None:
        """Add what the processes have counted on a scoreboard that is about to be put away."""
        self.spent = replace(self.tally(figures, 0.0, 0.0, 0.0), last_use=self.spent.last_use)

    def ended(self, cpu: float, served: float, lost: int = 0) -> None:
        """Add the seconds of a process that has ended, and the requests that its end left without an answer."""
        self.spent += Tally(cpu=cpu, alive=served, errors=lost, statuses=(lost, *(0 for _ in STATUSES[1:])))

    def weighed(self, backends: Iterable[Backend]) -> None:
        """Note the size of a process, now that memory has been measured."""
        running = (backend.memory for backend in backends if backend.state is State.RUNNING)
        self.size = max(running, default=0) or self.size

    def tally(self, figures: Figures, cpu: float, alive: float, last_use: float) -> Tally:
        """Return what the site has used.

        Args:
            figures: the counts of its own processes.
            cpu, alive: seconds of the living ones.
            last_use: Unix seconds.
        """
        own = figures.own
        return self.spent + Tally(
            requests=own.requests,
            errors=own.errors,
            busy=own.busy,
            received=own.received,
            sent=own.sent,
            cpu=cpu,
            alive=alive,
            last_use=last_use if self.spent.starts else 0.0,
            latencies=own.latencies,
            statuses=own.statuses,
            app=sum(figures.latencies),
            app_seconds=figures.busy,
        )


class Activity(Handed):
    """The last use of a site: by the scoreboard, else by the kernel's time of the last connection."""

    KEPT = kept("last_use asked _stamp")

    def __init__(self, now: float) -> None:
        self.last_use = now  # monotonic seconds
        self.asked = 0.0  # monotonic seconds of the last known request; 0.0: there was none
        self._stamp = 0.0

    def asked_at(self, now: float) -> None:
        """Note a request for the site at that time."""
        self.asked = max(self.asked, now)

    def used(self, now: float) -> None:
        """Note that the site is in use now."""
        self.last_use = max(self.last_use, now)

    def update(self, now: float, busy: int, figures: Figures, stamp: float) -> None:
        """Move the last use forward.

        Args:
            now: monotonic seconds.
            busy: requests in flight and waiting connections, as far as they count as use of the site.
            figures: the counts of the site's own processes.
            stamp: Unix time of the last connection, or of the last one that counts (`Listener`).
        """
        if busy:
            self.last_use = now
            self.asked_at(now)
        elif figures.in_flight is not None:
            self.used(min(now, figures.last_use))  # a site can write anything there
        elif stamp != self._stamp:  # of the wall clock, whose jumps must not move it far
            self.used(now - min(2.0, max(0.0, time.time() - stamp)))
            self.asked_at(now)
        self._stamp = stamp


_SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass(frozen=True)
class Figures:
    """Sums over the slots of a site.

    Attributes:
        in_flight: of its living processes; None if nothing counts them.
        last_use: monotonic seconds; 0.0: never.
        latencies: a count for each of `board.LATENCIES` and one for anything longer.
        quiet: how many of those in flight do not count as use of the site (`multisite.proxy.spawned`).
    """

    in_flight: int | None = None
    last_use: float = 0.0
    requests: int | None = None
    errors: int = 0
    busy: float = 0.0
    received: int = 0
    sent: int = 0
    quiet: int = 0
    latencies: tuple[int, ...] = ()
    statuses: tuple[int, ...] = ()
    relayed: tuple[int, ...] = ()
    relayed_now: int = 0

    @property
    def own(self) -> Figures:
        """The figures of the requests that no worker counts."""
        if not self.relayed or self.requests is None:
            return self
        requests, errors, busy, received, sent, *counts = self.relayed
        buckets = len(board.LATENCIES) + 1
        return replace(
            self,
            requests=max(0, self.requests - requests),
            errors=max(0, self.errors - errors),
            busy=max(0.0, self.busy - busy / 1e9),
            received=max(0, self.received - received),
            sent=max(0, self.sent - sent),
            latencies=_less(self.latencies, counts[:buckets]),
            statuses=_less(self.statuses, counts[buckets:]),
            relayed=(),
        )


def _less(counts: Iterable[int], others: Iterable[int]) -> tuple[int, ...]:
    """Return the differences; what a site has written is never less than nothing."""
    return tuple(max(0, one - other) for one, other in zip(counts, others, strict=True))


NOBODY_COUNTS = Figures()


class Scoreboard(Handed):
    """Our memory files, of `SLOTS` slots each; a site's processes write in them, and cannot change their size.

    A link at `path` leads to the first one, for processes that may look into ours; "" for none.
    """

    BY_HAND = ("_files", "_slots")
    ANEW = ("path",)

    def __init__(self, path: str = "") -> None:
        self.path = path
        self._files: list[int] = []
        self._slots = 0

    def make(self, slot: int) -> int:
        """Create the slot and read it from now on; returns the descriptor of its file, in which it is `slot % SLOTS`.

        Raises:
            OSError: there is no memory or no descriptor left.
        """
        while slot >= SLOTS * len(self._files):
            self._files.append(_sealed())
            self._link()
        self._slots = max(self._slots, slot + 1)
        return self._files[slot // SLOTS]

    def _link(self) -> None:
        if self.path and len(self._files) == 1:
            self._unlink()
            with contextlib.suppress(OSError):  # there may be no room: we do not need it ourselves
                os.symlink(f"/proc/{os.getpid()}/fd/{self._files[0]}", self.path)

    def _unlink(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def pack(self, keep: Keeper) -> list[int]:
        """Return what `take_over` accepts."""
        return [self._slots, *map(keep, self._files)]

    def take_over(self, state: list[int]) -> None:
        """Continue where another program stopped."""
        self._slots, self._files = state[0], list(map(taken, state[1:]))
        if any(os.fstat(file).st_size != SLOTS * board.SIZE for file in self._files):  # an earlier release's
            self.close()

    def _records(self) -> list[board.Record]:
        found = (board.read(self._files[slot // SLOTS], slot % SLOTS) for slot in range(self._slots))
        return [record for record in found if record]

    def read(self, pids: Iterable[int]) -> Figures:
        """Return the sums over all slots; requests in flight count for `pids` only, not for ended processes."""
        records = self._records()
        if not records:
            return NOBODY_COUNTS
        living = set(pids)
        return Figures(
            sum(record.in_flight for record in records if record.pid in living),
            max(record.last_use for record in records),
            sum(record.requests for record in records),
            sum(record.errors for record in records),
            sum(record.busy for record in records),
            sum(record.received for record in records),
            sum(record.sent for record in records),
            sum(record.quiet for record in records if record.pid in living),
            _summed(record.latencies for record in records),
            _summed(record.statuses for record in records),
            _summed(record.relayed for record in records),
            sum(record.relayed_now for record in records if record.pid in living),
        )

    def flights(self, pids: Iterable[int]) -> list[tuple[str, str, float]]:
        """Return method, path and age of some requests in flight that no worker shows."""
        living = set(pids)
        return [flight for record in self._records() if record.pid in living for flight in record.flights]

    def raw(self) -> bytes:
        """Return all that its processes have written, to be compared."""
        sizes = (min(SLOTS, self._slots - first) * board.SIZE for first in range(0, self._slots, SLOTS))
        return b"".join(os.pread(file, size, 0) for file, size in zip(self._files, sizes, strict=False))

    def answered(self, slot: int) -> int:
        """Return how many requests the successive processes of a slot have answered."""
        file = slot // SLOTS
        record = board.read(self._files[file], slot % SLOTS) if file < len(self._files) else None
        return sum(record.latencies) if record else 0

    def lost(self, slot: int, pid: int) -> int:
        """Return how many requests the process `pid` had in flight when it ended and that nothing else counts."""
        file = slot // SLOTS
        record = board.read(self._files[file], slot % SLOTS) if file < len(self._files) else None
        return record.in_flight - record.relayed_now if record and record.pid == pid else 0

    def close(self) -> None:
        """Stop reading it."""
        for file in self._files:
            os.close(file)
        if self._files and self.path:
            self._unlink()
        self._files, self._slots = [], 0


def _summed(rows: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*rows, strict=True)))


def _sealed() -> int:
    descriptors.claim(1)
    file = os.memfd_create("board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(file, 0o600)  # nothing opens it again; its processes have it
        os.ftruncate(file, SLOTS * board.SIZE)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(file)
        raise
    return file
