"""The incidents of a home as they are shown: what failed, at which request, and what has been done since.

They are read without a lock while others write (`multisite.logs.incidents`). Whatever stands in them may have come from
a site or a visitor: whoever shows it escapes it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from multisite.logs.incidents import ENDING, FOLDER, LARGEST
from multisite.logs.keptfiles import file_name
from multisite.logs.records import Record, content_of, items, number, parsed, text
from multisite.status.sight import closed_place, state_folders

if TYPE_CHECKING:
    from multisite.config.model import Home

MOST_DONE = 20  # deeds that are shown after an incident: the first ones
SAME_DEED = 60.0  # seconds within which several workers report the same
LONGEST_FILE = 2 * LARGEST  # bytes that are read; one that is being written may be a little larger than it should


@dataclass(frozen=True)
class Incident:
    """One failure that a visitor or an administrator was told of.

    Attributes:
        incident: its id.
        at: Unix seconds.
        site: its name, "" for the service itself.
        cause: what has failed, and why.
        remedy: what would help, "" where nobody knows.
        request: "method", "host" and "path" of the request whose page showed it first; empty where there was none.
        traceback: its lines.
        output: the last lines that a process printed.
        since: what has been done to the site since: "at", "did" and "text" of each.
    """

    incident: str
    at: float
    site: str
    cause: str = ""
    remedy: str = ""
    request: dict[str, str] = field(default_factory=dict)
    traceback: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    since: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON and for the status page."""
        facts = asdict(self)
        return {"incident": facts.pop("incident"), "at": facts.pop("at"), "name": facts.pop("site"), **facts}


def find(home: Home, incident: str) -> Incident | None:
    """Return the incident of an id, None where it is not known, or no longer."""
    mark = json.dumps(incident).encode()
    records = [one for path in _paths(home) for one in _records(path, mark) if one.get("incident") == incident]
    if not records:
        return _of_a_command(home, incident)
    return _joined(incident, sorted(records, key=_at), _deeds(home, {text(one, "site") for one in records}))


def latest(home: Home, most: int = 20, site: str = "") -> list[Incident]:
    """Return the last incidents, of one site or of all, the newest first."""
    found: dict[str, list[Record]] = {}
    paths = [path for path in _paths(home) if not site or _is_of(path, site)]
    for path in sorted(paths, key=_written, reverse=True):
        starts = sorted((min(map(_at, records)) for records in found.values()), reverse=True)
        if len(starts) >= most and _written(path) < starts[most - 1]:
            break  # none of what follows is newer
        for record in _records(path):
            if record.get("incident"):
                found.setdefault(text(record, "incident"), []).append(record)
    newest = sorted(found.items(), key=lambda one: min(map(_at, one[1])), reverse=True)[:most]
    deeds = _deeds(home, {text(one, "site") for _, records in newest for one in records})
    return [_joined(incident, sorted(records, key=_at), deeds) for incident, records in newest]


def closed(home: Home) -> str:
    """Return the folder of incidents that this user may not read, "" if there is none."""
    return next(filter(None, (closed_place(os.path.join(one, FOLDER)) for one in state_folders(home))), "")


def _joined(incident: str, records: list[Record], deeds: dict[str, list[Record]]) -> Incident:
    """Join what several processes noted of an incident: the first has the cause, others may know the request."""
    site = next(filter(None, (text(one, "site") for one in records)), "")
    records = [one for one in records if text(one, "site") in ("", site)]  # another site can only have copied the id
    first, at = next((one for one in records if one.get("cause")), records[0]), _at(records[0])
    later = [
        {"at": _at(one), "did": "failed", "text": text(one, "cause")}
        for one in records
        if one is not first and one.get("cause")
    ]
    done = [
        {"at": _at(one), "did": text(one, "did"), "text": text(one, "text")}
        for one in deeds.get(site, ())
        if _at(one) >= at
    ]
    request: dict[str, Any] = next((one["request"] for one in records if isinstance(one.get("request"), dict)), {})
    return Incident(
        incident,
        at,
        site,
        text(first, "cause"),
        next(filter(None, (text(one, "remedy") for one in records)), ""),
        {name: str(request.get(name, "")) for name in ("method", "host", "path")} if request else {},
        next(filter(None, (_lines(one, "traceback") for one in records)), []),
        next(filter(None, (_lines(one, "output") for one in records)), []),
        _once(sorted(later + done, key=_at))[:MOST_DONE],
    )


def _once(deeds: list[Record]) -> list[Record]:
    """Leave out what another process has reported just before."""
    kept: list[Record] = []
    for deed in deeds:
        same = (one for one in kept if (one["did"], one["text"]) == (deed["did"], deed["text"]))
        if not any(deed["at"] - one["at"] < SAME_DEED for one in same):
            kept.append(deed)
    return kept


def _deeds(home: Home, sites: Iterable[str]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    wanted = set(sites)
    for path in _paths(home):
        if any(_is_of(path, site) for site in wanted):
            for record in _records(path, b'"did"'):
                if record.get("did"):
                    found.setdefault(text(record, "site"), []).append(record)
    return found


def _of_a_command(home: Home, incident: str) -> Incident | None:
    """Return an incident of the command line, which has a document of its own (`multisite.status.fence`)."""
    from multisite.sites.statefile import StateFile
    from multisite.status.fence import KIND

    row = StateFile(home, KIND).rows().get(incident)
    if not isinstance(row, dict):
        return None
    lines = _lines(row, "traceback")
    cause = f"a command failed: {lines[-1] if lines else 'nobody knows how'}"
    return Incident(incident, _at(row), text(row, "site"), cause, "report it to the authors", traceback=lines)


# Reading


def _paths(home: Home) -> Iterator[str]:
    for state in state_folders(home):
        folder = os.path.join(state, FOLDER)
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                if name.endswith((ENDING, f"{ENDING}.1")):
                    yield os.path.join(folder, name)


def _is_of(path: str, site: str) -> bool:
    return os.path.basename(path).removesuffix(".1") == file_name(site, ENDING)


def _written(path: str) -> float:
    with contextlib.suppress(OSError):
        return os.stat(path, follow_symlinks=False).st_mtime
    return 0.0


def _records(path: str, mark: bytes = b"") -> Iterator[Record]:
    return parsed(content_of(path, LONGEST_FILE), mark)


def _at(record: Record) -> float:
    return number(record, "at")


def _lines(record: Record, name: str) -> list[str]:
    return [str(line) for line in items(record, name)]
