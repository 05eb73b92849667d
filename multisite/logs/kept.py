"""What sites print and what is logged about them, kept in a file for each in the state directory, for `multisite logs`.

A site whose file names a log has its lines there. All others have theirs in ``<state_dir>/logs/NAME.log``,
written by the supervisor and by the workers: a line for each, with its time and level, and nothing in it that could
steer a terminal. A file that has grown too large is renamed to ``NAME.log.1``, in the place of the one before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Sequence
from typing import IO, Any
from urllib.parse import quote, unquote

from multisite.config.hosting import BETWEEN
from multisite.errors import one_line
from multisite.logs import servicelog
from multisite.logs.keptfiles import KeptFiles, file_name

FOLDER = "logs"  # in the state directory
LARGEST = 1 << 20  # bytes of a file; there are two of a site
PER_SECOND = 512 << 10  # bytes of a site; beyond, lines are counted and left out
LINE = 64  # bytes that a line counts for besides what is in it
LONGEST_LINE = 1000  # characters of a line that are kept

_log = logging.getLogger("multisite.kept")


def instances(folder: str, site: str) -> list[str]:
    """Return the names of the instances of a hosting site whose lines are kept in a folder, if it can be listed."""
    begin = quote(f"{site}{BETWEEN}", safe="")
    with contextlib.suppress(OSError):
        found = (name for name in os.listdir(folder) if name.startswith(begin) and name.endswith(".log"))
        return sorted(unquote(name.removesuffix(".log")) for name in found)
    return []


def stamp(at: float) -> str:
    """Return a time (seconds since 1970) as it stands before a line: ``2026-11-29T09:14:02.123Z``."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at * 1000) % 1000:03d}Z"


class Tracebacks:
    """Tells the lines of Python's tracebacks from the others that a process prints."""

    _BEGIN = re.compile(r"[\s|+]*(?:Exception Group )?Traceback \(most recent call last\):$")
    _BETWEEN = ("During handling of the above exception", "The above exception was the direct cause")

    def __init__(self) -> None:
        self.is_inside = False

    def level(self, line: str) -> int:
        """Return the level at which a line is logged: ERROR for those of a traceback, else INFO."""
        if "Traceback (most recent" in line and self._BEGIN.match(line):
            self.is_inside = True
        elif self.is_inside and not line.startswith((" ", "|")):
            self.is_inside = not line  # the exception itself is the last line
        elif not self.is_inside:
            return logging.ERROR if line.startswith(self._BETWEEN) else logging.INFO
        return logging.ERROR


class KeptLogs:
    """The files of one home.

    Args:
        state_dir: where their folder is, made when the first line comes.
    """

    def __init__(self, state_dir: str) -> None:
        self.folder = os.path.join(state_dir, FOLDER)
        self._files = KeptFiles(self.folder)
        self.lock = threading.Lock()
        self._second = 0
        self._taken: dict[str, int] = {}  # bytes in this second, by site
        self._left_out: dict[str, int] = {}  # lines, by site
        self._told = ""

    def write(self, site: str, lines: Sequence[str], levels: Sequence[int]) -> None:
        """Append lines, each with its level; a fault costs no more than the lines, and is logged once."""
        now = time.time()
        head = stamp(now)
        taken = [
            f"{head} {logging.getLevelName(level)} {one_line(line.expandtabs())[:LONGEST_LINE]}\n"
            for level, line in self._share(site, lines, levels, int(now))
        ]
        if not taken:
            return
        try:
            self._files.append(file_name(site), "".join(taken).encode("utf-8", "backslashreplace"), LARGEST)
            self._told = ""
        except OSError as error:
            reason = f"{self.folder}: what sites print cannot be kept: {error.strerror}"
            if self._told != reason:
                self._told = reason
                _log.warning("MS835 %s", reason)

    def _share(self, site: str, lines: Sequence[str], levels: Sequence[int], second: int) -> Iterable[tuple[int, str]]:
        """Return what of the lines there is room for in this second, behind how many were left out before."""
        with self.lock:
            if second != self._second:
                self._second = second
                self._taken.clear()
            used, found = self._taken.get(site, 0), list[tuple[int, str]]()
            left_out = self._left_out.pop(site, 0) if used < PER_SECOND else self._left_out.get(site, 0)
            if left_out and used < PER_SECOND:
                found.append((logging.WARNING, f"multisite: {left_out} lines left out"))
                left_out = 0
            for line, level in zip(lines, levels, strict=True):
                used += min(len(line), LONGEST_LINE) + LINE
                if used > PER_SECOND:
                    left_out += 1
                else:
                    found.append((level, line))
            self._taken[site] = used
            if left_out:
                self._left_out[site] = left_out
            return found


