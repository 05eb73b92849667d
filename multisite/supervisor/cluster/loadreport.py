"""What a machine tells the others of itself: its load, its awake sites, and those that fail."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

from multisite.config.model import Home
from multisite.sites import usage
from multisite.sites.failures import Failure, LastFailures, of_starts
from multisite.sites.figures import Sums
from multisite.sites.statefile import StateFile
from multisite.supervisor.accounts import Accounts
from multisite.supervisor.lifecycle import State
from multisite.supervisor.site.supervised import SupervisedSite

MOST_SITES = 1000  # that are told of one by one
MOST_INCIDENTS = 50
EVERY = 2.0  # seconds between two looks at the sites
FOR_EACH = 0.02  # seconds more for each machine that has to be told: what all send and get stays bounded
SHARE = 50  # looking takes at most 1/50 of the time
LONGEST_CAUSE = 200  # characters


class LoadReport:
    """What the machine of a home tells.

    Args:
        home: whose failures are told.
        folder: where the workers count.
    """

    def __init__(self, home: Home, folder: str) -> None:
        self._folder, self._past = folder, StateFile(home, usage.FOLDER)
        self._noted = [LastFailures(home), of_starts(home)]
        self._stamps: list[tuple[int, ...]] = []
        self._incidents: list[list[Any]] = []
        self._last: dict[str, Any] = {}
        self._due = 0.0

    def of(self, sites: Iterable[SupervisedSite], accounts: Accounts, enabled: int, machines: int) -> dict[str, Any]:
        """Return them for JSON: each site as state, processes, requests so far and requests in flight.

        Args:
            sites: that are supervised.
            accounts: what they have used.
            enabled: how many sites there are.
            machines: how many are told.
        """
        now = time.monotonic()
        if now < self._due:
            return self._last
        alive = [one for one in sites if one.pids or one.state is not State.STOPPED]
        counted = usage.read(self._folder, self._past, {one.site.name for one in alive})[0] if alive else {}
        awake = {one.site.name: _row(one, accounts, counted.get(one.site.name)) for one in alive}
        self._last = {
            "sites": enabled,
            "processes": sum(row[1] for row in awake.values()),
            "load": round(os.getloadavg()[0], 2),
            "awake": dict(list(awake.items())[:MOST_SITES]),
            "incidents": self._failing(),
        }
        self._due = now + max(EVERY, FOR_EACH * machines, SHARE * (time.monotonic() - now))
        return self._last

    def _failing(self) -> list[list[Any]]:
        """Return name, incident, time and cause of the newest failures that visitors see."""
        stamps = [_stamp(one.path) for one in self._noted]
        if stamps != self._stamps:
            self._stamps = stamps
            found = [pair for noted in self._noted for pair in noted.all().items() if _is_seen(*pair)]
            found.sort(key=lambda pair: -pair[1].at)
            self._incidents = [[name, one.incident, one.at, one.reason[:LONGEST_CAUSE]] for name, one in found]
            del self._incidents[MOST_INCIDENTS:]
        return self._incidents


def _row(one: SupervisedSite, accounts: Accounts, in_workers: Sums | None) -> list[Any]:
    requests = accounts.total(one).requests
    if in_workers:
        requests = (requests or 0) + in_workers.requests
    return [one.state.value, len(one.pids), requests, one.figures().in_flight or 0]


def _is_seen(name: str, failure: Failure) -> bool:
    return "\n" not in name and not failure.own_process and time.time() - failure.at < 86400


def _stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ino
