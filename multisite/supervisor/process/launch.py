"""From a site to the process that serves it: which program, told what, in which surroundings."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any

from multisite.config import development, template
from multisite.config.model import Home, Site
from multisite.config.trusted import key_of
from multisite.control import program
from multisite.sites import hosted, placement, sharing
from multisite.sites.watched import ALWAYS_RESTART
from multisite.supervisor.process import environment, privilege, reach
from multisite.supervisor.process.privilege import Refused
from multisite.supervisor.process.spec import BOARD, JOB, NOTIFY, Identity, Launch
from multisite.supervisor.site.scoreboard import SLOTS

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAMS = os.path.join(_PACKAGE, "runner")
RUNNER = os.path.join(_PROGRAMS, "__main__.py")
RELAY = os.path.join(_PROGRAMS, "relay.py")
TRIAL = os.path.join(_PROGRAMS, "trial.py")
OLDEST = (3, 9)  # that our runner knows
NEWER = "make the virtualenv with a newer one, or have the site bring its server with command ="
GUNICORN_CONFIG = os.path.join(_PROGRAMS, "gunicorn_config.py")


@dataclass(frozen=True)
class Surroundings:
    """What a launch needs to know of its supervisor.

    Attributes:
        notify: path of the socket at which a process that is not our runner speaks.
        private: folder for the socket that a command binds itself.
        mark: value of the variable by which leftovers are known.
        smoke: it has to answer the smoke request first, if the site has one.
        trusts_front_end: whether a front end that comes to the site's own socket is a trusted proxy.
        examine: the version of the site's code that is to be examined, "" for none.
        claims: keys of further fields that a trusted front end alone may send.
        head_limits: how large the head of a request may be, by gunicorn's names; its own where nothing is said.
    """

    environ: Mapping[str, str]
    notify: str
    private: str
    mark: str = ""
    slot: int = 0
    smoke: bool = False
    trusts_front_end: bool = False
    examine: str = ""
    head_limits: Mapping[str, int] = field(default_factory=dict)
    claims: tuple[str, ...] = ()


def plan(site: Site, home: Home, around: Surroundings, host: str = "") -> Launch:
    """Decide how to start one process of `site`.

    Args:
        site: as its file says.
        home: of the site.
        around: the supervisor's.
        host: what ``%HOST`` stands for; the canonical domain where it is empty.

    Raises:
        Refused: it cannot be started as its file says.
    """
    _check_location(site)
    site = _with_application(site)
    server = "command" if site.server == "auto" and site.command else site.server
    python = "" if server == "command" else interpreter(site)
    if server in ("auto", "asgi"):
        _check_age(python)
    program, runs = _program(site, home, around) if server == "command" and site.command else (python, (python,))
    who, remark = privilege.identity(site, home, program, (*runs, *_ours(site, server)))
    path = python or interpreter(site) if site.python else python
    may_move = who.uid == os.geteuid() and sharing.is_examined(site, home)
    env = environment.around(site, home, around.environ, who, path, may_move=may_move)
    shared = environment.with_venv({**environment.base(around.environ, who), **home.env}, path)
    if development.told(around.environ).reload:
        env["PYTHONDONTWRITEBYTECODE"] = "1"  # a .pyc knows its source's time in whole seconds only
    env = development.raising(around.environ) | env | site.env
    env |= {environment.MARKER: around.mark}
    plain = Launch(
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
    named = (key_of(home.service.host_header),) if home.service.host_header else ()
    around = replace(around, trusts_front_end="unix" in home.service.trusted_proxies, claims=named)
    how = _SERVERS[server](plain, site, python, around, host or canonical(site))
    if not how.job:
        how = _speaking(how, around.notify)
        how = _tried(how, site) if around.smoke and site.smoke_path else how
    return how


def _speaking(how: Launch, path: str) -> Launch:
    """Have a server that is not ours find out where it can say that it is ready; in a chroot it cannot get there."""
    if how.chroot:
        return replace(how, told=False)
    return replace(how, notify=path, env={**how.env, "NOTIFY_SOCKET": path})


def _program(site: Site, home: Home, around: Surroundings) -> tuple[str, tuple[str, ...]]:
    """Return the program of a command if its file names it by a path, and all that running it takes."""
    path = site.env.get("PATH") or home.env.get("PATH") or around.environ.get("PATH") or os.defpath
    name = site.command[0]
    named = os.path.join(site.location or "/", name) if "/" in name else ""
    found = named or shutil.which(name, path=path)
    return named, tuple(reach.executed(found, path)) if found else ()


def _tried(how: Launch, site: Site) -> Launch:
    """Have a server that cannot be held back run on a socket of its own first."""
    if site.chroot:  # our interpreter is not in there
        return how
    path = site.mount.rstrip("/") + site.smoke_path
    stdin = ("--stdin",) if how.socket_as_stdin else ()
    asked = (_python_for(how.identity), "-I", "-S", TRIAL, site.protocol, canonical(site), path, *stdin, "--")
    return replace(how, argv=(*asked, *how.argv), tried=True)


def _with_application(site: Site) -> Site:
    """Have an instance whose file names no application serve what its folder holds."""
    if not site.host or site.application or site.command or site.ini:
        return site
    found = hosted.application(site.location)
    if not found:
        names = ", ".join(hosted.APPLICATIONS)
        raise Refused(f"location {site.location} has none of {names} and not just one .wsgi; put one there")
    return replace(site, application=found)


def obstacle(site: Site, home: Home) -> Refused | None:
    """Return why `site` could not be started as its file says by who we are, as far as is known without a start."""
    try:
        plan(site, home, Surroundings(os.environ, "", "/"))
    except Refused as error:
        return error
    return None


def stranger(site: Site, home: Home) -> str:
    """Return the user that a process of `site` would run as, if that is not who we are; "" if it is.

    Such a site never comes to live in our own processes, whatever is found out about it.
    """
    if os.geteuid() != 0:
        return ""  # who else it might want to be is refused
    try:
        who = privilege.chosen(site, home, interpreter(site))
    except Refused:
        return ""  # it is not started at all
    return "" if who.uid == 0 else who.name or str(who.uid)


def _check_location(site: Site) -> None:
    if site.location and not os.path.isdir(site.location):
        raise Refused(f"location {site.location}: there is no such directory; restore it or correct the path")
    if site.chroot and not os.path.isdir(site.chroot):
        raise Refused(f"chroot = {site.chroot}: there is no such directory; make it or correct the path")


def canonical(site: Site) -> str:
    """Return the first exact domain of `site`, or its name."""
    return site.canonical_host


def interpreter(site: Site) -> str:
    """Return the path of the Python that runs `site`.

    Raises:
        Refused: there is none where its file says.
    """
    if not site.python:
        return program.own_interpreter()
    if not os.path.exists(site.python):
        raise Refused(f"python = {site.python}: there is no such file or directory; make the virtualenv or correct it")
    if not os.path.isdir(site.python):
        if not os.access(site.python, os.X_OK):
            raise Refused(f"python = {site.python}: it is no program that can be run; name a virtualenv or interpreter")
        return site.python
    for name in ("bin/python", "bin/python3"):
        path = os.path.join(site.python, name)
        if os.path.exists(path):
            return path
    raise Refused(f"python = {site.python}: it is no virtualenv, it has no bin/python; correct the path")


def _check_age(python: str) -> None:
    """Refuse an interpreter that our runner does not know, as far as its files tell how old it is."""
    found = version_of(python)
    if found and found < OLDEST:
        told, oldest = (".".join(map(str, version)) for version in (found, OLDEST))
        raise Refused(
            f"python = {python}: it is Python {told}, and {oldest} is the oldest that runs sites here; {NEWER}"
        )


def version_of(python: str) -> tuple[int, int] | None:
    """Return the version of an interpreter by its virtualenv or by the name that it goes by; None: not known."""
    named = re.search(r"python(\d)\.?(\d+)\Z", os.path.realpath(python))
    environment = privilege.based_on(python)
    told = re.match(r"(\d+)\.(\d+)", environment.get("version") or environment.get("version_info") or "")
    found = told or named
    return (int(found[1]), int(found[2])) if found else None


def _ours(site: Site, server: str) -> tuple[str, ...]:
    """Return the files of ours that the processes of `site` read as its own user."""
    if server in ("auto", "asgi"):
        return RUNNER, _gunicorn()
    if server == "granian" or (server == "command" and template.placeholders(site.command) & {"PORT", "SOCKET"}):
        return RELAY, _python_for(None)
    return (GUNICORN_CONFIG,) if server == "gunicorn" else ()


def _python_for(who: Identity | None) -> str:
    """Return an interpreter for a program of ours that `who` can run: our own, or the system's.

    None asks for the one that most users can run.
    """
    own, system = program.own_interpreter(), shutil.which("python3", path=os.defpath)
    if system and (who is None or (who.change and not privilege.reaches(who, own))):
        return system
    return own


def _inside(chroot: str, path: str) -> str:
    """Return `path` as it is called within `chroot`."""
    if chroot and (path + "/").startswith(chroot.rstrip("/") + "/"):
        return "/" + os.path.relpath(path, chroot) if path != chroot else "/"
    return path


# The servers


def _runner(plain: Launch, site: Site, python: str, around: Surroundings, host: str) -> Launch:
    """Our own runner: gunicorn's worker classes without an arbiter."""
    worker = "asgi" if site.server == "asgi" else "auto"
    once = bool(site.location) and os.path.exists(os.path.join(site.location, ALWAYS_RESTART))
    job = _job(replace(site, max_requests=1, threads=1) if once else site, around, worker)
    env = {**plain.env, "MULTISITE_JOB": str(JOB)}
    argv = (python, "-u", RUNNER)
    return replace(
        plain,
        argv=argv,
        env=env,
        job=json.dumps(job).encode(),
        told=True,
        graceful=True,
        location=site.location,
        gunicorn=job["gunicorn"],
        examine=around.examine,
        preload="" if site.preload == "auto" else "preload = no",
        once=once,
    )


