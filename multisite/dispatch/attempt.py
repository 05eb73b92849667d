"""One attempt to import a site in this worker: why it was made, what became of it, and what will cause another one."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from multisite.dispatch.states import SiteEvent
from multisite.logs import past
from multisite.sites.changes import Identity, identity

#: why a site is imported again
WHY_AGAIN = {
    SiteEvent.RETRY: "its last reload failed",
    SiteEvent.ASKED: "a reload was requested",
    SiteEvent.CHANGED: "its file changed",
}
_KINDS = {SiteEvent.WANTED: "cold", SiteEvent.MOVE_IN: "warm"}  # of `multisite.sites.tally.KINDS`; others: "deploy"
_CAUSES = {SiteEvent.ASKED: "restart"}  # of a deploy; others: "reload"


class Attempt:
    """An attempt that begins now.

    Args:
        event: that caused it.
        replaces: an older version serves.
    """

    def __init__(self, event: SiteEvent, replaces: bool) -> None:
        self._event, self._replaces = event, replaces
        self._wall, self._begun = time.time(), time.monotonic()

    def write_down(self, site: str, failure: str = "", incident: str = "") -> None:
        """Write down what became of it, for those who look later."""
        seconds, told = time.monotonic() - self._begun, {"failure": failure, "incident": incident}
        kind, way = _KINDS.get(self._event, "deploy"), f"imported in worker {os.getpid()}"
        past.started(site, kind, self._wall, [("import", seconds)], way=way, **told)
        if self._replaces:
            cause = _CAUSES.get(self._event, "reload")
            past.deployed(site, cause, self._wall, seconds, worker=os.getpid(), **told)


@dataclass(slots=True)
class FailedImport:
    """Why the newest attempt gave no application, and what will cause another attempt."""

    reason: str  # rather than the error, whose traceback would keep the site's frames alive
    incident: str
    retry_at: float
    count: int = 0  # attempts in a row that failed by the site's fault
    watched: tuple[str, ...] = ()
    files: list[Identity] = field(init=False)

    def __post_init__(self) -> None:
        self.files = list(map(identity, self.watched))

    def over(self, now: float) -> bool:
        """Tell whether another attempt may succeed."""
        return now >= self.retry_at or list(map(identity, self.watched)) != self.files
