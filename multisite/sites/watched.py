"""The files whose change reloads a site: whether they are others than those that were loaded, and since when.

A file is told by what it is, never by whether it is newer: a roll-back, ``rsync -a`` and a link that leads back bring
older times, and a file may have tomorrow's. One that is gone asks for nothing; when it is back, it counts if it is
another one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from multisite.config.model import Home, Site
from multisite.sites import sitedir
from multisite.sites.tree import QUIET, is_quiet

RESTART, ALWAYS_RESTART = "tmp/restart.txt", "tmp/always_restart.txt"

Identity = tuple[Any, ...]
Files = dict[str, Identity]  # by path


def paths(site: Site) -> tuple[str, ...]:
    """Return the files whose change reloads `site`; its own file is looked at elsewhere."""
    own = (RESTART, ALWAYS_RESTART) if site.location else ()
    return (*(os.path.join(site.location, name) for name in own), *site.touch_reload)


def identity(path: str) -> Identity:
    """Return what tells a file from others: where links lead, time in nanoseconds, size, inode; () if it is gone."""
    try:
        status = os.stat(path)
        return os.path.realpath(path), status.st_mtime_ns, status.st_size, status.st_ino
    except (OSError, ValueError):  # a path that a site has printed may hold a NUL
        return ()


def changed_at(path: str) -> float:
    """Return when a file, or the link to it, was changed last: Unix seconds that nobody can set; 0.0 if it is gone."""
    try:
        return max(os.lstat(path).st_ctime, os.stat(path).st_ctime)
    except (OSError, ValueError):
        return 0.0


def files(site: Site, home: Home) -> Files:
    """Return what reloads a site, as it is now: its trigger files, Moya's, and where its location leads."""
    found = {path: identity(path) for path in paths(site)}
    changes = sitedir.changes_path(home, site.name)
    found[changes] = sitedir.changes_stamp(changes, site.file)
    if site.location:
        found[os.path.join(site.location, "")] = (os.path.realpath(site.location),)  # what is in it does not count
    return found


def _written_at(known: Identity) -> int:
    return known[-3] if len(known) > 1 else 0


class Watched:
    """The files of one site.

    Attributes:
        loaded: as they were when the site was loaded.
        newest: as they were when they were last looked at; what is gone, as it was last.
        due: monotonic seconds at which a change is to be taken; None: there is none.
    """

    def __init__(self, loaded: Mapping[str, Identity] = {}, newest: Mapping[str, Identity] = {}) -> None:
        self.loaded, self.newest = dict(loaded), dict(newest)
        self.due: float | None = None

    def begin(self, found: Files) -> None:
        """Take the files as they are now for those that are loaded."""
        self.newest = self._with_gone(found)
        self.take()

    def take(self) -> None:
        """Have the change taken that was seen last."""
        self.loaded, self.due = self.newest, None

    def look(self, found: Files, now: float) -> bool:
        """Tell whether there is a change, and nothing has changed for a while: who writes a tree touches many files.

        Args:
            found: the files as they are now; those that were not looked at before tell nothing.
            now: monotonic seconds.
        """
        found = self._with_gone(found)
        self.loaded = {path: self.loaded.get(path, known) for path, known in found.items()}
        if found == self.loaded:
            self.newest, self.due = found, None
        elif found != self.newest or self.due is None:
            self.newest, self.due = found, now if is_quiet(map(_written_at, found.values())) else now + QUIET
        return self.due is not None and now >= self.due

    def _with_gone(self, found: Files) -> Files:
        return {path: known or self.newest.get(path, ()) for path, known in found.items()}
