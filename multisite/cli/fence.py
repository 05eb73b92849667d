"""One site's fault costs that site's row, never a command: what becomes of whatever is raised on the way.

Every loop of a command over sites takes its step through `fenced`. What was not foreseen gets an incident id, and its
traceback is kept in the state directory.
"""

from __future__ import annotations

import errno
import os
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from multisite.errors import MultisiteError

if TYPE_CHECKING:
    from multisite.cli.session import Session

T = TypeVar("T")

KIND = "incidents"
MOST = 50  # incidents that are kept
OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: how click leaves a command; none of a site's business
LEAVES = (click.ClickException, click.exceptions.Exit, click.Abort)


def fenced(session: Session, site: str, step: Callable[[], T], instead: Callable[[str], T]) -> T:
    """Return what `step` gives for a site; where that raises, what `instead` makes of the sentence that says why."""
    try:
        return step()
    except LEAVES:
        raise
    except Exception as error:
        return instead(sentence(session, error, site))


def sentence(session: Session | None, error: Exception, site: str = "") -> str:
    """Say what has been raised; what nobody has foreseen is an incident.

    Args:
        session: whose home keeps the traceback; None: nobody does.
        error: what has been raised.
        site: the site that it is about, "" for none.
    """
    if isinstance(error, MultisiteError):
        return error.reason
    if isinstance(error, OSError):
        return describe(error)
    from multisite.logs import logs

    incident = logs.incident()
    kept = session is not None and _keep(session, incident, error, site)
    where = f"; its traceback is in {kept}" if kept else ""
    return f"incident {incident}: {type(error).__name__}: {error} ({_place(error)}){where}"


def describe(error: OSError) -> str:
    """Say an error of the operating system with the file it is about."""
    hint = "; do you need sudo?" if error.errno in (errno.EACCES, errno.EPERM) else ""
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{(error.strerror or 'it failed').lower()}{hint}"


def _place(error: Exception) -> str:
    """Return the innermost line of ours that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(OURS)] or frames
    return f"{os.path.relpath(ours[-1].filename, os.path.dirname(OURS))}, line {ours[-1].lineno}" if ours else "?"


def _keep(session: Session, incident: str, error: Exception, site: str) -> str:
    """Keep a traceback; returns the path of the document, "" where that cannot be."""
    from multisite.sites.statefile import StateFile

    try:
        file = StateFile(session.home, KIND)
        with file.locked():
            told = file.load()
            rows = told if isinstance(told, dict) else {}
            lines = "".join(traceback.format_exception(error)).splitlines()
            row = {"at": time.time(), "site": site, "traceback": lines}
            newest = dict(list({**rows, incident: row}.items())[-MOST:])
            return file.path if file.store(newest) else ""
    except Exception:  # the home may be what is at fault
        return ""
