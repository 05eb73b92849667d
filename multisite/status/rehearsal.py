"""The status pages of invented sites, to see what a large home would look like in a browser."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from multisite.errors import MultisiteError
from multisite.status.simulate import HOME, Simulation, past_of
from multisite.status.web.incidentpage import of_rows
from multisite.status.web.markup import Html
from multisite.status.web.sparkline import sparkline

if TYPE_CHECKING:
    from multisite.status.inventory import Inventory

LINES = 40


class Rehearsal:
    """What the pages show of so many invented sites; nothing can be done to them."""

    def __init__(self, count: int, clock: Callable[[], float] = time.time) -> None:
        self._simulation, self._clock = Simulation(count), clock

    def document(self) -> dict[str, Any]:
        """Return a document like that of ``--json status``."""
        return self._simulation.document(self._clock())

    def detail(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the log, the curves and the past of a site."""
        now = self._clock()
        lines = [line for _, line in self._simulation.log(row["name"], now, LINES)]
        curves = [("The last hour", self.curve(row))]
        return {"home": HOME, "lines": lines, "curves": curves, "past": past_of(row, now)}

    def curve(self, row: dict[str, Any]) -> Html:
        """Draw an invented hour."""
        chance = random.Random(row["name"])
        most = chance.randrange(1, 50) if row.get("pids") or row["state"] == "in-process" else 0
        return sparkline([chance.randint(0, most) for _ in range(60)], what="the last hour")

    def incident(self, incident: str) -> dict[str, Any] | None:
        """Return the failure of that id."""
        return of_rows(self.document()["sites"], incident)

    def inventory(self) -> Inventory:
        """Refuse: there is no home.

        Raises:
            MultisiteError: always.
        """
        raise MultisiteError("nothing happens to simulated sites")
