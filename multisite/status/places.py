"""The folders that a home and its sites write to: for sockets, state and logs; looked at, and never made."""

from __future__ import annotations

import os
import pwd
import shlex

from multisite.config.model import Home, Site
from multisite.errors import Problem
from multisite.logs.logfiles import STREAMS

SHORTER = "set a shorter [service] runtime_dir in moya.conf"


def home_problems(home: Home) -> list[Problem]:
    """Return why sockets or state could not be where moya.conf has them."""
    from multisite.control.rundir import LONGEST_PATH, RuntimeDir

    found = [_of_folder(home, "runtime_dir", home.runtime_dir), _of_folder(home, "state_dir", home.state_dir)]
    longest = len(os.fsencode(RuntimeDir(home).control))
    if longest > LONGEST_PATH:
        reason = f"the path of a socket in it has {longest} bytes, and {LONGEST_PATH} are the most (unix(7))"
        found.append(Problem(home.file, reason, "service", "runtime_dir", home.runtime_dir, SHORTER))
    if not any(problem and problem.key == "runtime_dir" for problem in found):
        found.append(runtime_problem(home))
    return [problem for problem in found if problem]


def runtime_problem(home: Home) -> Problem | None:
    """Return why no supervisor of the home could start in its runtime directory, None where one runs or could.

    Who types the command may be another user than the service's: where the home is not theirs, it is a warning.
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
    except (BackendUnavailable, RuntimeDirError, OSError):  # somebody's supervisor is there, for all that can be seen
        reason, severity = ("" if os.access(rundir.path, os.X_OK) else rundir.obstacle()), "warning"
    return Problem(home.file, reason, "service", "runtime_dir", home.runtime_dir, remedy, severity) if reason else None


def _of_folder(home: Home, key: str, path: str) -> Problem | None:
    """Return why a folder cannot be had, where that is certain whoever the service runs as."""
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if os.path.isdir(there):
        return None
    reason = "it is not a folder" if there == path else f"{there} is not a folder, so there can be none below it"
    return Problem(home.file, reason, "service", key, path, "name another one")


def socket_problem(site: Site, home: Home) -> Problem | None:
    """Return why a site with processes of its own cannot have its socket."""
    from multisite.control.rundir import LONGEST_PATH, RuntimeDir

    path = RuntimeDir(home).socket(site.name)
    size = len(os.fsencode(path))
    if size <= LONGEST_PATH:
        return None
    reason = f"the path of its socket, {path}, has {size} bytes, and {LONGEST_PATH} are the most (unix(7))"
    return Problem(site.file, reason, "service", "name", site.name, f"{SHORTER}, or give the site a shorter name")


def log_problems(site: Site) -> list[Problem]:
    """Return warnings for logs that could not be written by whoever types the command."""
    logs = {"access": site.access_log, "error": site.error_log}
    found = ((key, path, _log_fault(site, key, path)) for key, path in logs.items() if path and "%" not in path)
    return [
        Problem(site.file, reason, "logging", key, path, remedy, severity="warning")
        for key, path, (reason, remedy) in found
        if reason
    ]


def _log_fault(site: Site, key: str, path: str) -> tuple[str, str]:
    """Return why nothing can be written to a log, and the remedy; "" if it can."""
    from multisite.supervisor.process import reach

    folder, correct = os.path.dirname(path), f"multisite set {site.name} logging.{key}=FILE"
    place, told = path if os.path.exists(path) else folder, ("", "")
    if path.startswith("syslog:") or path in STREAMS:
        pass
    elif closed := reach.hides(folder):
        told = f"{closed} is closed to the user '{_user()}'{reach.mode_of(closed)}", f"chmod o+x {closed}, or {correct}"
    elif os.path.lexists(folder) and not os.path.isdir(folder):
        told = f"{folder} is not a folder, so all its lines are lost", correct
    elif not os.path.isdir(folder):
        reason = f"there is no folder {folder}, so all its lines are lost"
        told = reason, f"mkdir -p {shlex.quote(folder)}, or {correct}"
    elif os.path.isdir(path):
        told = "it is a folder, so all its lines are lost", f"name a file in it: {correct}"
    elif os.geteuid() == 0 and os.path.islink(path):
        told = "it is a link, which root does not follow", f"name the file itself: {correct}"
    elif not os.access(place, os.W_OK if place == path else os.W_OK | os.X_OK):
        reason = f"the user '{_user()}' may not write {place}{reach.mode_of(place)}"
        told = reason, f"let the service's user write it, or name another file: {correct}"
    return told


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
