"""Files whose change reloads a site: its own list, and those that Moya, Passenger and mod_wsgi use."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from multisite.config.model import Home, Site
from multisite.sites.changes import QUIET, Files, Watched, changed_at, files, identity, is_being_written, paths
from multisite.supervisor.reexec import Handed, converted, kept

LONGEST_PAUSE = 60.0  # seconds between two attempts that the site's own files cause

_FRAME = re.compile(r'^\s*File "([^"\0]+)", line ')


def mending(site: Site, output: Iterable[str]) -> tuple[str, ...]:
    """Return the files whose change may mend a failed start: the site's files, and those that its traceback names."""
    named = [found[1] for line in output for found in _FRAME.finditer(line)]
    inside = [path for path in named if site.location and path.startswith(site.location + os.sep)]
    known = (site.file, site.python, site.location, *paths(site))
    return tuple(dict.fromkeys(path for path in (*known, *inside) if path))


class Triggers(Handed):
    """The trigger files of all sites as they were at the last look, and the changes still to be taken."""

    KEPT = kept(
        "_due _retries",
        _watched=converted(
            lambda watched: {name: [one.loaded, one.newest, one.due] for name, one in watched.items()},
            lambda told: {name: _watched(*one) for name, one in told.items()},
        ),
        _mending=converted(
            lambda mending: mending, lambda told: {name: _identities(known) for name, known in told.items()}
        ),
    )

    def __init__(self) -> None:
        self._watched: dict[str, Watched] = {}
        self._mending: dict[str, Files] = {}  # what may mend a failed start
        self._due: dict[str, float] = {}  # monotonic seconds at which to try again because of these
        self._retries: dict[str, tuple[int, float]] = {}  # how many, and when the next one is allowed

    def begin(self, site: Site, home: Home) -> None:
        """Take the site's files as they are now as the baseline: nothing of it has been loaded before."""
        self._watched.setdefault(site.name, Watched()).begin(files(site, home))
        self._due.pop(site.name, None)

    @property
    def is_expecting(self) -> bool:
        """Whether a change has been seen that has not been taken yet."""
        return bool(self._due) or any(watched.due is not None for watched in self._watched.values())

    def pulled(self, site: Site, home: Home, now: float, mending: Iterable[str] = (), since: float = 0.0) -> bool:
        """Tell whether a change of the site's files should be taken now; the first look tells nothing.

        Args:
            site: the owner of the files.
            home: of the site.
            now: monotonic seconds.
            mending: files that count as well, because the newest version has failed.
            since: Unix time at which the failed start began; changes since then count.
        """
        name, found = site.name, files(site, home)
        watched = self._watched.setdefault(name, Watched())
        is_due = watched.is_due(found, now)
        if watched.due is not None:
            self._retries.pop(name, None)
        elif self._may_be_mended(name, [path for path in mending if path not in found], since):
            self._retry(name, now)
        is_due |= now >= self._due.get(name, now + 1)
        if not is_due or is_being_written(site.location):
            return False
        watched.take_change()
        self._due.pop(name, None)
        return True

    def _may_be_mended(self, name: str, mending: list[str], since: float) -> bool:
        """Tell whether one of these files has changed since the last look, or since the start began."""
        now, then = {path: identity(path) for path in mending}, self._mending.get(name, {})
        self._mending[name] = now
        return any(found != then.get(path, found) or changed_at(path) > since for path, found in now.items())

    def _retry(self, name: str, now: float) -> None:
        """Try the site again after a growing pause: a site may write into its own directory all the time."""
        count, allowed = self._retries.get(name, (0, 0.0))
        if name not in self._due and now >= allowed:
            self._due[name] = now + QUIET
            self._retries[name] = (count + 1, now + min(LONGEST_PAUSE, 2.0**count))

    def rest(self, site: Site) -> None:
        """Take no change: nothing of the site runs, and the next start finds what is there then."""
        self._due.pop(site.name, None)
        if site.name in self._watched:
            self._watched[site.name].take_change()

    def forget(self, site: Site) -> None:
        """Forget a site."""
        for known in (self._watched, self._mending, self._due, self._retries):
            known.pop(site.name, None)


def _identities(state: dict[str, Any]) -> Files:
    return {path: tuple(known) for path, known in state.items()}


def _watched(loaded: dict[str, Any], newest: dict[str, Any], due: float | None) -> Watched:
    watched = Watched(_identities(loaded), _identities(newest))
    watched.due = due
    return watched
