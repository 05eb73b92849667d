"""A site's scoreboard as the supervisor reads it; the runner has the format (`multisite.runner.board`)."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass

from multisite.runner import board
from multisite.supervisor.handover import Handed, Keeper, taken
from multisite.supervisor.process import descriptors
from multisite.supervisor.process.spec import SLOTS

_SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass(frozen=True)
class Figures:
    """Sums over the slots of a site.

    Attributes:
        in_flight: of its living processes; None where nobody counts.
        last_use: monotonic seconds; 0.0: never.
        latencies: a count for each of `board.LATENCIES` and one for what took longer.
        quiet: how many of those in flight are no use of the site (`multisite.proxy.spawned`).
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
    """Memory files of ours, of `SLOTS` slots each; a site's processes write in them, and cannot change their size.

    A link at `path` leads to the first, for whoever may look into our process; "" for none.
    """

    PARTS = ("_files", "_slots")
    ANEW = ("path",)

    def __init__(self, path: str = "") -> None:
        self.path = path
        self._files: list[int] = []
        self._slots = 0

    def make(self, slot: int) -> int:
        """Have the slot there, read from now on; returns the descriptor of its file, in which it is `slot % SLOTS`.

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
            with contextlib.suppress(OSError):  # where there is no room: nobody of ours needs it
                os.symlink(f"/proc/{os.getpid()}/fd/{self._files[0]}", self.path)

    def _unlink(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def pack(self, keep: Keeper) -> list[int]:
        """Return what `take_over` takes."""
        return [self._slots, *map(keep, self._files)]

    def take_over(self, state: list[int]) -> None:
        """Go on where another program was."""
        self._slots, self._files = state[0], list(map(taken, state[1:]))

    def _records(self) -> list[board.Record]:
        found = (board.read(self._files[slot // SLOTS], slot % SLOTS) for slot in range(self._slots))
        return [record for record in found if record]

    def read(self, pids: Iterable[int]) -> Figures:
        """Return what all slots say together; what is in flight counts for `pids` only, not for the dead."""
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
        """Return how many requests the processes of a slot have answered, one after another."""
        file = slot // SLOTS
        record = board.read(self._files[file], slot % SLOTS) if file < len(self._files) else None
        return sum(record.latencies) if record else 0

    def close(self) -> None:
        """Read it no more."""
        for file in self._files:
            os.close(file)
        if self._files and self.path:
            self._unlink()
        self._files, self._slots = [], 0


def _sealed() -> int:
    descriptors.claim(1)
    file = os.memfd_create("board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(file, 0o600)  # nobody opens it anew; its processes have it
        os.ftruncate(file, SLOTS * board.SIZE)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(file)
        raise
    return file
