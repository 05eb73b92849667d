"""Files whose change reloads a site: its own list, and those of Moya, Passenger and mod_wsgi users."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from multisite.model import Home, Site
from multisite.sitedir import changes_time
from multisite.tree import QUIET, is_being_written, is_quiet

LONGEST_PAUSE = 60.0  # seconds between two attempts that files of the site cause by themselves

RESTART, ALWAYS_RESTART = "tmp/restart.txt", "tmp/always_restart.txt"
_FRAME = re.compile(r'^\s*File "([^"]+)", line ')


def paths(site: Site) -> tuple[str, ...]:
    """Return the files whose change reloads `site`; its own file is looked at elsewhere."""
    own = (RESTART, ALWAYS_RESTART) if site.location else ()
    return (*(os.path.join(site.location, name) for name in own), *site.touch_reload)


def mending(site: Site, output: Iterable[str]) -> tuple[str, ...]:
    """Return what may mend a failed start when it changes: the site's files, and those that its traceback names."""
    named = [found[1] for line in output for found in _FRAME.finditer(line)]
    inside = [path for path in named if site.location and path.startswith(site.location + os.sep)]
    known = (site.file, site.python, site.location, *paths(site))
    return tuple(dict.fromkeys(path for path in (*known, *inside) if path))


def _times(names: Iterable[str]) -> dict[str, int]:
    times = {}
    for name in names:
        try:
            times[name] = os.stat(name).st_mtime_ns
        except OSError:
            times[name] = 0
    return times


class Triggers:
    """The times of all trigger files when they were last looked at, and the changes that are to be taken."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, int]] = {}
        self._due: dict[str, float] = {}  # monotonic seconds
        self._retries: dict[str, tuple[int, float]] = {}  # how many, and when the next may be

    def begin(self, site: Site, home: Home) -> None:
        """Take the site's files as they are now for known."""
        self._seen[site.name] = self._look(site, home)
        self._due.pop(site.name, None)

    def pack(self) -> dict[str, Any]:
        """Return what `take_over` takes."""
        return self._seen

    def take_over(self, state: dict[str, Any]) -> None:
        """Go on where another program was."""
        self._seen = {name: times for name, times in state.items() if isinstance(times, dict)}

    @property
    def is_expecting(self) -> bool:
        """Whether a change has been seen that is not taken yet."""
        return bool(self._due)

    def pulled(self, site: Site, home: Home, now: float, mending: Iterable[str] = (), since: float = 0.0) -> bool:
        """Tell whether a change of the site's files is to be taken; the first look tells nothing.

        Args:
            site: whose files they are.
            home: of the site.
            now: monotonic seconds.
            mending: files that count as well, because the newest version has failed.
            since: Unix time at which the start began that failed; what they have become since counts.
        """
        name = site.name
        times, seen = self._look(site, home), self._seen.get(name, {})
        if any(new > seen.get(path, new) for path, new in times.items()):
            self._due[name] = now if is_quiet(times.values()) else now + QUIET
            self._retries.pop(name, None)
        others = {path: new for path, new in _times(mending).items() if path not in times}
        if any(new != seen.get(path, new) or new / 1e9 > since for path, new in others.items()):
            self._retry(name, now)
        self._seen[name] = {**times, **others}
        if now < self._due.get(name, now + 1) or is_being_written(site.location):
            return False
        del self._due[name]
        return True

    def _retry(self, name: str, now: float) -> None:
        """Have the site tried again after a while, which grows: a site may write into its own folder all the time."""
        count, allowed = self._retries.get(name, (0, 0.0))
        if name not in self._due and now >= allowed:
            self._due[name] = now + QUIET
            self._retries[name] = (count + 1, now + min(LONGEST_PAUSE, 2.0**count))

    def forget(self, site: Site) -> None:
        """Remember nothing of a site."""
        for known in (self._seen, self._due, self._retries):
            known.pop(site.name, None)

    @staticmethod
    def _look(site: Site, home: Home) -> dict[str, int]:
        changes = changes_time(home, site.name, site.file)
        return {**_times(paths(site)), ".changes": changes}
