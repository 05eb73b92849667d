"""What became of each site that could not be served, noted for ``multisite explain``.

Workers come and go and the command line is another process, so the last failure of a
site is kept in the state directory until the site is served again.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from multisite.model import Home
from multisite.statefile import StateFile


@dataclass(frozen=True, slots=True)
class Verdict:
    """One failure: `at` is Unix time, `serving` tells whether an older application goes on.

    `own_process` tells that it is no failure of the site: it may not live in a process with others.
    """

    reason: str
    incident: str
    at: float
    serving: bool = False
    own_process: bool = False

    @property
    def broken(self) -> bool:
        """Whether visitors get an error page."""
        return not self.serving and not self.own_process


class Verdicts:
    """The last failure of each site of a home."""

    def __init__(self, home: Home) -> None:
        self._file = StateFile(home, "verdicts")

    def all(self) -> dict[str, Verdict]:
        """Return the failures by site name."""
        document = self._file.load()
        try:
            return {str(name): Verdict(**row) for name, row in (document or {}).items()}
        except (AttributeError, TypeError):
            return {}

    def note(self, site: str, reason: str, incident: str, *, serving: bool, own_process: bool) -> None:
        """Note that `site` has failed."""
        verdict = Verdict(reason, incident, time.time(), serving, own_process)
        self._change({site: asdict(verdict)})

    def clear(self, site: str) -> None:
        """Note that `site` is served."""
        if site in self.all():
            self._change({site: None})

    def _change(self, rows: dict[str, Any]) -> None:
        with self._file.locked():
            kept = {name: asdict(verdict) for name, verdict in self.all().items()}
            self._file.store({name: row for name, row in {**kept, **rows}.items() if row})
