"""What each site went through: its last starts, deploys and slow requests, in one small file of the state directory.

Workers and the supervisor append lines of JSON, each with one write, so that what is written outlives whoever wrote it,
however that ends. A file that has grown too large is replaced by a new one with the last lines of each kind, so a flood
of slow requests costs no start. Whatever stands in it may have come from a site or a visitor: whoever shows it escapes
it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from multisite.logs.keptfiles import KeptFiles, file_name
from multisite.logs.records import content_of, is_number, items, number, parsed, text

FOLDER = "past"  # in the state directory
ENDING = ".jsonl"
LARGEST = 16_000  # bytes of a file; it is shortened when it has more
MOST_FILES = 4096
STARTS, DEPLOYS, SLOWEST, LATEST = 20, 10, 10, 10  # lines that are kept: slow requests are the slowest and the last
LONGEST = 300  # bytes of a line, so that all that are kept fit
SLOW = 1.0  # seconds from a request to the beginning of its answer; one that takes as long or longer is slow
BURST = 10  # slow requests of a site that a process writes at one time; one more each second
SAME = 60.0  # seconds within which several workers deploy the same version
READY, FAILED = "ready", "failed"  # outcomes of a start
DONE = "done"  # the outcome of a deploy that is not `FAILED`
_KINDS = ("start", "deploy", "slow")  # a line's first key
_TEXTS = ("failure", "path", "way", "cause", "method")  # what is cut in a line that is too long
_SPLIT = ("queued", "relay", "app")

Row = dict[str, Any]
#: seconds in which a request waited for a process, was relayed, and the application worked; None: not known
Split = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Past:
    """What a file has of its site, the newest first; times are Unix seconds, durations seconds.

    Attributes:
        starts: "kind" (`multisite.sites.tally.KINDS`), "at", "outcome", "seconds", "steps", "way", "failure" and
            "incident" of each.
        deploys: "at", "cause", "outcome", "seconds", "failure" and "incident" of each.
        slow: "at", "method", "path", "status", "seconds" until its answer began, and "split": where they went, None
            where nobody has measured it.
    """

    starts: list[Row] = field(default_factory=list)
    deploys: list[Row] = field(default_factory=list)
    slow: list[Row] = field(default_factory=list)

    def as_dict(self) -> Row:
        """Describe it for the row of a site in ``--json status``."""
        return {"last_starts": self.starts, "deploys": self.deploys, "slow_requests": self.slow}


class Pasts:
    """The files of one home.

    Args:
        state_dir: where their folder is, made with the first line.
    """

    def __init__(self, state_dir: str) -> None:
        self.folder = os.path.join(state_dir, FOLDER)
        self._files = KeptFiles(self.folder, MOST_FILES)
        self._rooms: dict[str, tuple[float, float]] = {}  # by site: slow requests that may be written, and since when

    def write(self, site: str, facts: Row) -> None:
        """Append a line; a full disk costs no more than that."""
        with contextlib.suppress(OSError):
            self._files.append(file_name(site, ENDING), b"\n%s\n" % _line(facts), LARGEST, shortened)

    def has_room(self, site: str, now: float) -> bool:
        """Tell whether one more slow request of a site may be written (monotonic seconds)."""
        room, at = self._rooms.get(site, (float(BURST), now))
        room = min(float(BURST), room + now - at)
        if len(self._rooms) > MOST_FILES:
            self._rooms.clear()
        self._rooms[site] = (room - 1.0 if room >= 1.0 else room), now
        return room >= 1.0


_current: Pasts | None = None


def begin(state_dir: str) -> None:
    """Keep what happens to sites below `state_dir` from now on."""
    global _current
    if not _current or _current.folder != os.path.join(state_dir, FOLDER):
        _current = Pasts(state_dir)


def started(
    site: str,
    kind: str,
    begun: float,
    steps: Iterable[tuple[str, float]],
    *,
    way: str = "",
    failure: str = "",
    incident: str = "",
) -> None:
    """Write down a start that is over.

    Args:
        kind: one of `multisite.sites.tally.KINDS`.
        begun: Unix seconds.
        steps: what it went through, each with its seconds.
        way: how the process was made.
        failure: why it failed, "" if the site was ready.
        incident: of the failure.
    """
    if _current:
        told = [[step, round(seconds, 4)] for step, seconds in steps]
        facts = {"start": kind, "at": round(begun, 3), "steps": told, "way": way}
        _current.write(site, {**facts, "failure": failure, "incident": incident})


def deployed(
    site: str, cause: str, begun: float, seconds: float, *, failure: str = "", incident: str = "", worker: int = 0
) -> None:
    """Write down how an attempt to replace the serving version of a site has ended; other arguments as of `started`.

    Args:
        worker: the process that has replaced it in itself alone, 0 for the supervisor.
    """
    if _current:
        facts = {"deploy": cause, "at": round(begun, 3), "seconds": round(max(0.0, seconds), 3), "worker": worker}
        _current.write(site, {**facts, "failure": failure, "incident": incident})


def was_slow(
    site: str,
    method: str,
    target: str,
    status: int,
    seconds: float,
    split: Split = (None, None, None),
) -> None:
    """Write down a slow request, unless there are too many of them.

    Args:
        target: what it asked for; the query is left out, in which there may be a secret.
        status: of the answer, 0 where there was none.
        seconds: until its answer began.
        split: where they went.
    """
    if _current and _current.has_room(site, time.monotonic()):
        path = quote(target.partition("?")[0], safe="/:@!$&'()*+,;=~%", encoding="utf-8", errors="replace")
        facts = {"slow": round(seconds, 4), "at": round(time.time(), 3), "method": method, "path": path}
        known = [None if one is None else round(one, 4) for one in split]
        _current.write(site, {**facts, "status": status, "split": known})


def _line(facts: Row) -> bytes:
    """Return a line that is not too long: texts are cut, and in the end steps are left out."""
    known = {key: value for key, value in facts.items() if value not in ("", [])}
    line = b""
    for longest, has_steps in ((160, True), (60, True), (20, True), (20, False)):
        short = {key: value[:longest] if key in _TEXTS else value for key, value in known.items()}
        if not has_steps:
            short.pop("steps", None)
        line = json.dumps(short, separators=(",", ":")).encode()
        if len(line) <= LONGEST:
            break
    return line


# Reading


def shortened(content: bytes) -> bytes:
    """Return the lines of a file that are kept when it has grown too large, oldest first."""
    return b"".join(b"%s\n" % _line(row) for row in _kept(_rows(content)))


def _kept(rows: Iterable[Row]) -> list[Row]:
    """Return the lines that are kept, oldest first."""
    rows = sorted(rows, key=lambda row: number(row, "at"))
    starts = [row for row in rows if "start" in row][-STARTS:]
    deploys = [row for row in rows if "deploy" in row][-DEPLOYS:]
    slow = [row for row in rows if "slow" in row]
    slowest = sorted(slow[:-LATEST], key=lambda row: number(row, "slow"))[-SLOWEST:]
    return sorted([*starts, *deploys, *slowest, *slow[-LATEST:]], key=lambda row: number(row, "at"))


def read(state_dirs: Iterable[str], site: str) -> Past:
    """Return what is known of a site; nothing where there is no file, or this user may not read it."""
    name = os.path.join(FOLDER, file_name(site, ENDING))
    rows = [row for one in state_dirs for row in _rows(content_of(os.path.join(one, name), 2 * LARGEST))]
    newest = _kept(rows)[::-1]
    return Past(
        [_start(row) for row in newest if "start" in row],
        _once([_deploy(row) for row in newest if "deploy" in row]),
        [_slow(row) for row in newest if "slow" in row],
    )


def _rows(content: bytes) -> Iterator[Row]:
    return (row for row in parsed(content) if not row.keys().isdisjoint(_KINDS))


def _start(row: Row) -> Row:
    steps: list[Row] = [{"step": str(one[0]), "seconds": float(one[1])} for one in items(row, "steps") if _is_step(one)]
    known = {
        "kind": text(row, "start"),
        "at": number(row, "at"),
        "outcome": FAILED if text(row, "failure") else READY,
    }
    texts = {key: text(row, key) for key in ("way", "failure", "incident")}
    return {**known, "seconds": round(sum(one["seconds"] for one in steps), 4), "steps": steps, **texts}


def _deploy(row: Row) -> Row:
    outcome = FAILED if text(row, "failure") else DONE
    known = {"at": number(row, "at"), "cause": text(row, "deploy"), "outcome": outcome}
    texts = {key: text(row, key) for key in ("failure", "incident")}
    return {**known, "seconds": number(row, "seconds"), **texts, "worker": int(number(row, "worker"))}


def _slow(row: Row) -> Row:
    split = items(row, "split")
    known = split if len(split) == len(_SPLIT) else [None] * len(_SPLIT)
    return {
        "at": number(row, "at"),
        **{key: text(row, key) for key in ("method", "path")},
        "status": int(number(row, "status")),
        "seconds": number(row, "slow"),
        "split": {name: float(one) if is_number(one) else None for name, one in zip(_SPLIT, known, strict=True)},
    }


def _once(deploys: list[Row]) -> list[Row]:
    """Leave out what other workers have done as well."""
    kept: list[Row] = []
    for one in deploys:
        if not any(_is_same(one, kin) for kin in kept):
            kept.append(one)
    return [{key: value for key, value in one.items() if key != "worker"} for one in kept]


def _is_same(one: Row, kin: Row) -> bool:
    """Tell whether two workers, which are not the same one, have deployed one version."""
    if not one["worker"] or kin["worker"] in (0, one["worker"]) or abs(kin["at"] - one["at"]) > SAME:
        return False
    same = ("cause", "outcome", "failure")
    return [kin[key] for key in same] == [one[key] for key in same]


def _is_step(one: Any) -> bool:
    return isinstance(one, list) and len(one) == 2 and is_number(one[1])
