"""Where the sites with ``mode = auto`` run at present, and why: the supervisor writes it, all processes read it.

One document in the state directory, a row for each site that has been examined. The verdict of an examination
belongs to one version of the site's code; whether the site is in the workers depends on its use as well.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

from multisite.config.model import Home
from multisite.sites.placement import ALONE, Examined, Saving, examined
from multisite.sites.statefile import StateFile


@dataclass(frozen=True, slots=True)
class Row:
    """One site.

    Attributes:
        version: of its code (`multisite.sites.changes`) that was examined; "" for none (`Placements.alone`).
        kind: "in-process" or "spawned".
        reason: completes "…, because …".
        since: Unix time from which it has lived there.
        held: why this version does not move into the workers again, "" if it may.
        was_here: whether the site, in whatever version, has ever lived in the workers, who have counted its requests.
        saving: what it would save to have this version there, once it has been busy and may not share.
    """

    version: str
    found: Examined
    kind: str
    reason: str
    since: float
    held: str = ""
    was_here: bool = False
    saving: Saving | None = None

    @property
    def is_here(self) -> bool:
        """Whether it lives in the workers."""
        return self.kind == "in-process"


class Placements:
    """The document of one home.

    Args:
        home: whose sites they are.
        only_here: keep only the rows of sites in the workers, which is all that a worker asks for.
    """

    def __init__(self, home: Home, only_here: bool = False) -> None:
        self._file = StateFile(home, "placements", guides_us=True)
        self._only_here = only_here
        self._stamp: tuple[int, int] = (0, 0)
        self._rows: dict[str, Row] = {}

    def rows(self) -> dict[str, Row]:
        """Return the rows by site name; the document is read again when it has changed."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            self._rows = {name: row for name, row in self._load().items() if row.is_here or not self._only_here}
        return self._rows

    def _load(self) -> dict[str, Row]:
        return {name: row for name, told in self._file.rows().items() if (row := row_of(told))}

    def of(self, site: str) -> Row | None:
        """Return the row of a site, None if it has not been examined."""
        return self.rows().get(site)

    def store(self, rows: dict[str, Row]) -> bool:
        """Replace the rows; return False if that is not possible."""
        return self._file.store({name: asdict(row) for name, row in rows.items()})

    def alone(self, site: str, why: str) -> None:
        """Note that a worker serves `site` without an examination, since no process is available."""
        with self._file.locked():
            row = Row("", Examined(), "in-process", f"{ALONE}: {why}", time.time(), was_here=True)
            self.store({**self._load(), site: row})

    def _look(self) -> tuple[int, int]:
        try:
            status = os.stat(self._file.path)
        except OSError:
            return (0, 0)
        return (status.st_mtime_ns, status.st_ino)


def row_of(told: Any) -> Row | None:
    """Return the row from the result of `dataclasses.asdict`; None if it is invalid."""
    found = examined(told.get("found")) if isinstance(told, dict) else None
    if not found:
        return None
    try:
        since, kind = float(told["since"]), str(told["kind"])
        held, was_here, saving = str(told.get("held", "")), bool(told.get("was_here")), told.get("saving")
        saves = Saving(int(saving["memory"]), float(saving["seconds"])) if saving else None
        return Row(str(told["version"]), found, kind, str(told["reason"]), since, held, was_here, saves)
    except (KeyError, TypeError, ValueError):
        return None
