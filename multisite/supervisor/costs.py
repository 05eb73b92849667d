"""What the processes of one site have cost since its crew was made."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

from multisite.supervisor.backend import Backend
from multisite.supervisor.handover import State as Packed
from multisite.supervisor.lifecycle import State
from multisite.supervisor.scoreboard import Figures
from multisite.tally import Tally


@dataclass
class Costs:
    """Keeps count of them.

    Attributes:
        starts: how many there have been; cold_starts: how many of them because somebody waited while nothing ran.
        first_start: Unix time; 0.0: never.
        cpu, alive: seconds of processor time and of service of the processes that have ended.
        start_cost: seconds that the last start took.
        size: bytes that one of the processes used when that was measured last; 0: never.
    """

    starts: int = 0
    cold_starts: int = 0
    first_start: float = 0.0
    cpu: float = 0.0
    alive: float = 0.0
    start_cost: float = 0.0
    size: int = 0

    def pack(self) -> Packed:
        """Return what `take_over` takes."""
        return asdict(self)

    def take_over(self, state: Packed) -> None:
        """Go on where another program was."""
        for field in fields(self):
            setattr(self, field.name, state.get(field.name, getattr(self, field.name)))

    def started(self) -> None:
        """Count a start."""
        self.starts += 1
        self.first_start = self.first_start or time.time()

    def ended(self, cpu: float, served: float) -> None:
        """Add the seconds of a process that has ended."""
        self.cpu += cpu
        self.alive += served

    def weighed(self, backends: Iterable[Backend]) -> None:
        """Note how large a process is, now that their memory has been measured."""
        running = (backend.memory for backend in backends if backend.state is State.RUNNING)
        self.size = max(running, default=0) or self.size

    def tally(self, figures: Figures, cpu: float, alive: float, last_use: float) -> Tally:
        """Return what the site has used.

        Args:
            figures: what its own processes count.
            cpu, alive: seconds of the living ones.
            last_use: Unix seconds.
        """
        return Tally(
            self.starts,
            self.cold_starts,
            figures.requests,
            figures.errors,
            figures.busy,
            figures.received,
            figures.sent,
            self.cpu + cpu,
            self.alive + alive,
            self.first_start,
            last_use if self.starts else 0.0,
            figures.latencies,
        )