def _job(site: Site, around: Surroundings, worker: str) -> dict[str, Any]:
    try:
        spec = sharing.resolve(site)
    except ValueError as error:
        raise Refused(f"application = {site.application}: {error}") from None
    # As repr(), because JSON has no tuples and no bytes; they were literals in the site's file.
    call = {"args": repr(spec.call.args), "kwargs": repr(spec.call.kwargs)} if spec.call else {}
    may_be_plugin = spec.kind == "plugin" or (spec.kind == "module" and "." not in spec.target)
    return {
        "name": site.name,
        "spec": {"kind": spec.kind, "target": spec.target, "attribute": spec.attribute, **call},
        "location": site.location,
        "ini": list(site.ini),
        "overlay": site.overlay,
        "site": asdict(site) if may_be_plugin else {},
        "processes": site.processes,
        "worker": worker,
        "threads": site.threads,
        "max_requests": site.max_requests,
        "max_requests_jitter": site.max_requests // 10,
        "request_timeout": site.request_timeout,
        "trusts_front_end": around.trusts_front_end,
        "claims": list(around.claims),
        "head_limits": dict(around.head_limits),
        "gunicorn": _gunicorn(),
        "notify": NOTIFY,
        "board": BOARD,
        "slot": around.slot % SLOTS,
        "pin": development.told(around.environ).pin(site.name),
        "smoke": _smoke(site) if around.smoke else {},
        "learn": site.preload == "auto" and not site.chroot,
        "examine": bool(around.examine),
        "aside": bool(around.examine) and placement.is_tried(site),
    }


