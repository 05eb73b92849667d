"""Where the sites with ``mode = auto`` live at present, and why: written by the supervisor, read by everybody.

One document in the state directory, a row for each site that has been examined. The verdict of an examination
belongs to one version of the site's code; whether the site is in the workers depends on its use as well.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from multisite.examined import Examined, examined
from multisite.model import Home
from multisite.statefile import StateFile


@dataclass(frozen=True, slots=True)
class Row:
    """One site.

    Attributes:
        version: of its code (`multisite.codeversion`) that was examined.
        kind: "in-process" or "spawned".
        reason: completes "…, because …".
        since: Unix time from which it has lived there.
        held: why this version does not come into the workers again, "" if it may.
    """

    version: str
    found: Examined
    kind: str
    reason: str
    since: float
    held: str = ""

    @property
    def is_here(self) -> bool:
        """Whether it lives in the workers."""
        return self.kind == "in-process"


class Placements:
    """The document of one home."""

    def __init__(self, home: Home) -> None:
        self._file = StateFile(home, "placements", guides_us=True)
        self._stamp: tuple[int, int] = (0, 0)
        self._rows: dict[str, Row] = {}

    def rows(self) -> dict[str, Row]:
        """Return the rows by site name; the document is read when it is another one."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            document = self._file.load()
            told = document.items() if isinstance(document, dict) else ()
            self._rows = {str(name): row for name, each in told if (row := _row(each))}
        return self._rows

    def of(self, site: str) -> Row | None:
        """Return the row of a site, None if it has not been examined."""
        return self.rows().get(site)

    def store(self, rows: dict[str, Row]) -> bool:
        """Put `rows` in place of those that are there; False where that cannot be."""
        return self._file.store({name: asdict(row) for name, row in rows.items()})

    def _look(self) -> tuple[int, int]:
        try:
            status = os.stat(self._file.path)
        except OSError:
            return (0, 0)
        return (status.st_mtime_ns, status.st_ino)


def _row(told: Any) -> Row | None:
    found = examined(told.get("found")) if isinstance(told, dict) else None
    if not found:
        return None
    try:
        since, kind = float(told["since"]), str(told["kind"])
        return Row(str(told["version"]), found, kind, str(told["reason"]), since, str(told.get("held", "")))
    except (KeyError, TypeError, ValueError):
        return None
