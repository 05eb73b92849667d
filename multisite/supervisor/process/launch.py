"""From a site to the process that serves it: its user, its surroundings, its server."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from multisite.cluster import nodes
from multisite.cluster.keyfile import read_key
from multisite.config import hosting
from multisite.config.model import Home, Site
from multisite.config.policies import Refused
from multisite.config.safefiles import Unusable
from multisite.config.serving import development
from multisite.config.trusted import key_of
from multisite.control import program
from multisite.control.program import SERVERS_OWN
from multisite.sites import hosts, sharing
from multisite.supervisor.process import commandlines, privilege, reach
from multisite.supervisor.process.spec import MARKER, Identity, Launch, Surroundings

OLDEST = (3, 9)  # that our runner supports
NEWER = "make the virtualenv with a newer one, or let the site start its own server with command ="
_KEPT = ("PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OUR_OWN = ("MULTISITE_", "MOYA_SERVICE_HOME", "PYTHONPATH")  # the supervisor's own PYTHONPATH leads to us
_NOT_A_SITES = (*SERVERS_OWN, *_OUR_OWN, "PYTHON", "LD_")  # the latter two are read when an interpreter starts


def plan(site: Site, home: Home, around: Surroundings, host: str = "") -> Launch:
    """Decide how to start one process of `site`.

    Args:
        site: as its file says.
        home: of the site.
        around: the supervisor's.
        host: what ``%HOST`` stands for; the canonical domain if it is empty.

    Raises:
        Refused: it cannot be started as its file says.
    """
    _check_location(site)
    if site.exclusive:
        _check_exclusive(site, home)
    site = _with_application(site)
    server, python = _server(site)
    if server in ("auto", "asgi"):
        _check_age(python)
    plain = _surroundings(site, home, around)
    named = (key_of(home.service.host_header),) if home.service.host_header else ()
    around = replace(around, trusts_front_end="unix" in home.service.trusted_proxies, claims=named)
    how = commandlines.command_line(server, plain, site, python, around, host or site.canonical_host)
    how = _speaking(how, around.notify)
    how = commandlines.tried(how, site) if around.smoke and site.smoke_path and not how.job else how
    return commandlines.guarded(how, around) if around.fence else how


def guest(site: Site, home: Home, environ: Mapping[str, str], argv: tuple[str, ...]) -> Launch:
    """Decide how to run another program as a process of `site` would run, with the user who types the command.

    Args:
        site: as its file says.
        home: of the site.
        environ: of the user who types it; the site gets the same part of it as of the supervisor's.
        argv: the program and its arguments.

    Raises:
        Refused: nothing can run as its file asks.
    """
    _check_location(site)
    plain = _surroundings(site, home, Surroundings(environ, "", "/"), is_guest=True)
    return replace(plain, argv=argv, env={name: value for name, value in plain.env.items() if name != MARKER})


def _server(site: Site) -> tuple[str, str]:
    """Return the server that runs a site, and its interpreter; "" for a command, which brings its own."""
    server = "command" if site.server == "auto" and site.command else site.server
    return server, "" if server == "command" else interpreter(site)


def _surroundings(site: Site, home: Home, around: Surroundings, *, is_guest: bool = False) -> Launch:
    """Decide the user, directory, environment and limits of a process of `site`.

    Args:
        site: as its file says.
        home: of the site.
        around: the supervisor's.
        is_guest: it is not one of the processes that could move into the workers.

    Raises:
        Refused: the configuration asks for something impossible or unsafe.
    """
    server, own = _server(site)
    program, runs = _program(site, home, around) if server == "command" and site.command else (own, (own,))
    who, remark = privilege.identity(site, home, program, (*runs, *commandlines.files_of_ours(site, server)))
    python = own or interpreter(site) if site.python else own
    may_move = not is_guest and who.uid == os.geteuid() and sharing.is_examined(site, home)
    env = site_environment(site, home, around.environ, who, python, may_move=may_move)
    shared = with_venv({**base_environment(around.environ, who), **home.env}, python)
    if development.from_environ(around.environ).reload:
        env["PYTHONDONTWRITEBYTECODE"] = "1"  # a .pyc knows its source's time in whole seconds only
    env = development.raising(around.environ) | env | site.env
    env |= {MARKER: around.mark}
    return Launch(
        argv=(),
        env=env,
        shared_env=shared,
        cwd=_inside(site.chroot, site.location or who.home or "/"),
        identity=who,
        chroot=site.chroot,
        umask=0o022 if site.umask is None else site.umask,
        nice=site.nice,
        nofile=site.nofile,
        notes=(remark,) if remark else (),
    )


def _speaking(how: Launch, path: str) -> Launch:
    """Tell a process where it can report that it is ready, or at work; in a chroot it cannot get there.

    Our own runner reports on a descriptor; the socket is for the site.
    """
    if how.chroot:
        return how if how.job else replace(how, told=False)
    return replace(how, notify=path, env={**how.env, "NOTIFY_SOCKET": path})


def _program(site: Site, home: Home, around: Surroundings) -> tuple[str, tuple[str, ...]]:
    """Return the program of a command if its file names it by a path, and everything needed to run it."""
    path = site.env.get("PATH") or home.env.get("PATH") or around.environ.get("PATH") or os.defpath
    name = site.command[0]
    named = os.path.join(site.location or "/", name) if "/" in name else ""
    found = named or shutil.which(name, path=path)
    return named, tuple(reach.executed(found, path)) if found else ()


def _with_application(site: Site) -> Site:
    """Let an instance whose file names no application serve what its directory holds."""
    if not site.host or site.application or site.command or site.ini:
        return site
    found = hosts.application(site.location)
    if not found:
        names = ", ".join(hosts.APPLICATIONS)
        raise Refused(
            f"location {site.location} contains none of {names}, and not exactly one .wsgi file", "add one", id="MS531"
        )
    return replace(site, application=found)


def _inside(chroot: str, path: str) -> str:
    """Return the name of `path` within `chroot`."""
    if chroot and (path + "/").startswith(chroot.rstrip("/") + "/"):
        return "/" + os.path.relpath(path, chroot) if path != chroot else "/"
    return path


def obstacle(site: Site, home: Home) -> Refused | None:
    """Return why this user cannot start `site` as its file is, as far as is known without a start."""
    try:
        plan(site, home, Surroundings(os.environ, "", "/"))
    except Refused as error:
        return error
    return None


def stranger(site: Site, home: Home) -> str:
    """Return the user that a process of `site` would run as, if it is not ours; "" if it is.

    Such a site never moves into our own processes, whatever its examination finds.
    """
    if os.geteuid() != 0:
        return ""  # any other user in its file is refused
    try:
        who = privilege.chosen(site, home, interpreter(site))
    except Refused:
        return ""  # it is not started at all
    return "" if who.uid == 0 else who.name or str(who.uid)


def _check_location(site: Site) -> None:
    _refuse_hidden(site.location, "location", site.location)
    _refuse_hidden(site.chroot, "chroot", site.chroot)
    if site.location and not os.path.isdir(site.location):
        there = os.path.exists(site.location)
        make = "" if there else f"mkdir -p {shlex.quote(site.location)}, or "
        reason = "it is not a directory" if there else "there is no such directory"
        raise Refused(
            f"location {site.location}: {reason}", f"{make}multisite set {site.name} location=FOLDER", id="MS531"
        )
    if site.chroot and not os.path.isdir(site.chroot):
        raise Refused("there is no such directory", "make it or correct the path", "chroot", site.chroot, id="MS531")


def _check_exclusive(site: Site, home: Home) -> None:
    """Refuse a site of which nobody could tell whether it runs elsewhere, or which nobody could reach there."""
    if not home.cluster.url:
        reason = "no registry knows which node runs it"
        remedy = f"set [cluster] url = etcd://HOST:PORT in {home.file}, or multisite set {site.name} exclusive=no"
        raise Refused(reason, remedy, "exclusive", "yes", id="MS539")
    try:
        nodes.own(home)
        read_key(home)
    except nodes.UnknownNode as error:
        raise Refused(f"[cluster] {error}", error.remedy, "exclusive", "yes", id="MS539") from None
    except Unusable as error:
        reason = f"the other nodes cannot reach it: {error.reason}"
        raise Refused(reason, error.remedy, "exclusive", "yes", id="MS539") from None
    if site.chroot:  # our interpreter is not in there
        raise Refused("its processes could not be guarded in a chroot", "remove chroot", "exclusive", "yes", id="MS539")


def _refuse_hidden(path: str, key: str, value: str) -> None:
    """Distinguish what this process's user may not look at from what does not exist."""
    hidden = reach.hides(path) if path else ""
    if hidden:
        who = privilege.of_this_process()
        reason = f"{hidden} is closed to the user '{who.name}'{reach.mode_of(hidden)}"
        raise Refused(reason, f"let that user in: {reach.opening(who, hidden)}", key, value, id="MS532")


