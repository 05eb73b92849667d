"""What a site's page shows besides its row of ``--json status``: its log, its options, and what it did lately."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from multisite.errors import MultisiteError
from multisite.logs import past
from multisite.logs.kept import FOLDER
from multisite.logs.keptfiles import file_name
from multisite.logs.logfiles import STREAMS, Tail
from multisite.sites import history
from multisite.status import incidents
from multisite.status.charges import charges, span
from multisite.status.settings import MASK, origin, settings
from multisite.status.sight import state_folders
from multisite.status.web.markup import Html, size
from multisite.status.web.sparkline import level, sparkline

if TYPE_CHECKING:
    from multisite.config.model import Site, SiteFile
    from multisite.status.inventory import Inventory

LINES = 40  # of the log
INCIDENTS = 10  # that are listed
HOUR = 3600  # seconds


def of(inventory: Inventory, row: dict[str, Any]) -> dict[str, Any]:
    """Return the details of a site; what cannot be read is left out."""
    found: dict[str, Any] = {"home": inventory.home.path, "started": (row.get("journey") or {}).get("way")}
    found["curves"] = curves(row)
    found["past"] = past.read(state_folders(inventory.home), row["name"])
    with suppress(MultisiteError, OSError):
        name = str(row.get("template") or row["name"])
        bill = charges(inventory.home, *span("", time.time()), lambda one: one == name)
        found["bill"] = next(iter(bill["sites"]), None)
        found["incidents"] = [one.as_dict() for one in incidents.latest(inventory.home, INCIDENTS, name)]
    with suppress(MultisiteError, OSError, KeyError, ValueError):
        file, site = _site(inventory, row)
        found["settings"] = effective(inventory, file, site)
        found["lines"] = last_lines(inventory, site)
    return found


def _site(inventory: Inventory, row: dict[str, Any]) -> tuple[SiteFile, Site]:
    """Return the file of a row and what it says: of an instance, a site, or one that is not enabled."""
    if row.get("host"):
        instance = inventory.catalogue.instance(row["template"], row["host"])
        if not instance:
            raise KeyError(row["host"])
        return instance[0].file, instance[1]
    if row["enabled"]:
        return inventory.catalogue.entries[row["name"]].file, inventory.catalogue.site(row["name"])
    from multisite.config.read import make_site

    file = next(file for file in inventory.disabled.values() if file.path == row["file"])
    return file, make_site(file, inventory.home)


def effective(inventory: Inventory, file: SiteFile, site: Site) -> list[tuple[str, str, str]]:
    """Return each option that has a value, with where it comes from; no value of the environment is shown."""
    found = []
    for one in settings(inventory.home, file, site):
        key = one.key if one.section == "service" else f"[{one.section}] {one.key}"
        value = MASK if one.section == "env" else one.value
        if one.value or one.origin != "default":
            found.append((key, value, origin(inventory.home, one)))
    return found


def last_lines(inventory: Inventory, site: Site) -> list[str]:
    """Return the last lines of a site's own error log, else of those that are kept for it."""
    own = site.error_log
    has_own = own and own not in STREAMS and not own.startswith("syslog:") and "%" not in own
    kept = os.path.join(inventory.home.state_dir, FOLDER, file_name(site.name))
    for path in (*([own] if has_own else []), kept, f"{kept}.1"):
        with suppress(OSError), Tail(path) as tail:
            lines = tail.begin(lambda lines: len(lines) >= LINES)
            if lines:
                return lines[-LINES:]
    return []


def last_hour(row: dict[str, Any]) -> Html:
    """Draw the requests and errors of the last hour; nothing where nothing happened in it, or nobody keeps that."""
    path, now = row.get("history_file"), time.time()
    if not path or now - (row.get("last_use") or 0.0) > HOUR:
        return Html("")
    return _traffic(history.read(path, 1, now, HOUR // 60), "the last hour")


def curves(row: dict[str, Any]) -> list[tuple[str, Html]]:
    """Draw what a site did in five minutes, in a day and in a month."""
    path, now = row.get("history_file"), time.time()
    if not path:
        return []
    found = []
    for tier, points, what in (
        (0, 300, "the last five minutes"),
        (1, 1440, "the last day"),
        (2, 720, "the last 30 days"),
    ):
        samples = history.read(path, tier, now, points)
        sizes = [one.memory for one in samples]
        most = f"at most {size(max(sizes))} of memory in {what}"
        found += [
            (f"Requests (line) and errors (bars) of {what}", _traffic(samples, what)),
            (f"Memory of {what}, while it did something", level(sizes, most)),
        ]
    return found


def _traffic(samples: list[history.Sample], what: str) -> Html:
    return sparkline([one.requests for one in samples], [one.errors for one in samples], what)
