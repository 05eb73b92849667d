"""Check the folders to which a home and its sites write: for sockets, state and logs. None is created here."""

from __future__ import annotations

import os
import pwd
import shlex

from multisite.config.model import Home, Site
from multisite.errors import Problem
from multisite.logs.logfiles import STREAMS

SHORTER = "set a shorter [service] runtime_dir in moya.conf"


def home_problems(home: Home) -> list[Problem]:
    """Return why sockets or state cannot be in the folders that moya.conf names."""
    from multisite.control.rundir import LONGEST_PATH, RuntimeDir

    found = [_of_folder(home, "runtime_dir", home.runtime_dir), _of_folder(home, "state_dir", home.state_dir)]
    longest = len(os.fsencode(RuntimeDir(home).control))
    if longest > LONGEST_PATH:
        reason = f"the path of a socket in it has {longest} bytes, and the limit is {LONGEST_PATH} (unix(7))"
        found.append(Problem("MS817", home.file, reason, "service", "runtime_dir", home.runtime_dir, SHORTER))
    if not any(problem and problem.key == "runtime_dir" for problem in found):
        found.append(runtime_problem(home))
    return [problem for problem in found if problem]


def runtime_problem(home: Home) -> Problem | None:
    """Return why no supervisor of the home could start in its runtime directory, None if one is running or could start.

    The user of the command may differ from the service's: if the home belongs to somebody else, it is a warning.
    """
    from multisite.control.client import Client, NotRunning, SupervisorError
    from multisite.control.rundir import RuntimeDir, RuntimeDirError
    from multisite.errors import BackendUnavailable

    rundir, severity = RuntimeDir(home), "error" if os.stat(home.file).st_uid == os.geteuid() else "warning"
    remedy = "set another one, or use the command as the service's user"
    try:
        Client(home).ask({"do": "ping"})
        return None
    except NotRunning:
        reason = rundir.obstacle()
    except SupervisorError as error:
        pid, other = rundir.holder()
        reason = f"the home {other} uses it (process {pid})" if other else error.reason
        severity, remedy = "error", "set another one in one of the two homes"
    except (BackendUnavailable, RuntimeDirError, OSError):  # another user's supervisor may be there
        reason, severity = ("" if os.access(rundir.path, os.X_OK) else rundir.obstacle()), "warning"
    place = ("service", "runtime_dir", home.runtime_dir)
    return Problem(RuntimeDirError.id, home.file, reason, *place, remedy, severity) if reason else None


def _of_folder(home: Home, key: str, path: str) -> Problem | None:
    """Return why a folder cannot be created, if that is certain for every user of the service."""
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if os.path.isdir(there):
        return None
    reason = "it is not a folder" if there == path else f"{there} is not a folder, so there can be none below it"
    return Problem("MS818", home.file, reason, "service", key, path, "name another one")


def socket_problem(site: Site, home: Home) -> Problem | None:
    """Return why a site with its own processes cannot have its socket."""
    from multisite.control.rundir import LONGEST_PATH, RuntimeDir

    path = RuntimeDir(home).socket(site.name)
    size = len(os.fsencode(path))
    if size <= LONGEST_PATH:
        return None
    reason = f"the path of its socket, {path}, has {size} bytes, and the limit is {LONGEST_PATH} (unix(7))"
    remedy = f"{SHORTER}, or give the site a shorter name"
    return Problem("MS817", site.file, reason, "service", "name", site.name, remedy)


def log_problems(site: Site) -> list[Problem]:
    """Return warnings for logs to which the user of this command could not write."""
    logs = {"access": site.access_log, "error": site.error_log}
    found = ((key, path, _log_fault(site, key, path)) for key, path in logs.items() if path and "%" not in path)
    return [
        Problem("MS819", site.file, reason, "logging", key, path, remedy, severity="warning")
        for key, path, (reason, remedy) in found
        if reason
    ]


def _log_fault(site: Site, key: str, path: str) -> tuple[str, str]:
    """Return why a log cannot be written, and the remedy; "" if it can."""
    from multisite.supervisor.process import reach

    folder, correct = os.path.dirname(path), f"multisite set {site.name} logging.{key}=FILE"
    place, fault = path if os.path.exists(path) else folder, ("", "")
    if path.startswith("syslog:") or path in STREAMS:
        pass
    elif closed := reach.hides(folder):
        reason = f"{closed} is closed to the user '{_user()}'{reach.mode_of(closed)}"
        fault = reason, f"chmod o+x {closed}, or {correct}"
    elif os.path.lexists(folder) and not os.path.isdir(folder):
        fault = f"{folder} is not a folder, so all its lines are lost", correct
    elif not os.path.isdir(folder):
        reason = f"there is no folder {folder}, so all its lines are lost"
        fault = reason, f"mkdir -p {shlex.quote(folder)}, or {correct}"
    elif os.path.isdir(path):
        fault = "it is a folder, so all its lines are lost", f"name a file in it: {correct}"
    elif os.geteuid() == 0 and os.path.islink(path):
        fault = "it is a link, which root does not follow", f"name the file itself: {correct}"
    elif not os.access(place, os.W_OK if place == path else os.W_OK | os.X_OK):
        reason = f"the user '{_user()}' may not write to {place}{reach.mode_of(place)}"
        fault = reason, f"let the service's user write to it, or name another file: {correct}"
    return fault


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
