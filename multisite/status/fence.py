"""A fault of one site affects only its row, never the report: every loop over sites takes its step through `fenced`.

An unexpected error gets an incident id, and its traceback goes to the state directory.
"""

from __future__ import annotations

import errno
import os
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from multisite.errors import ConfigError, MultisiteError
from multisite.status.sight import as_seen, owner, privileged, user_name

if TYPE_CHECKING:
    from multisite.status.inventory import Inventory

T = TypeVar("T")
KIND = "incidents"
MOST = 50  # incidents to keep
OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def fenced(
    inventory: Inventory,
    site: str,
    step: Callable[[], T],
    instead: Callable[[str], T],
    let: tuple[type[Exception], ...] = (),
) -> T:
    """Return the result of `step` for a site; if it raises, call `instead` with a sentence that explains the error.

    Args:
        inventory: its home keeps a traceback.
        site: the site that `step` examines.
        step: the function to call.
        instead: takes the sentence.
        let: errors that do not concern the site, and are raised.
    """
    try:
        return step()
    except let:
        raise
    except Exception as error:
        return instead(sentence(inventory, error, site))


def sentence(inventory: Inventory | None, error: Exception, site: str = "") -> str:
    """Describe an exception; an unexpected one becomes an incident.

    Args:
        inventory: its home keeps the traceback; None: the traceback is not kept.
        error: the exception.
        site: the site that it concerns, "" for none.
    """
    if isinstance(error, MultisiteError):
        return refused(inventory, error) if inventory else error.reason
    if isinstance(error, OSError):
        return describe(error, inventory)
    from multisite.logs import incidents

    incident = incidents.new()
    kept = inventory is not None and _keep(inventory, incident, error, site)
    where = f"; its traceback is in {kept}" if kept else ""
    return f"incident {incident}: {type(error).__name__}: {error} ({_place(error)}){where}"


def refused(inventory: Inventory, error: MultisiteError) -> str:
    """Return the reason of an error; if only another user is admitted, with the command for that user."""
    from multisite.control.client import NotAdmitted

    if isinstance(error, ConfigError) and error.problems:
        return _unread(error)
    again = privileged(inventory.home) if isinstance(error, NotAdmitted) else ""
    if not again:
        return error.reason
    return f"the supervisor does not answer the user '{user_name(os.geteuid())}'; use {again}"


def _unread(error: ConfigError) -> str:
    """Return the reason why a configuration is unusable, as this user sees it."""
    from multisite.config.model import Home

    if not error.problems:
        return error.reason
    file = error.problems[0].file
    home = Home(os.path.dirname(file), file)
    return ConfigError(*(as_seen(problem, home, owner(file)) for problem in error.problems)).reason


def describe(error: OSError, inventory: Inventory | None = None) -> str:
    """Describe an error of the operating system, with the file it concerns."""
    is_closed = error.errno in (errno.EACCES, errno.EPERM)
    hint = f"; {_privileged(inventory) or 'do you need sudo?'}" if is_closed else ""
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{(error.strerror or 'failed').lower()}{hint}"


def _privileged(inventory: Inventory | None) -> str:
    """Return the command that would have the rights, "" if the home itself cannot be read."""
    try:
        again = privileged(inventory.home) if inventory else ""
    except (MultisiteError, OSError):
        return ""
    return f"use {again}" if again else ""


def _place(error: Exception) -> str:
    """Return the innermost line of our code in the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(OURS)] or frames
    return f"{os.path.relpath(ours[-1].filename, os.path.dirname(OURS))}, line {ours[-1].lineno}" if ours else "?"


def _keep(inventory: Inventory, incident: str, error: Exception, site: str) -> str:
    """Keep a traceback; return the path of the document, "" if that fails."""
    from multisite.sites.statefile import StateFile

    try:
        file = StateFile(inventory.home, KIND)
        with file.locked():
            kept = file.load()
            rows = kept if isinstance(kept, dict) else {}
            lines = "".join(traceback.format_exception(error)).splitlines()
            row = {"at": time.time(), "site": site, "traceback": lines}
            newest = dict(list({**rows, incident: row}.items())[-MOST:])
            return file.path if file.store(newest) else ""
    except Exception:  # the home itself may be the fault
        return ""
