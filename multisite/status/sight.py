"""What a user may see of the service, and which command shows the rest.

A service that belongs to root, or to its own user, hides its sockets, its counts and the output of sites from ordinary
users. For them, a command shows the contents of files, reports the rest as unknown, and names the command that shows
it.
"""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING

from multisite.errors import Problem

if TYPE_CHECKING:
    from multisite.config.model import Home, Site

#: of the units that `init --system` writes
SUPERVISORS_STATE, WORKERS_STATE = "/var/lib/multisite", "/var/lib/multisite-workers/multisite"
UNKNOWN = "unknown"  # in place of a state that this user may not see
#: the command line as it was typed; empty if no command is running
TYPED: ContextVar[tuple[str, ...]] = ContextVar("multisite.typed", default=())
KINDS = ("statistics", "verdicts", "starts", "placements")  # documents that a command reads


def user_name(uid: int) -> str:
    """Return the name of a user, or the number if there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def service_uid(home: Home) -> int:
    """Return the user of the home's service: the owner of its runtime directory, else of moya.conf."""
    for path in (home.runtime_dir, home.file, "/"):
        try:
            return os.stat(path).st_uid
        except OSError:
            continue
    return 0


def privileged(home: Home, uid: int = -1) -> str:
    """Return the command line as it was typed, for the service's user; "" if this user is that one, or root.

    Args:
        home: home of the service.
        uid: the service's user; -1: `service_uid`.
    """
    from multisite.config.read import SYSTEM_HOME

    uid = service_uid(home) if uid < 0 else uid
    if os.geteuid() in (0, uid):
        return ""
    words = TYPED.get()
    named = any(word.split("=")[0] == "--home" for word in words)
    place = [] if named or home.path == SYSTEM_HOME else ["--home", home.path]
    return shlex.join(["sudo", *(["-u", user_name(uid)] if uid else ()), "multisite", *place, *words])


def as_seen(problem: Problem, home: Home, uid: int = -1) -> Problem:
    """Return a problem as this user sees it: a file that only the service's user has to read is not a fault."""
    from multisite.config.safefiles import LET_READ

    again = privileged(home, uid) if problem.remedy == LET_READ else ""
    return replace(problem, severity="warning", remedy=again) if again else problem


def of_service(home: Home) -> Home:
    """Return the home with the folders of its service, which may run as another user or in another session.

    Folders that moya.conf does not name depend on user and session. If there is no supervisor in this user's folders
    but one in those of the owner of moya.conf, or in root's if this user is the owner, those folders are used.
    """
    from multisite.config.model import default_runtime_dir

    if home.service.runtime_dir:
        return home if home.service.state_dir else _with_state(home)
    if _is_used(home.runtime_dir, home):
        return home
    its = owner(home.file)
    for uid in dict.fromkeys((its, its if its == home.uid else 0)):
        for environ in ({"XDG_RUNTIME_DIR": f"/run/user/{uid}"}, {}):
            folder = default_runtime_dir(environ, uid, home.system_temp)
            if owner(folder) == uid and _is_used(folder, home):
                return _with_state(replace(home, service=replace(home.service, runtime_dir=folder)))
    return home


def _with_state(home: Home) -> Home:
    """Return the home with the state directory of the user who owns the runtime directory."""
    uid = owner(home.runtime_dir)
    if home.service.state_dir or uid in (home.uid, -1):
        return home
    try:
        kept = os.path.join(pwd.getpwuid(uid).pw_dir, ".local/state/multisite") if uid else "/var/lib/multisite"
    except KeyError:
        return home
    return replace(home, service=replace(home.service, state_dir=kept)) if os.path.lexists(kept) else home


def owner(path: str) -> int:
    """Return the owner of a file, -1 if that is unknown."""
    try:
        return os.stat(path).st_uid
    except OSError:
        return -1


def _is_used(folder: str, home: Home) -> bool:
    """Tell whether a supervisor of this home, as far as it can be seen, has used a runtime directory."""
    from multisite.control.rundir import RuntimeDir

    there = RuntimeDir(home, folder)
    try:
        os.lstat(there.control)
    except PermissionError:
        return True
    except OSError:
        return False
    return there.holder()[1] in ("", home.path)


def log_folders(home: Home) -> list[str]:
    """Return the folders with lines of sites: the supervisor's, and that of workers with their own state directory."""
    from multisite.logs.kept import FOLDER

    return [os.path.join(folder, FOLDER) for folder in state_folders(home)]


def state_folders(home: Home) -> list[str]:
    """Return the state directories of a home: the supervisor's, and that of workers who have one of their own."""
    return [home.state_dir, *([WORKERS_STATE] if home.state_dir == SUPERVISORS_STATE else [])]


def closed(home: Home) -> str:
    """Return the first place of the service's state that this user may not read, "" if there is none."""
    from multisite.sites.statefile import StateFile
    from multisite.sites.usage import FOLDER

    places = [os.path.join(home.runtime_dir, FOLDER, "x"), *(StateFile(home, kind).path for kind in KINDS)]
    return next(filter(None, map(closed_place, places)), "")


def closed_place(path: str) -> str:
    """Return the place that keeps this user from reading `path`, itself or a folder above it; "" if nothing does.

    A missing file is not closed.
    """
    from multisite.supervisor.process import reach

    hidden = reach.hides(path)
    if hidden or not os.path.exists(path):
        return hidden
    readable = os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK
    return "" if os.access(path, readable) else path


def hidden_problems(site: Site, home: Home) -> list[Problem]:
    """Return the places of a site that this user may not see, so that they do not count as missing.

    It is an error if this is the service's user, who could not serve the site; else a warning.
    """
    found: dict[str, Problem] = {}
    for key, value, path in _places(site):
        place = closed_place(path)
        if place and place not in found:
            found[place] = _hidden(site, home, key, value, place)
    return list(found.values())


def _hidden(site: Site, home: Home, key: str, value: str, place: str) -> Problem:
    from multisite.supervisor.process import privilege, reach

    name, again = user_name(os.geteuid()), privileged(home)
    what = f"{place} is closed to the user '{name}'"
    if again:
        reason, remedy = f"{what}, so it cannot be checked here", again
    else:
        mode, opening = reach.mode_of(place), reach.opening(privilege.of_this_process(), place)
        reason, remedy = f"{what}{mode}", f"let that user in: {opening}, or setfacl -m u:{name}:rX {shlex.quote(place)}"
    severity = "warning" if again else "error"
    return Problem("MS811", site.file, reason, "service", key, value, remedy, severity)


def _places(site: Site) -> Iterator[tuple[str, str, str]]:
    """Yield the places that a check of a site has to see: key, value and path."""
    if site.location and "%" not in site.location:
        yield "location", site.location, site.location
        yield from (("application", site.application, path) for path in _code(site))
    if site.python:
        yield "python", site.python, site.python
        if os.path.isdir(site.python):
            yield from (("python", site.python, os.path.join(site.python, "bin", name)) for name in ("", "python"))


def _code(site: Site) -> Iterator[str]:
    """Yield the folders and files to which the name of a site's module may lead, including missing ones."""
    from multisite.sites import sharing

    if not site.application or site.mode == "proxy":
        return
    try:
        spec = sharing.resolve(site)
    except (ValueError, OSError):
        return
    if spec.is_file:
        yield os.path.join(site.location, spec.target)
    elif spec.kind in ("module", "django", "asgi"):
        path = site.location
        for part in spec.target.split("."):
            path = os.path.join(path, part)
            yield from (path, f"{path}.py")
