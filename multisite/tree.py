"""A site's tree while somebody writes it: when a change is over and may be taken."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

QUIET = 0.5  # seconds without a further change after which one is taken: who writes a tree touches many files
LONGEST_LOCK = 60.0  # seconds after which a lock of git is taken for forgotten
MOST_FOLDERS = 8  # that are looked at for one: the site's and those above


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
