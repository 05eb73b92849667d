"""Which enabled sites are out of service, and why: maintenance, a pause, the end of their time, or that other machines
run them.

The first two are in one document in the home, `FILE`, which the command line writes and everybody reads: workers and
supervisor may run as other users than whoever switches a site. It survives restarts of all of them, and of the machine.
The others are in the site's file.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from multisite.config import jsonfile, times
from multisite.config.model import Home, Site
from multisite.config.values import duration
from multisite.errors import Expired, InMaintenance, Misdirected, OutOfService, Paused, Problem

FILE = "outages.json"
MAINTENANCE, PAUSED, EXPIRED, ELSEWHERE = "maintenance", "paused", "expired", "elsewhere"
LASTING = (EXPIRED, ELSEWHERE)  # nothing of the site is served, and its processes end
HTML = "text/html; charset=utf-8"
LONGEST_PAGE = 2**19  # characters
NOTICED_WITHIN = 1.5  # seconds after which every worker knows


@dataclass(frozen=True, slots=True)
class Outage:
    """Why a site is out of service.

    Attributes:
        kind: "maintenance", "paused", "expired" or "elsewhere".
        since: Unix time.
        page: what visitors are shown in place of our page; "": nothing else.
        media_type: of that page.
    """

    kind: str
    since: float
    page: str = ""
    media_type: str = HTML

    @property
    def error(self) -> OutOfService:
        """What a request is answered with; in a pause, one that has waited for as long as it may."""
        if self.kind == PAUSED:
            return Paused("The site is paused")
        if self.kind == ELSEWHERE:
            return Misdirected("The site runs on other nodes")
        return Expired("The site has expired") if self.kind == EXPIRED else InMaintenance("The site is in maintenance")


def end_of(site: Site) -> float:
    """Return when the time of a site with `expires` is over, in Unix seconds."""
    return times.end_of(times.parse_end(site.expires, duration), _enabled_at(site.file))


def _enabled_at(path: str) -> float:
    """Return when a site was enabled: the link's own time, which no restart and no edit of the file moves."""
    try:
        return os.lstat(path).st_mtime
    except OSError:  # it has just gone
        return time.time()


def expiry_problem(site: Site) -> Problem | None:
    """Return what is to be said of a site whose time is over, or nearly; None where there is nothing."""
    told = times.parse_end(site.expires, duration) if site.expires else 0.0
    if not told:
        return None
    end = end_of(site)
    left = end - time.time()
    if not times.is_near(told, left):
        return None
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(max(0.0, end)))
    reason = f"the site expires at {when}" if left > 0 else f"the site expired at {when}; every request gets 410"
    where = ("service", "expires", site.expires)
    return Problem("MS235", site.file, reason, *where, remedy=_renewal(site.name), severity="warning")


def _renewal(name: str) -> str:
    return f"set a later date (multisite set {name} expires=…); a duration begins again with dissite and ensite"


def is_elsewhere(site: Site, home: Home) -> bool:
    """Tell whether only other machines run a site with `nodes`."""
    from multisite.cluster import pins  # a process without such sites never loads it

    return bool(pins.other_than(site, home))


def pin_problems(site: Site, home: Home) -> list[Problem]:
    """Return what is to be said of the `nodes` of a site."""
    from multisite.cluster import pins

    return pins.problems(site, home)


def _changed_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:  # it has just gone
        return 0.0


def remedy(outage: Outage, name: str) -> str:
    """Return what ends an outage."""
    if outage.kind == EXPIRED:
        return _renewal(name)
    if outage.kind == ELSEWHERE:
        return "renew the rules of the front end (multisite create-rules), or add this node to nodes in the site's file"
    if outage.kind == PAUSED:
        return f"multisite resume {name} ends the pause"
    return f"multisite maintenance {name} off ends it"


class Outages:
    """The outages of one home, read again when the document is another one."""

    def __init__(self, home: Home) -> None:
        self.path, self.home = os.path.join(home.path, FILE), home
        self._stamp: tuple[int, ...] | None = None
        self._rows: dict[str, list[Outage]] = {}

    def look(self) -> None:
        """Read the document if it has changed; one that cannot be read counts as empty."""
        try:
            status = os.stat(self.path)
        except OSError:
            self._stamp, self._rows = None, {}
            return
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp != self._stamp:
            self._rows = read(self.path)
            self._stamp = stamp  # last: who finds it finds the rows, too

    def of(self, site: Site) -> Outage | None:
        """Return why `site` is out of service, as `look` has last seen it; an instance shares its hosting site's."""
        if site.expires and time.time() >= (end := end_of(site)):
            return Outage(EXPIRED, end)
        if site.nodes and is_elsewhere(site, self.home):
            return Outage(ELSEWHERE, max(map(_changed_at, (site.file, self.home.file))))
        found = [*self._rows.get(site.name, ()), *self._rows.get(site.entry_name, ())]
        return min(found, key=lambda outage: outage.kind) if found else None  # maintenance is before paused

    def named(self, name: str) -> tuple[str, ...]:
        """Return the kinds that are noted for a name."""
        return tuple(outage.kind for outage in self._rows.get(name, ()))

    # From the command line

    def begin(self, name: str, outage: Outage) -> None:
        """Take a site out of service, in place of an outage of the same kind.

        Raises:
            OSError: the document cannot be written.
        """
        with self._changing() as rows:
            rows[name] = [*(one for one in rows.get(name, ()) if one.kind != outage.kind), outage]

    def end(self, name: str, kind: str = "") -> bool:
        """Put a site back into service; tell whether it was out of it for this reason, or for any.

        Raises:
            OSError: the document cannot be written.
        """
        if not any(kind in ("", one) for one in self.named(name)):
            return False
        with self._changing() as rows:
            before = rows.pop(name, [])
            left = [one for one in before if kind not in ("", one.kind)]
            if left:
                rows[name] = left
        return len(left) < len(before)

    def rename(self, old: str, new: str) -> None:
        """Have the outages of a site follow its name.

        Raises:
            OSError: the document cannot be written.
        """
        if self.named(old):
            with self._changing() as rows:
                rows[new] = rows.pop(old, [])

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, list[Outage]]]:
        folder = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            rows = read(self.path)
            yield rows
            jsonfile.replace(self.path, {name: list(map(asdict, outages)) for name, outages in rows.items()}, indent=1)
        finally:
            os.close(folder)
        self.look()


def of_home(home: Home) -> Outages:
    """Return the outages of `home`, the same for all who ask in this process."""
    found = _known.get(home.path)
    if found is None:
        found = _known[home.path] = Outages(home)
    found.home = home
    return found


_known: dict[str, Outages] = {}  # by home; a process serves one, and tests some


def read(path: str) -> dict[str, list[Outage]]:
    """Return the outages by the names of sites; nothing of a document that cannot be read."""
    try:
        with open(path, "rb") as file:
            told = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    rows = told.items() if isinstance(told, dict) else ()
    found = {str(name): [one for each in _list(row) if (one := _outage(each))] for name, row in rows}
    return {name: outages for name, outages in found.items() if outages}


def _list(row: Any) -> list[Any]:
    return row if isinstance(row, list) else []


def _outage(told: Any) -> Outage | None:
    try:
        kind, since = str(told["kind"]), float(told["since"])
        page, media_type = str(told.get("page", "")), str(told.get("media_type", ""))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    ours = media_type if media_type.isprintable() and media_type.isascii() else ""
    return Outage(kind, since, page, ours or HTML) if kind in (MAINTENANCE, PAUSED) else None
