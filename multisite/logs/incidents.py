"""Every incident that an error page shows, kept in a file for each site in the state directory.

Each record is one line of JSON: a failure with its cause; the request to which its page was shown, if whoever noted
the failure did not know it; or what has been done to the site since. A site that fails with each request gets the same
incident for the same failure within a second, and no more than a line a second in the long run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import threading
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from multisite.errors import SCARCE, BackendUnavailable, MultisiteError, Unforeseen, pages
from multisite.logs import servicelog
from multisite.logs.keptfiles import KeptFiles, file_name

FOLDER = "incidents"  # in the state directory
ENDING = ".jsonl"
LARGEST = 128 << 10  # bytes of a file; there are two of a site
MOST_FILES = 1000
SAME_WITHIN = 1.0  # seconds within which the same failure is the same incident
BURST = 20  # different failures of a site at one time; one more each second
MOST_TOLD = 20  # incidents that a site's processes may tell in a second
MOST_KNOWN = 1000  # sites, and incidents, that a process remembers
LONGEST_TEXT = 1000  # characters of a cause, a remedy or a path
LONGEST_TRACEBACK = 6000  # characters of JSON; the end is kept

DEPLOYED, RECOVERED, RESTARTED = "deployed", "recovered", "restarted"


def new() -> str:
    """Return a name for one failure, eight hexadecimal digits: for the visitor's page and the log."""
    return secrets.token_hex(4)


def is_incident(text: str) -> bool:
    """Tell whether `text` is such a name."""
    return re.fullmatch("[0-9a-f]{8}", text) is not None


@dataclass
class _Recent:
    """The last incidents of one site: by what failed, each with its monotonic second."""

    at: float
    room: float = float(BURST)
    last: str = ""
    known: dict[object, tuple[str, float]] = field(default_factory=dict)

    def named(self, what: object, now: float) -> str:
        found, at = self.known.get(what, ("", 0.0))
        if found and now - at < SAME_WITHIN:
            return found
        self.room = min(float(BURST), self.room + now - self.at)
        self.at = now
        if self.room < 1.0 and self.last:
            return self.last
        self.room -= 1.0
        self.last = new()
        _remember(self.known, what, (self.last, now), BURST)
        return self.last


class Incidents:
    """The files of one home.

    Args:
        state_dir: where their folder is, made with the first incident.
    """

    def __init__(self, state_dir: str) -> None:
        self.folder = os.path.join(state_dir, FOLDER)
        self.lock = threading.Lock()
        self._files = KeptFiles(self.folder, MOST_FILES)
        self._recent: dict[str, _Recent] = {}
        self._known: dict[str, str] = {}  # the site of each incident that has its request, or gets none
        self._open: dict[str, str] = {}  # the site of each incident whose request is not known
        self._told: dict[str, tuple[int, int]] = {}  # the last second in which a site told some, and how many
        self._shown_at: dict[str, float] = {}  # the monotonic second of the last line about a request, by site

    def named(self, site: str, what: object) -> str:
        """Return the incident of a failure: a new one, or that of a moment ago."""
        with self.lock:
            now = time.monotonic()
            recent = self._recent.get(site)
            if not recent:
                recent = _Recent(now)
                _remember(self._recent, site, recent, MOST_KNOWN)
            return recent.named(what, now)

    def keep(self, incident: str, site: str, facts: dict[str, Any]) -> None:
        """Write an incident down, once."""
        has_request = bool(facts.get("request"))
        with self.lock:
            if incident in self._known or incident in self._open:
                return
            _remember(self._known if has_request else self._open, incident, site, MOST_KNOWN)
        self._write(site, {"incident": incident, **facts})

    def admits(self, site: str) -> bool:
        """Tell whether a site's processes may tell one more."""
        with self.lock:
            now = int(time.monotonic())
            second, count = self._told.get(site, (now, 0))
            count = count + 1 if second == now else 1
            _remember(self._told, site, (now, count), MOST_KNOWN)
            return count <= MOST_TOLD

    def shown(self, incident: str, site: str, request: dict[str, str]) -> None:
        """Write down to which request the page of an incident was shown, the first time."""
        with self.lock:
            if incident in self._known:
                return
            site, now = self._open.get(incident, site), time.monotonic()
            if now - self._shown_at.get(site, -SAME_WITHIN) < SAME_WITHIN:
                return
            self._open.pop(incident, None)
            _remember(self._known, incident, site, MOST_KNOWN)
            _remember(self._shown_at, site, now, MOST_KNOWN)
        self._write(site, {"incident": incident, "request": request})

    def did(self, site: str, what: str, text: str) -> None:
        """Write down what has been done to a site, if it has had an incident."""
        if os.path.exists(os.path.join(self.folder, file_name(site, ENDING))):
            self._write(site, {"did": what, "text": text})

    def _write(self, site: str, facts: dict[str, Any]) -> None:
        record = {"at": round(time.time(), 3), "site": site, **{key: value for key, value in facts.items() if value}}
        line = json.dumps(record, separators=(",", ":"))
        # A line that was cut short by a full disk must not spoil the next one.
        self._files.append(file_name(site, ENDING), b"\n%s\n" % line.encode(), LARGEST)


def _remember(known: dict[Any, Any], key: object, value: object, most: int) -> None:
    known.pop(key, None)
    while len(known) >= most:
        del known[next(iter(known))]
    known[key] = value


_current: Incidents | None = None


def begin(state_dir: str) -> None:
    """Keep the incidents of this process below `state_dir` from now on."""
    global _current
    if not _current or _current.folder != os.path.join(state_dir, FOLDER):
        _current = Incidents(state_dir)
    pages.shown = shown


