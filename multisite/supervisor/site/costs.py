"""What one site has cost: its last use, what its processes count on their scoreboard, and what ended ones used."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from multisite.runner import board
from multisite.sites.tally import Tally, tally_of
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

    def started(self, count: int, cold: bool) -> None:
        """Count some starts; `cold`: a request waited for one of them while nothing ran."""
        self.spent += Tally(count, int(cold), first_start=time.time())

    def settle(self, figures: Figures) -> None:
        """Add what the processes have counted on a scoreboard that is about to be put away."""
        self.spent = replace(self.tally(figures, 0.0, 0.0, 0.0), last_use=self.spent.last_use)

    def ended(self, cpu: float, served: float, lost: int = 0) -> None:
        """Add the seconds of a process that has ended, and the requests that its end left without an answer."""
        self.spent += Tally(cpu=cpu, alive=served, errors=lost)

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
        return self.spent + Tally(
            requests=figures.requests,
            errors=figures.errors,
            busy=figures.busy,
            received=figures.received,
            sent=figures.sent,
            cpu=cpu,
            alive=alive,
            last_use=last_use if self.spent.starts else 0.0,
            latencies=figures.latencies,
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
            tuple(map(sum, zip(*(record.latencies for record in records), strict=True))),
        )

    def answered(self, slot: int) -> int:
        """Return how many requests the successive processes of a slot have answered."""
        file = slot // SLOTS
        record = board.read(self._files[file], slot % SLOTS) if file < len(self._files) else None
        return sum(record.latencies) if record else 0

    def in_flight(self, slot: int, pid: int) -> int:
        """Return how many requests the process `pid` has in flight, or had when it ended."""
        file = slot // SLOTS
        record = board.read(self._files[file], slot % SLOTS) if file < len(self._files) else None
        return record.in_flight if record and record.pid == pid else 0

    def close(self) -> None:
        """Stop reading it."""
        for file in self._files:
            os.close(file)
        if self._files and self.path:
            self._unlink()
        self._files, self._slots = [], 0


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