def interpreter(site: Site) -> str:
    """Return the path of the Python that runs `site`.

    Raises:
        Refused: its file names one that does not exist.
    """
    if not site.python:
        return program.own_interpreter()
    for path in (site.python, os.path.join(site.python, "bin/python")):
        _refuse_hidden(path, "python", site.python)
    correct = f"multisite set {site.name} python=VIRTUALENV"
    if not os.path.exists(site.python):
        remedy = f"python3 -m venv {shlex.quote(site.python)}, or {correct}"
        raise Refused("there is no such file or directory", remedy, "python", site.python, id="MS533")
    if not os.path.isdir(site.python):
        if not os.access(site.python, os.X_OK):
            remedy = f"name a virtualenv or interpreter: {correct}"
            raise Refused("it is not an executable program", remedy, "python", site.python, id="MS533")
        return site.python
    for name in ("bin/python", "bin/python3"):
        path = os.path.join(site.python, name)
        if os.path.exists(path):
            return path
    remedy = f"python3 -m venv {shlex.quote(site.python)}, or {correct}"
    raise Refused("it is not a virtualenv: it has no bin/python", remedy, "python", site.python, id="MS533")


def _check_age(python: str) -> None:
    """Refuse an interpreter that our runner does not support, if its files show its version."""
    found = version_of(python)
    if found and found < OLDEST:
        told, oldest = (".".join(map(str, version)) for version in (found, OLDEST))
        reason = f"it is Python {told}, and sites need {oldest} or newer"
        raise Refused(reason, NEWER, "python", python, id="MS533")