def named(site: str, error: BaseException, environ: Mapping[str, Any] | None = None) -> str:
    """Return the incident of a failure: a new one, or that of the same failure a moment ago."""
    if not _current:
        return new()
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace else ()
    reason = error.reason if isinstance(error, MultisiteError) else ""
    return _current.named(site, (type(error), reason, place, *(request_of(environ) if environ else {}).values()))


def keep(
    incident: str,
    site: str,
    cause: str,
    *,
    remedy: str = "",
    error: BaseException | None = None,
    output: Iterable[str] = (),
    environ: Mapping[str, Any] | None = None,
) -> None:
    """Write an incident down, once; nothing that goes wrong here matters to whoever has failed.

    Args:
        incident: its id.
        site: whose it is, "" for the service's own.
        cause: what has failed, and why.
        remedy: what would help, "" where nobody knows.
        error: whose traceback is kept.
        output: the last lines that a process printed.
        environ: of the request (PEP 3333).
    """
    if not _current:
        return
    with contextlib.suppress(Exception):
        facts = {
            "cause": cause[:LONGEST_TEXT],
            "remedy": remedy[:LONGEST_TEXT],
            "request": request_of(environ) if environ else None,
            "traceback": _last_of(_traceback(error)) if error else None,
            "output": _last_of(list(output)),
        }
        _current.keep(incident, site, facts)


def told(site: str, text: str) -> None:
    """Write down what a process says that its application raised (`runner.report`); a site can report anything.

    Args:
        text: JSON: the id, method, host and path of the request, the exception in a line, and the traceback.
    """
    if not _current:
        return
    with contextlib.suppress(Exception):
        incident, method, host, path, cause, trace = map(str, json.loads(text))
        if is_incident(incident) and _current.admits(site):
            request = {"REQUEST_METHOD": method, "HTTP_HOST": host, "PATH_INFO": path}
            facts = {
                "cause": f"the application failed: {cause}"[:LONGEST_TEXT],
                "remedy": f"multisite logs {site} shows what the site printed",
                "request": request_of(request),
                "traceback": _last_of(trace.splitlines()),
            }
            _current.keep(incident, site, facts)


def shown(incident: str, environ: Mapping[str, Any]) -> None:
    """Write down to which request the page of an incident was shown; harmless to call again."""
    if _current and "PATH_INFO" in environ:
        with contextlib.suppress(Exception):
            _current.shown(incident, servicelog.current_site.get(), request_of(environ))


def did(site: str, what: str, text: str = "") -> None:
    """Write down that a site was `DEPLOYED`, `RECOVERED` or `RESTARTED`, if it has had an incident."""
    if _current:
        with contextlib.suppress(Exception):
            _current.did(site, what, text[:LONGEST_TEXT])


def request_of(environ: Mapping[str, Any]) -> dict[str, str]:
    """Return what is kept of a request: no query, in which there may be a secret."""
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    path = quote(path, safe="/:@!$&'()*+,;=~", encoding="latin-1", errors="replace")
    host = str(environ.get("HTTP_HOST", ""))
    return {
        "method": str(environ.get("REQUEST_METHOD", ""))[:20],
        "host": host[:253],
        "path": path[:LONGEST_TEXT],
    }


# What is logged is kept as well


def note(logger: logging.Logger, error: MultisiteError, where: object) -> None:
    """Log, once, an error whose reason visitors do not see, under the incident on the visitor's page."""
    if not error.incident:
        site = servicelog.current_site.get()
        error.incident = named(site, error)
        logger.warning("%s incident %s: %s: %s", error.id, error.incident, where, error)
        keep(error.incident, site, f"{where}: {error}")


def answer_for(logger: logging.Logger, error: BaseException, where: object) -> MultisiteError:
    """Return the error whose page answers a request that `error` has ended; log errors that are not ours.

    If the system has run out of something (descriptors, memory, room on a disk, threads), another try may succeed.
    """
    if isinstance(error, MultisiteError):
        return error
    answer: MultisiteError
    if isinstance(error, OSError) and error.errno in SCARCE:
        answer = BackendUnavailable(f"{where}: {error.strerror}")
        note(logger, answer, where)
    else:
        answer, site = Unforeseen("This server could not answer the request"), servicelog.current_site.get()
        answer.incident = named(site, error)
        logger.error("MS323 incident %s: %s: cannot answer a request", answer.incident, where, exc_info=error)
        keep(answer.incident, site, f"{where}: cannot answer a request: {error!r}", error=error)
    return answer


def log_failure(
    id: str,
    site_name: str,
    incident: str,
    message: str,
    exc: BaseException | None = None,
    environ: Mapping[str, Any] | None = None,
    level: int = logging.ERROR,
) -> None:
    """Write one record about a failure of a site, with the traceback of `exc`."""
    servicelog.site_logger(site_name).log(level, "%s incident %s: %s", id, incident, message, exc_info=exc)
    remedy = f"multisite logs {site_name} shows what the site printed"
    cause = f"{message}: {type(exc).__name__}: {exc}" if exc and environ else message
    keep(incident, site_name, cause, remedy=remedy, error=exc, environ=environ)


def _traceback(error: BaseException) -> list[str]:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__, limit=-50)).splitlines()


def _last_of(lines: list[str]) -> list[str]:
    kept: list[str] = []
    room = LONGEST_TRACEBACK
    for line in reversed(lines):
        room -= len(json.dumps(line)) + 1
        if room < 0:
            break
        kept.append(line)
    return kept[::-1] or [line[:LONGEST_TEXT] for line in lines[-1:]]


def _forked() -> None:
    """Another thread may have held the lock."""
    if _current:
        _current.lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)
