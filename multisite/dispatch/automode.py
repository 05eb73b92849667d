"""Where a site with ``mode = auto`` runs: how a worker follows the supervisor's decisions.

Requests for the site first go to its process. When the supervisor has moved it into the workers, each of them imports
it beside the process, and answers by itself once the import is complete. When the site leaves again, its process
answers at once, and its modules go when no request can still be using them.
"""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING

from multisite.config.model import Home, Site
from multisite.dispatch.states import LIVES_HERE, SiteEvent, SiteState
from multisite.errors import MultisiteError, NeedsProcess
from multisite.inprocess import workdir
from multisite.sites import changes, sharing
from multisite.sites.placements import Placements
from multisite.sites.server import head_limits

if TYPE_CHECKING:
    from multisite.control.client import Client

ASK_AGAIN = 60.0  # seconds until we ask again for a supervisor that was unavailable

_log = logging.getLogger("multisite.placed")


class Reach:
    """Whether this process can have a supervisor: if it cannot, its sites run here, as they would without one."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._why, self._ask_at = "", 0.0

    def obstacle(self, now: float) -> str:
        """Return why there are no processes for sites, "" if there are; found out when first needed."""
        with self._lock:
            if now >= self._ask_at:
                self._why = self._ask()
                self._ask_at = now + ASK_AGAIN if self._why else math.inf
            return self._why

    def _ask(self) -> str:
        try:
            _client(self._home).meet(head_limits())
        except (MultisiteError, OSError) as error:
            _log.warning("MS325 the workers import sites with mode = auto without examining them: %s", error)
            return str(error)
        return ""


class AutoMode:
    """What has been decided about one site, and what this worker has done about it.

    Args:
        name: the site's.
        placements: of the home.
        reach: of this process.
    """

    def __init__(self, name: str, placements: Placements, reach: Reach) -> None:
        self._name, self._placements, self._reach = name, placements, reach
        self._asked = self._followed = self._refused = ("", 0.0)  # decisions: a version of the code, and since when
        self._is_alone = False  # it is here because there are no processes

    def governs(self, site: Site, home: Home) -> bool:
        """Tell whether the supervisor decides where the site runs, according to its file as it is now."""
        return not self._is_alone and sharing.is_examined(site, home)

    def may_be_had(self, site: Site, now: float) -> bool:
        """Tell whether something can decide; if a site would have to wait for ever, it is here for good."""
        why = self._reach.obstacle(now) if site.share else ""
        if why:
            self._is_alone = True
            self._placements.alone(self._name, why)
        return not why

    def event(self, state: SiteState, site: Site, home: Home) -> SiteEvent | None:
        """Return what the decision means for the site in its present state; None: nothing."""
        row = self._placements.of(self._name)
        decided = (row.version, row.since) if row and row.is_here else ("", 0.0)  # "": it is elsewhere
        if state in LIVES_HERE:
            return SiteEvent.MOVE_OUT if decided[0] != self._followed[0] else None
        if decided[0] and decided != self._refused and site.share:
            self._asked = decided
            if changes.version_of(site, home) == decided[0]:
                return SiteEvent.MOVE_IN
        return SiteEvent.STAY_OUT if state is SiteState.UNUSED else None

    def check_paths(self) -> None:
        """Keep a site out that uses relative paths where they would not mean what they should.

        Raises:
            NeedsProcess.
        """
        row, why = self._placements.of(self._name), workdir.obstacle()
        if row and row.found.notes and why:
            raise NeedsProcess(f"it {row.found.notes[0]}, and {why}")

    def moved_in(self) -> None:
        """Note that the decision has been followed."""
        self._followed = self._asked
        _log.info("site %s: runs in the workers", self._name)

    def refuse(self, home: Home, error: MultisiteError) -> None:
        """Report to the supervisor that its decision cannot be followed."""
        self._refused = self._asked
        _log.warning("%s site %s: the workers cannot import it: %s", error.id, self._name, error.reason)
        why = error.why if isinstance(error, NeedsProcess) else f"a worker could not import it: {error.reason}"
        self.tell(home, "refuse", version=self._asked[0], why=why)

    def tell(self, home: Home, command: str, **more: str) -> None:
        """Send a command of the control protocol about the site."""
        client = _client(home)
        try:
            client.ensure(self._name, limits=head_limits())  # starts a supervisor where there is none
            client.ask({"do": command, "site": self._name, **more})
        except (MultisiteError, OSError) as error:
            _log.warning("MS326 site %s: keeps running its old code: %s", self._name, error)


def _client(home: Home) -> Client:
    from multisite.control.client import Client  # a worker without such sites never needs it

    return Client(home)