def version_of(python: str) -> tuple[int, int] | None:
    """Return the version of an interpreter by its virtualenv or its own name; None: not known."""
    named = re.search(r"python(\d)\.?(\d+)\Z", os.path.realpath(python))
    environment = privilege.based_on(python)
    told = re.match(r"(\d+)\.(\d+)", environment.get("version") or environment.get("version_info") or "")
    found = told or named
    return (int(found[1]), int(found[2])) if found else None


def backends(site: Site) -> int:
    """Return how many backends a site has: servers that fork their own workers are one, whatever `processes` says."""
    return 1 if site.server in ("gunicorn", "uwsgi", "granian") else site.processes


def needs_private(site: Site) -> bool:
    """Tell whether the site's command binds its own socket."""
    return "SOCKET" in hosting.placeholders(site.command)


def base_environment(environ: Mapping[str, str], who: Identity) -> dict[str, str]:
    """Return what every process starts from: of the administrator's environment only language, time zone and PATH."""
    kept = {name: value for name, value in environ.items() if name in _KEPT or name.startswith("LC_")}
    own = {"HOME": who.home, "USER": who.name, "LOGNAME": who.name, "SHELL": "/bin/sh"}
    return {"PATH": _DEFAULT_PATH, "LANG": "C.UTF-8", **kept, **own}


def site_environment(
    site: Site, home: Home, environ: Mapping[str, str], who: Identity, python: str, *, may_move: bool = False
) -> dict[str, str]:
    """Return the base for a site's own [env].

    Args:
        site: its env_mode and pass_env count.
        home: its env counts.
        environ: of the supervisor.
        who: the user of the site.
        python: the interpreter whose virtualenv should be in PATH, "" for none.
        may_move: the site may move into the workers: it finds the same variables in both places.
    """
    service = {name: value for name, value in environ.items() if may_move and not name.startswith(_NOT_A_SITES)}
    passed = {name: value for name, value in environ.items() if _is_passed(name, site.pass_env)}
    if site.env_mode == "replace":
        return {**passed, **home.env}
    return with_venv({**service, **base_environment(environ, who), **passed, **home.env}, python)


def _is_passed(name: str, patterns: Iterable[str]) -> bool:
    ours = name.startswith((*SERVERS_OWN, *_OUR_OWN))
    return not ours and any(fnmatchcase(name, pattern) for pattern in patterns)


def with_venv(env: dict[str, str], python: str) -> dict[str, str]:
    """Return `env` as ``activate`` changes it, if `python` is the interpreter of a virtualenv."""
    folder = os.path.dirname(python)
    prefix = os.path.dirname(folder)
    if not os.path.isfile(os.path.join(prefix, "pyvenv.cfg")):
        return env
    return {**env, "VIRTUAL_ENV": prefix, "PATH": f"{folder}{os.pathsep}{env['PATH']}"}
