"""What each site has used on each day: a document for each day in the state directory, kept for 400 days.

A site that used nothing on a day is not in that day's document, and an idle home writes none. So 2,000 sites that are
all used every day fill about 40 MB. Days are those of UTC: the same on every machine, 24 hours each.

The document of the newest day also has the readings up to which its sites are billed. Both are replaced in one step, so
what is billed is never billed again, whenever a process is killed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from multisite.config.model import Home
from multisite.sites.statefile import StateFile

KEPT_DAYS = 400
MOST = 5000  # sites in a day's document; what the smallest of more have used is added up
OTHERS = "(other sites)"
MIB = 2**20


class Spending(NamedTuple):
    """What a site has used.

    Attributes:
        cpu: seconds of processor time.
        memory: MiB-seconds: proportional set size times the time that it was used.
        requests: how many there were.
        received, sent: bytes of bodies.
        starts: processes.
    """

    cpu: float = 0.0
    memory: float = 0.0
    requests: int = 0
    received: int = 0
    sent: int = 0
    starts: int = 0

    def plus(self, other: Spending) -> Spending:
        """Return what was used both times."""
        return Spending._make(one + another for one, another in zip(self, other, strict=True))

    def since(self, before: Spending) -> Spending:
        """Return what was used after an earlier reading; a counter that fell counts nothing."""
        return Spending._make(max(0, now - then) for now, then in zip(self, before, strict=True))

    def highest(self, other: Spending) -> Spending:
        """Return the later of two readings of counters."""
        return Spending._make(map(max, self, other))

    @property
    def is_nothing(self) -> bool:
        """Whether it is too little to be written down."""
        return not any(self.rounded())

    def rounded(self) -> Spending:
        """Return what is written down."""
        return self._replace(cpu=round(self.cpu, 3), memory=round(self.memory, 1))


NOTHING = Spending()
Rows = dict[str, Spending]


def spending_of(row: Any) -> Spending | None:
    """Return what was written down; None where that cannot be."""
    if isinstance(row, list) and len(row) == len(NOTHING) and all(type(one) in (int, float) for one in row):
        return Spending(*row)
    return None


class Days:
    """The documents of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = os.path.join(home.state_dir, f"bill-{StateFile(home, '').key}")

    def all(self) -> list[str]:
        """Return the days that there are documents of, as ``2026-11-29``, oldest first."""
        try:
            names = os.listdir(self._folder)
        except OSError:
            return []
        return sorted(name[:-5] for name in names if name.endswith(".json") and len(name) == 15)

    def read(self, day: str) -> tuple[Rows, dict[str, Any]]:
        """Return what each site used on a day, and the readings that belong to it."""
        document = self._file(day).load()
        if not isinstance(document, dict):
            return {}, {}
        rows = document.get("sites")
        rows = {str(name): found for name, row in _items(rows) if (found := spending_of(row))}
        readings = document.get("readings")
        return rows, readings if isinstance(readings, dict) else {}

    def store(self, day: str, rows: Mapping[str, Spending], readings: Mapping[str, Any] | None = None) -> bool:
        """Replace the document of a day; False where that cannot be."""
        document: dict[str, Any] = {"sites": {name: list(one.rounded()) for name, one in bounded(rows).items()}}
        if readings is not None:
            document["readings"] = readings
        self._make_folder()
        return self._file(day).store(document)

    def _make_folder(self) -> None:
        with contextlib.suppress(OSError):
            os.makedirs(self._home.state_dir, mode=0o700, exist_ok=True)
            os.mkdir(self._folder, 0o700)
            if os.geteuid() == 0:  # root's command line works for the service's user
                status = os.stat(self._home.state_dir)
                os.chown(self._folder, status.st_uid, status.st_gid)

    def forget(self, today: str) -> None:
        """Remove the documents that are older than `KEPT_DAYS`."""
        oldest = day_of(_noon(today) - KEPT_DAYS * 86400)
        for day in self.all():
            if day < oldest:
                with contextlib.suppress(OSError):
                    os.unlink(self._file(day).path)

    def _file(self, day: str) -> StateFile:
        file = StateFile(self._home, "bill")
        file.path = os.path.join(self._folder, f"{day}.json")
        return file


def _items(table: Any) -> Iterable[tuple[Any, Any]]:
    return table.items() if isinstance(table, dict) else ()


def _noon(day: str) -> float:
    import calendar

    return calendar.timegm(time.strptime(day, "%Y-%m-%d")) + 43200.0


def day_of(wall: float) -> str:
    """Return the day of a time in Unix seconds."""
    return time.strftime("%Y-%m-%d", time.gmtime(wall))


def bounded(rows: Mapping[str, Spending]) -> Mapping[str, Spending]:
    """Return at most `MOST` rows: those that used most, and one for all others."""
    if len(rows) <= MOST:
        return rows
    largest = sorted(rows.keys() - {OTHERS}, key=lambda name: (rows[name], name), reverse=True)
    kept = {name: rows[name] for name in largest[: MOST - 1]}
    small = [rows[name] for name in (*largest[MOST - 1 :], OTHERS) if name in rows]
    kept[OTHERS] = Spending._make(map(sum, zip(*small, strict=True)))
    return kept


def added(tables: Iterable[Mapping[str, Spending]]) -> Rows:
    """Return the sums over several days."""
    total: Rows = {}
    for rows in tables:
        for name, one in rows.items():
            total[name] = total.get(name, NOTHING).plus(one)
    return total
