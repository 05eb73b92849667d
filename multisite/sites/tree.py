"""A site's tree: looked at within bounds, and while somebody writes it, when a change is over and may be taken.

Whose tree it is can put anything into it, and who looks at it has other things to do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

QUIET = 0.5  # seconds without a further change after which one is taken: who writes a tree touches many files
LONGEST_LOCK = 60.0  # seconds after which a lock of git is taken for forgotten
MOST_FOLDERS = 8  # that are looked at for one: the site's and those above
MOST_NAMES = 10000  # that one look takes note of, in all folders together
MOST_IN_FOLDER = 2000  # a folder with more holds data
LONGEST_LOOK = 0.5  # seconds


class Look:
    """One look at the tree below `top`: it leads nowhere else, comes nowhere twice, and ends."""

    def __init__(self, top: str) -> None:
        self._top = os.path.realpath(top)
        self._entered: set[tuple[int, int]] = set()
        self._left = MOST_NAMES
        self._until = time.monotonic() + LONGEST_LOOK

    def at(self, folder: str) -> list[os.DirEntry[str]]:
        """Return what is in a folder, by name, as far as the bounds allow."""
        found: list[os.DirEntry[str]] = []
        try:
            with os.scandir(folder) as entries:
                for item in entries:
                    if self._left <= 0 or len(found) >= MOST_IN_FOLDER or time.monotonic() > self._until:
                        break
                    self._left -= 1
                    found.append(item)
        except OSError:
            pass
        return sorted(found, key=lambda item: item.name)

    def may_enter(self, item: os.DirEntry[str]) -> bool:
        """Tell whether it is a folder of this tree into which this look has not led yet.

        Raises:
            OSError: it cannot be told.
        """
        if not item.is_dir():
            return False
        if item.is_symlink() and not os.path.realpath(item.path).startswith(self._top + os.sep):
            return False
        status = item.stat()
        is_new = (status.st_dev, status.st_ino) not in self._entered
        self._entered.add((status.st_dev, status.st_ino))
        return is_new


def is_quiet(times: Iterable[int]) -> bool:
    """Tell whether the newest of these times (nanoseconds since 1970) is long enough ago, and not to come."""
    age = time.time() - max(times, default=0) / 1e9
    return age >= QUIET


def is_being_written(location: str) -> bool:
    """Tell whether git is at work in the tree around `location` just now: it holds ``index.lock`` meanwhile."""
    folder = location
    for _ in range(MOST_FOLDERS if location else 0):
        git = os.path.join(folder, ".git")
        if os.path.lexists(git):
            return _is_fresh(os.path.join(git, "index.lock"))
        folder = os.path.dirname(folder)
    return False


def _is_fresh(path: str) -> bool:
    try:
        return time.time() - os.lstat(path).st_mtime < LONGEST_LOCK
    except OSError:
        return False