def _smoke(site: Site) -> dict[str, str]:
    """Return what our runner is told of the smoke request; nothing where there is none."""
    if not site.smoke_path:
        return {}
    return {"host": canonical(site), "mount": site.mount.rstrip("/"), "path": site.smoke_path}


@cache
def _gunicorn() -> str:
    """Return the folder of our own gunicorn."""
    from importlib.util import find_spec

    spec = find_spec("gunicorn")
    return next(iter(spec.submodule_search_locations or ()), "") if spec else ""


def _command(plain: Launch, site: Site, python: str, around: Surroundings, host: str) -> Launch:
    """Any program: one that takes the socket over (sd_listen_fds), or one that is told a port or a path to bind."""
    if not site.command:
        raise Refused("server = command: there is no command to run; say which one with command =")
    strange = template.unknown(site.command)
    if strange:
        known = template.listed(template.NAMES)
        told = f"command = {shlex.join(site.command)}: the placeholder %{strange[0]} means nothing"
        raise Refused(f"{told}; there are {known}, and %% for a per cent sign")
    found = template.placeholders(site.command)
    who = plain.identity
    values = {"HOST": host, "UID": str(who.uid), "GID": str(who.gid), "%": "%"}
    if not found & {"PORT", "SOCKET"}:
        return replace(plain, argv=_found(plain, template.render(site.command, values)))
    private = os.path.join(around.private, f"{around.slot}.sock") if "SOCKET" in found else ""
    values |= {"SOCKET": private}
    argv = template.render(site.command, {**values, "%": "%%"})
    return _relayed(plain, argv, private, host if "HOST" in found else "")


def _found(plain: Launch, argv: tuple[str, ...]) -> tuple[str, ...]:
    """Check that the program is there, so that the reason is told without a process."""
    if plain.chroot:
        return argv
    path = plain.env.get("PATH", os.defpath)
    if "/" in argv[0]:
        if not os.path.exists(os.path.join(plain.cwd, argv[0])):
            raise Refused(f"command {argv[0]}: there is no such program; install it or correct the path")
    elif not shutil.which(argv[0], path=path):
        raise Refused(f"command {argv[0]}: there is no such program in {path}; write its full path")
    return argv


