"""Files whose change reloads a site: its own list, and those of Moya, Passenger and mod_wsgi users."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from multisite.model import Home, Site
from multisite.sitedir import changes_time

_ALWAYS = os.path.join("tmp", "restart.txt")
_FRAME = re.compile(r'^\s*File "([^"]+)", line ')


def paths(site: Site) -> tuple[str, ...]:
    """Return the files whose change reloads `site`; its own file is looked at elsewhere."""
    own = (os.path.join(site.location, _ALWAYS),) if site.location else ()
    return (*own, *site.touch_reload)


def mending(site: Site, output: Iterable[str]) -> tuple[str, ...]:
    """Return what may mend a failed start when it changes: the site's files, and those that its traceback names."""
    named = [found[1] for line in output for found in _FRAME.finditer(line)]
    inside = [path for path in named if site.location and path.startswith(site.location + os.sep)]
    known = (site.file, site.python, site.location, *paths(site))
    return tuple(dict.fromkeys(path for path in (*known, *inside) if path))


def _times(names: tuple[str, ...]) -> tuple[int, ...]:
    times = []
    for name in names:
        try:
            times.append(os.stat(name).st_mtime_ns)
        except OSError:
            times.append(0)
    return tuple(times)


class Triggers:
    """The times of all trigger files when they were last looked at."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, ...]] = {}

    def begin(self, site: Site, home: Home) -> None:
        """Take the site's files as they are now for known."""
        self._seen[site.name] = self._look(site, home)

    def pack(self) -> dict[str, tuple[int, ...]]:
        """Return what `take_over` takes."""
        return self._seen

    def take_over(self, state: dict[str, list[int]]) -> None:
        """Go on where another program was."""
        self._seen = {name: tuple(times) for name, times in state.items()}

    def pulled(self, site: Site, home: Home) -> bool:
        """Tell whether one of the site's files changed since the last look; the first look tells nothing."""
        times = self._look(site, home)
        seen = self._seen.get(site.name, times)
        self._seen[site.name] = times
        return len(seen) == len(times) and any(new > old for new, old in zip(times, seen, strict=True))

    def forget(self, site: Site) -> None:
        """Remember nothing of a site."""
        self._seen.pop(site.name, None)

    @staticmethod
    def _look(site: Site, home: Home) -> tuple[int, ...]:
        return (*_times(paths(site)), changes_time(home, site.name, site.file))