_current: KeptLogs | None = None


def begin(state_dir: str) -> None:
    """Keep the lines of this process's sites below `state_dir` from now on, what is logged about them included."""
    global _current
    if not _current or _current.folder != os.path.join(state_dir, FOLDER):
        _current = KeptLogs(state_dir)
    for _, handler in servicelog.installed:  # what the service logs is none of the site's that is served just then
        beneath = getattr(getattr(handler, "stream", None), "beneath", None)
        if beneath and isinstance(handler, logging.StreamHandler):
            handler.setStream(beneath)
    servicelog.stand(logging.getLogger(servicelog.SITE_PREFIX.rstrip(".")), _records)
    if set(logging.root.handlers) - {_records, servicelog.records}:  # else a site's basicConfig() would do nothing
        servicelog.stand(logging.root, _records)


def write(site: str, lines: Sequence[str], levels: Sequence[int]) -> None:
    """Keep lines that a site has printed."""
    if _current:
        _current.write(site, lines, levels)


class _Records(logging.Handler):
    """Keeps what the service warns of sites, and what their code logs where handlers of the service get it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record once; what a site has printed is kept by who reads it."""
        site = getattr(record, "site", "")
        if not site or hasattr(record, "is_output") or servicelog.has_file(site):
            return
        if record.name.startswith(servicelog.SITE_PREFIX) and record.levelno < logging.WARNING:
            return
        record.is_output = True
        try:
            text = record.getMessage().partition("\n")[0]  # the last lines of output that follow are there already
            if record.exc_info and record.exc_info[0]:
                text = f"{text}\n{(self.formatter or _PLAIN).formatException(record.exc_info)}"
            lines = text.split("\n")
            write(site, lines, [record.levelno] * len(lines))
        except Exception:
            self.handleError(record)


def _forked() -> None:
    """Another thread may have held the lock."""
    if _current:
        _current.lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)

_PLAIN = logging.Formatter()
_records = _Records()


class SiteStream:
    """Standard output or error of a worker: whole lines that a site prints are kept besides, as that site's.

    Attributes:
        beneath: the stream to which everything goes as before.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.beneath = stream
        self._open = threading.local()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.beneath, name)

    def write(self, text: str) -> int:
        """Write a text."""
        written = self.beneath.write(text)
        site = servicelog.current_site.get()
        if site:
            with contextlib.suppress(Exception):  # none of it is the site's business
                self._keep(site, text)
        return written

    def writelines(self, texts: Iterable[str]) -> None:
        """Write one after the other."""
        for text in texts:
            self.write(text)

    def _keep(self, site: str, text: str) -> None:
        if _current is None or servicelog.has_file(site):
            return
        known = vars(self._open).setdefault("sites", {})
        begun, tracebacks = known.pop(site, None) or ("", Tracebacks())
        *lines, rest = (begun + text).split("\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], ""
        if lines:
            write(site, lines, [tracebacks.level(line) for line in lines])
        if rest or tracebacks.is_inside:
            known[site] = (rest, tracebacks)


def watch_streams() -> None:
    """Keep what sites in this process print, from now on."""
    import sys

    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, SiteStream):
            setattr(sys, name, SiteStream(stream))
