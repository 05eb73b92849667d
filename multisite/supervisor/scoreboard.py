"""A site's scoreboard as the supervisor reads it; the runner has the format (`multisite.runner.board`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from multisite.runner import board
from multisite.supervisor.handover import Keeper, taken
from multisite.supervisor.process import Identity


@dataclass(frozen=True)
class Figures:
    """Sums over the slots of a site.

    Attributes:
        in_flight: of its living processes; None where nobody counts.
        last_use: monotonic seconds; 0.0: never.
        latencies: a count for each of `board.LATENCIES` and one for what took longer.
        quiet: how many of those in flight are no use of the site (`multisite.activity`).
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


class Scoreboard:
    """The file at `path`, which belongs to the site's user."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = -1
        self._slots = 0

    def make(self, owner: Identity, slot: int) -> None:
        """Have the file there for `owner`, and this slot read from now on.

        Raises:
            OSError: it cannot be made.
        """
        if self._file < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(self.path, flags, 0o600)
        if owner.change:
            os.fchown(self._file, owner.uid, owner.gid)
        self._slots = max(self._slots, slot + 1)

    def pack(self, keep: Keeper) -> list[int]:
        """Return what `take_over` takes."""
        return [keep(self._file), self._slots]

    def take_over(self, state: list[int]) -> None:
        """Go on where another program was."""
        self._file, self._slots = taken(state[0]), state[1]

    def read(self, pids: Iterable[int]) -> Figures:
        """Return what all slots say together; what is in flight counts for `pids` only, not for the dead."""
        if self._file < 0:
            return NOBODY_COUNTS
        living = set(pids)
        found = [board.read(self._file, slot) for slot in range(self._slots)]
        records = [record for record in found if record]
        if not records:
            return NOBODY_COUNTS
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
        record = board.read(self._file, slot) if self._file >= 0 else None
        return sum(record.latencies) if record else 0

    def close(self) -> None:
        """Read it no more, and remove it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            with contextlib.suppress(OSError):
                os.unlink(self.path)