def _relayed(plain: Launch, argv: tuple[str, ...], private: str, host: str) -> Launch:
    """A command that only knows a port or a path of its own: the relay takes the site's socket and passes on."""
    _found(plain, argv)
    told = ("--socket", private) if private else ("--port", host)
    python = _python_for(plain.identity)
    return replace(plain, argv=(python, "-I", "-S", RELAY, *told, "--", *argv), told=True, graceful=True)


def _uwsgi(plain: Launch, site: Site, python: str, around: Surroundings, host: str) -> Launch:
    """UWSGI, which finds the socket on descriptor 0."""
    spec = _spec(site, ("module", "file", "django", "paste"), "uwsgi")
    uwsgi = _beside(python, "uwsgi", plain)
    argv = [uwsgi, "--master", "--die-on-term", "--need-app", "--auto-procname"]
    argv += ["--protocol", site.protocol, "--processes", str(site.processes), "--threads", str(site.threads)]
    argv += ["--plugins-dir", "/usr/lib/uwsgi/plugins", "--plugin", "python3"] if uwsgi == "/usr/bin/uwsgi" else []
    argv += ["--max-requests", str(site.max_requests)] if site.max_requests else []
    argv += ["--harakiri", str(int(site.request_timeout) or 1)] if site.request_timeout else []
    argv += ["--virtualenv", site.python] if site.python and os.path.isdir(site.python) else []
    argv += ["--file" if spec[0] == "file" else "--module", spec[1]]
    return replace(plain, argv=tuple(argv), socket_as_stdin=True)


def _gunicorn_server(plain: Launch, site: Site, python: str, around: Surroundings, host: str) -> Launch:
    """The site's own gunicorn with an arbiter of its own."""
    spec = _spec(site, ("module", "django", "asgi"), "gunicorn")
    argv = [python, "-m", "gunicorn", "--config", GUNICORN_CONFIG, "--workers", str(site.processes)]
    argv += ["--threads", str(site.threads)] if site.threads > 1 else []
    argv += ["--worker-class", "asgi"] if spec[0] == "asgi" else []
    argv += ["--max-requests", str(site.max_requests), "--max-requests-jitter", str(site.max_requests // 10)]
    argv += ["--timeout", str(int(site.request_timeout)), "--graceful-timeout", str(max(1, int(site.drain_timeout)))]
    for name, limit in around.head_limits.items():
        argv += [f"--{name.replace('_', '-').replace('field-size', 'field_size')}", str(limit)]
    return replace(plain, argv=(*argv, spec[1]), told=True, graceful=True)


def _granian(plain: Launch, site: Site, python: str, around: Surroundings, host: str) -> Launch:
    """Granian, which binds its own port."""
    spec = _spec(site, ("module", "django", "asgi"), "granian")
    interface = "asgi" if spec[0] == "asgi" else "wsgi"
    argv = [_beside(python, "granian", plain), "--interface", interface, "--host", "127.0.0.1", "--port", "%PORT"]
    argv += ["--workers", str(site.processes), "--blocking-threads", str(site.threads)] if interface == "wsgi" else []
    return _relayed(plain, (*argv, "--no-ws" if interface == "wsgi" else "--ws", spec[1]), "", host)


def _spec(site: Site, kinds: tuple[str, ...], server: str) -> tuple[str, str]:
    """Return (kind, what the server is told); a factory and the kinds that it does not know are refused."""
    try:
        spec = sharing.resolve(site)
    except ValueError as error:
        raise Refused(f"application = {site.application}: {error}") from None
    if spec.kind not in kinds or spec.call or spec.kind in ("paste", "django"):
        raise Refused(f"server = {server} cannot run application = {site.application}; use server = auto")
    if spec.kind == "file":
        return "file", os.path.join(site.location, spec.target)
    return spec.kind, f"{spec.target}:{spec.candidates[0]}"


def _beside(python: str, name: str, plain: Launch) -> str:
    """Return the program `name` of the site's virtualenv, else of PATH."""
    path = os.path.join(os.path.dirname(python), name)
    found = path if os.access(path, os.X_OK) else shutil.which(name, path=plain.env.get("PATH", os.defpath))
    if not found:
        raise Refused(f"server = {name}: it is not installed; install it into the site's virtualenv or the system")
    return found


def backends(site: Site) -> int:
    """Return how many backends a site has: servers that fork their own workers are one, whatever `processes` says."""
    return 1 if site.server in ("gunicorn", "uwsgi", "granian") else site.processes


def needs_private(site: Site) -> bool:
    """Tell whether the site's command binds a socket of its own."""
    return "SOCKET" in template.placeholders(site.command)


_SERVERS = {
    "auto": _runner,
    "asgi": _runner,
    "command": _command,
    "uwsgi": _uwsgi,
    "gunicorn": _gunicorn_server,
    "granian": _granian,
}
