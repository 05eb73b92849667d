"""Lines of sites' logs: their times and levels, the order of lines from several logs, and how they are printed."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from zlib import crc32

import click

from multisite.cli.output import printable

COLOURS = ("cyan", "green", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta", "bright_blue")
LEVELS = {"CRITICAL": "red", "ERROR": "red", "WARNING": "yellow"}
_STAMP = re.compile(
    r"\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?(?: ?(Z|[+-]\d\d:?\d\d))?\]?(?:\s+(?=\S)|\Z)"
)
_ACCESS = re.compile(r"\[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\]")
_KEPT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{3})Z ([A-Z]\w*|Level \d+) ?(.*)\Z", re.S)
_LEVEL = re.compile(r"(?:\[\d+\] )?\[?(CRITICAL|FATAL|ERROR|WARNING|WARN|INFO|DEBUG)\b")


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        at: when it was written, in seconds since 1970; 0.0 if that is unknown.
        name: name of the site.
        level: a level of `logging`.
        text: the line without the time.
    """

    at: float
    name: str
    level: str
    text: str

    def as_dict(self) -> dict[str, Any]:
        """Describe it for ``--json``."""
        return {"time": self.at or None, "name": self.name, "level": self.level, "line": self.text}


def kept(name: str, text: str) -> Line:
    """Read a line of a log that we keep (`multisite.logs.kept`)."""
    found = _KEPT.match(text)
    if not found:
        return Line(0.0, name, "INFO", text)
    at = calendar.timegm(time.strptime(found[1], "%Y-%m-%dT%H:%M:%S")) + int(found[2]) / 1000
    return Line(at, name, found[3], found[4])


def error(name: str, text: str) -> Line:
    """Read a line of a site's error log; a time at its beginning moves to `Line.at`."""
    found = _STAMP.match(text)
    at = _seconds(found) if found else 0.0
    rest = text[found.end() :] if found and at else text
    level = _LEVEL.match(rest)
    named = {"FATAL": "CRITICAL", "WARN": "WARNING"}.get(level[1], level[1]) if level else "INFO"
    return Line(at, name, named, rest)


def access(name: str, text: str) -> Line:
    """Read a line of an access log, whose time stays in it."""
    found = _ACCESS.search(text)
    try:
        at = datetime.strptime(found[1], "%d/%b/%Y:%H:%M:%S %z").timestamp() if found else 0.0
    except ValueError:
        at = 0.0
    return Line(at, name, "INFO", text)


def _seconds(found: re.Match[str]) -> float:
    moment, fraction, zone = found.groups()
    try:
        return datetime.fromisoformat(f"{moment}.{(fraction or '0'):0<6}{_zone(zone)}").timestamp()
    except ValueError:
        return 0.0


def _zone(zone: str | None) -> str:
    if not zone:
        return ""
    return "+00:00" if zone == "Z" else f"{zone[:3]}:{zone[-2:]}"


def timed(lines: Iterable[Line], otherwise: float) -> list[Line]:
    """Give a line without a time that of the line before it, or `otherwise`, so that a traceback stays in one piece."""
    found, last = [], otherwise
    for line in lines:
        last = line.at or last
        found.append(line if line.at else replace(line, at=last))
    return found


def merged(logs: Iterable[Sequence[Line]]) -> list[Line]:
    """Return all lines by time; those of one log stay in their order."""
    return sorted((line for log in logs for line in log), key=lambda line: line.at)


def shown(line: Line, width: int, coloured: bool) -> str:
    """Return a line for the terminal; nothing in it can control the terminal.

    Args:
        line: the line to print.
        width: width of the column of names; 0: no such column.
        coloured: whether to add our own escape sequences.
    """
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.at)) if line.at else " " * 19
    text = printable(line.text.expandtabs())
    shows_level = text.startswith((line.level, f"[{line.level}]")) or _LEVEL.match(text)
    if line.level in LEVELS and not shows_level:
        text = f"{line.level} {text}"
    name = f"{printable(line.name):{width}} | " if width else ""
    if coloured:
        moment = click.style(moment, dim=True)
        name = click.style(name, fg=COLOURS[crc32(line.name.encode()) % len(COLOURS)]) if name else ""
        text = click.style(text, fg=LEVELS[line.level]) if line.level in LEVELS else text
    return f"{moment} {name}{text}"
