"""What it would save to have a busy site in the workers that may not share: measured while it is busy.

Its processes would not be there, and each worker would have the site's code instead. A request would be answered
where it comes in: its way to the process and back is what the workers measure more than the process does.
"""

from __future__ import annotations

from dataclasses import dataclass

from multisite.sites import usage
from multisite.sites.placement import ENOUGH, Saving
from multisite.supervisor import accounts
from multisite.supervisor.site.costs import Figures
from multisite.supervisor.site.supervised import SupervisedSite

PATIENCE = 30.0  # seconds after which it is clear that the workers do not measure its requests, but hand them over


@dataclass(frozen=True, slots=True)
class _Begun:
    """Of one site: since when it is measured, and what had been counted then."""

    at: float
    there: usage.Sums
    here: Figures


class Savings(dict[str, _Begun | None]):
    """The sites that are being measured, by name; None for those whose next reading is the first."""

    def read(self, supervised: SupervisedSite, sums: usage.Sums, now: float) -> float | None:
        """Take a reading of a site.

        Args:
            supervised: the site.
            sums: what the workers have counted for it.
            now: monotonic seconds.

        Returns:
            The seconds that a request would save, 0.0 where there are none or nobody can tell; None: not known yet.
        """
        name, figures = supervised.site.name, supervised.figures()
        begun = self.get(name)
        if begun is None:
            self[name] = _Begun(now, sums, figures)
            return None
        measured, asked = sums.measured - begun.there.measured, (figures.requests or 0) - (begun.here.requests or 0)
        if measured >= ENOUGH and asked >= ENOUGH:
            whole, inside = (sums.busy - begun.there.busy) / measured, (figures.busy - begun.here.busy) / asked
            return max(0.0, whole - inside)
        return 0.0 if now - begun.at > PATIENCE else None


def of(supervised: SupervisedSite, seconds: float, added: int, workers: int) -> Saving:
    """Return what a site would save.

    Args:
        supervised: the site; its processes are weighed, which takes milliseconds.
        seconds: of each request.
        added: bytes that the site would add to each worker.
        workers: how many there are.
    """
    sizes = accounts.weighed(supervised.pids, accounts.by_session())
    return Saving(max(0, sum(sizes.values()) - added * workers), round(seconds, 5))
