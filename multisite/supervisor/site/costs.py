"""What the processes of one site have cost since its crew was made."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from multisite.sites.tally import Tally, tally_of
from multisite.supervisor.handover import Handed
from multisite.supervisor.handover import State as Packed
from multisite.supervisor.lifecycle import State
from multisite.supervisor.site.backend import Backend
from multisite.supervisor.site.scoreboard import Figures


@dataclass
class Costs(Handed):
    """Keeps count of them.

    Attributes:
        spent: the starts, and what the processes have used that have ended.
        start_cost: seconds that the last start took.
        size: bytes that one of the processes used when that was measured last; 0: never.
    """

    HANDED = ("start_cost", "size")
    PARTS = ("spent",)

    spent: Tally = field(default_factory=Tally)
    start_cost: float = 0.0
    size: int = 0

    def pack(self) -> Packed:
        """Return what `take_over` takes."""
        return {**self.hand(), "spent": self.spent.as_dict()}

    def take_over(self, state: Packed) -> None:
        """Go on where another program was."""
        self.spent = tally_of(state.get("spent")) or self.spent
        self.go_on(state)

    def started(self, count: int, cold: bool) -> None:
        """Count some starts; `cold`: somebody waited for one of them while nothing ran."""
        self.spent += Tally(count, int(cold), first_start=time.time())

    def settle(self, figures: Figures) -> None:
        """Add what the processes have counted on a scoreboard that is going to be put away."""
        self.spent = replace(self.tally(figures, 0.0, 0.0, 0.0), last_use=self.spent.last_use)

    def ended(self, cpu: float, served: float) -> None:
        """Add the seconds of a process that has ended."""
        self.spent += Tally(cpu=cpu, alive=served)

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
