"""What all sites have used, those included that have no crew any more."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from multisite.config.model import Home
from multisite.sites.tally import Tallies, Tally, tally_of
from multisite.supervisor.handover import Handed
from multisite.supervisor.site.crew import Crew

KEEP_EVERY = 60.0  # seconds between two writings; what a supervisor that is killed has counted since is lost

_NOTHING = Tally()


class Accounts(Handed):
    """Adds what a crew has counted to what was counted before it."""

    PARTS = ("_before",)
    ANEW = ("_file", "_kept", "_keep_at")

    def __init__(self, home: Home) -> None:
        self._file = Tallies(home)
        self._before = self._kept = self._file.all()
        self._keep_at = 0.0

    def pack(self) -> dict[str, Any]:
        """Return what `take_over` takes."""
        return {name: tally.as_dict() for name, tally in self._before.items()}

    def take_over(self, state: dict[str, Any]) -> None:
        """Go on where another program was: its crews go on counting."""
        self._before = {name: tally for name, row in state.items() if (tally := tally_of(row))}

    def total(self, crew: Crew, cpu: float | None = None) -> Tally:
        """Return what a site has used; `cpu` are the seconds that its living processes have, where that is known."""
        return self._before.get(crew.site.name, _NOTHING) + crew.tally(time.time(), cpu)

    def settle(self, crew: Crew) -> None:
        """Take what a crew has counted that is going to be put away."""
        self._before = {**self._before, crew.site.name: self.total(crew)}

    def keep(self, crews: Iterable[Crew], now: float) -> None:
        """Write everything down if it is time to, and if anything has changed."""
        if now < self._keep_at:
            return
        self._keep_at = now + KEEP_EVERY
        current = {**self._before, **{crew.site.name: self.total(crew) for crew in crews}}
        used = {name: tally for name, tally in current.items() if tally.starts}
        if used != self._kept and self._file.keep(used):
            self._kept = used

    def close(self, crews: Iterable[Crew]) -> None:
        """Write everything down for the next supervisor."""
        self._keep_at = 0.0
        self.keep(crews, 0.0)
