"""The command line of each kind of server that can run a site, and the files of ours that it needs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from dataclasses import asdict, replace
from functools import cache
from importlib.util import find_spec
from typing import Any

from multisite.config import hosting
from multisite.config.application import AppSpec
from multisite.config.model import Site
from multisite.config.policies import Refused
from multisite.config.serving import development
from multisite.control import program
from multisite.sites import placement, sharing
from multisite.sites.changes import ALWAYS_RESTART
from multisite.supervisor.process import reach
from multisite.supervisor.process.spec import BOARD, FENCE_VARIABLE, JOB, NOTIFY, SLOTS, Identity, Launch, Surroundings

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAMS = os.path.join(_PACKAGE, "runner")
RUNNER = os.path.join(_PROGRAMS, "__main__.py")
SOCKETPROXY = os.path.join(_PROGRAMS, "socketproxy.py")
TRIAL = os.path.join(_PROGRAMS, "trial.py")
LEASEGUARD = os.path.join(_PROGRAMS, "leaseguard.py")
GUNICORN_CONFIG = os.path.join(_PROGRAMS, "gunicorn_config.py")


def command_line(server: str, plain: Launch, site: Site, python: str, around: Surroundings, host: str) -> Launch:
    """Return `plain`, completed so that this server runs `site`.

    Raises:
        Refused: the server cannot run it.
    """
    return _SERVERS[server](plain, site, python, around, host)


def tried(how: Launch, site: Site) -> Launch:
    """Make a server that cannot be held back run on a separate socket first."""
    if site.chroot:  # our interpreter is not in there
        return how
    path = site.mount.rstrip("/") + site.smoke_path
    stdin = ("--stdin",) if how.socket_as_stdin else ()
    asked = (_python_for(how.identity), "-I", "-S", TRIAL, site.protocol, site.canonical_host, path, *stdin, "--")
    return replace(how, argv=(*asked, *how.argv), tried=True)


def guarded(how: Launch, around: Surroundings) -> Launch:
    """Make a guard the parent of the process, which ends it with its lease."""
    stdin = ("--stdin",) if how.socket_as_stdin else ()
    guard = (_python_for(how.identity), "-I", "-S", LEASEGUARD, f"{around.warning:g}", *stdin, "--")
    env = {**how.env, FENCE_VARIABLE: str(around.fence)}
    return replace(how, argv=(*guard, *how.argv), env=env, preload="it is exclusive")


def files_of_ours(site: Site, server: str) -> tuple[str, ...]:
    """Return our files that the processes of `site` read as the site's own user."""
    if site.exclusive:
        return LEASEGUARD, _python_for(None), *files_of_ours(replace(site, exclusive=False), server)
    if server in ("auto", "asgi"):
        return RUNNER, _gunicorn()
    if server == "granian" or (server == "command" and hosting.placeholders(site.command) & {"PORT", "SOCKET"}):
        return SOCKETPROXY, _python_for(None)
    return (GUNICORN_CONFIG,) if server == "gunicorn" else ()


def _python_for(who: Identity | None) -> str:
    """Return an interpreter, for a program of ours, that `who` can run: our own, or the system's.

    None asks for the one that most users can run.
    """
    own, system = program.own_interpreter(), shutil.which("python3", path=os.defpath)
    if system and (who is None or (who.change and reach.closed_to(who, own))):
        return system
    return own


def _runner(plain: Launch, site: Site, python: str, around: Surroundings, host: str) -> Launch:
    """Our own runner: gunicorn's worker classes without an arbiter."""
    worker = "asgi" if site.server == "asgi" else "auto"
    once = bool(site.location) and os.path.exists(os.path.join(site.location, ALWAYS_RESTART))
    job = _job(replace(site, max_requests=1, threads=1) if once else site, around, worker)
    return replace(
        plain,
        argv=(python, "-u", RUNNER),
        env={**plain.env, "MULTISITE_JOB": str(JOB)},
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
    spec = _application(site)
    # As repr(), because JSON has no tuples and no bytes; they were literals in the site's file.
    call = {"args": repr(spec.call.args), "kwargs": repr(spec.call.kwargs)} if spec.call else {}
    smoke = {"host": site.canonical_host, "mount": site.mount.rstrip("/"), "path": site.smoke_path}
    may_be_plugin = spec.kind == "plugin" or (spec.kind == "module" and "." not in spec.target)
    return {
        "name": site.name,
        "file": site.file,
        "application": site.application,
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
        "guarded": bool(around.fence),
        "pin": development.from_environ(around.environ).pin(site.name),
        "smoke": smoke if around.smoke and site.smoke_path else {},
        "learn": site.preload == "auto" and not site.chroot and not site.exclusive,
        "examine": bool(around.examine),
        "aside": bool(around.examine) and placement.is_tried(site),
    }


@cache
def _gunicorn() -> str:
    """Return the directory of our own gunicorn."""
    spec = find_spec("gunicorn")
    return next(iter(spec.submodule_search_locations or ()), "") if spec else ""


def _command(plain: Launch, site: Site, python: str, around: Surroundings, host: str) -> Launch:
    """Any program: one that takes the socket over (sd_listen_fds), or one that receives a port or a path to bind."""
    if not site.command:
        raise Refused("there is no command to run", "set one with command =", "server", "command", id="MS534")
    strange = hosting.unknown(site.command)
    if strange:
        known = hosting.listed(hosting.NAMES)
        remedy = f"there are {known}, and %% for a per cent sign"
        raise Refused(
            f"the placeholder %{strange[0]} means nothing", remedy, "command", shlex.join(site.command), id="MS534"
        )
    found = hosting.placeholders(site.command)
    who = plain.identity
    values = {"HOST": host, "UID": str(who.uid), "GID": str(who.gid), "%": "%"}
    if not found & {"PORT", "SOCKET"}:
        return replace(plain, argv=_found(plain, hosting.render(site.command, values), site.name))
    private = os.path.join(around.private, f"{around.slot}.sock") if "SOCKET" in found else ""
    values |= {"SOCKET": private}
    argv = hosting.render(site.command, {**values, "%": "%%"})
    return _relayed(plain, argv, private, host if "HOST" in found else "", site.name)


def _found(plain: Launch, argv: tuple[str, ...], site: str) -> tuple[str, ...]:
    """Check that the program exists, so that the reason is known without starting a process."""
    if plain.chroot:
        return argv
    path = plain.env.get("PATH", os.defpath)
    if "/" in argv[0]:
        if not os.path.exists(os.path.join(plain.cwd, argv[0])):
            raise Refused(
                f"command {argv[0]}: there is no such program",
                f"install it, or multisite set {site} command=COMMAND",
                id="MS534",
            )
    elif not shutil.which(argv[0], path=path):
        raise Refused(
            f"command {argv[0]}: there is no such program in {path}",
            f"install it, or multisite set {site} command=/PATH/TO/{argv[0]}",
            id="MS534",
        )
    return argv


def _relayed(plain: Launch, argv: tuple[str, ...], private: str, host: str, site: str) -> Launch:
    """A command that only takes a port or a path: the relay accepts on the site's socket and passes requests on."""
    _found(plain, argv, site)
    told = ("--socket", private) if private else ("--port", host)
    python = _python_for(plain.identity)
    return replace(plain, argv=(python, "-I", "-S", SOCKETPROXY, *told, "--", *argv), told=True, graceful=True)


def _uwsgi(plain: Launch, site: Site, python: str, around: Surroundings, host: str) -> Launch:
    """UWSGI, which expects the socket as descriptor 0."""
    spec = _spec(site, ("module", "file"), "uwsgi")
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
    """The site's own gunicorn, with its own arbiter."""
    spec = _spec(site, ("module", "asgi"), "gunicorn")
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
    spec = _spec(site, ("module", "asgi"), "granian")
    interface = "asgi" if spec[0] == "asgi" else "wsgi"
    argv = [_beside(python, "granian", plain), "--interface", interface, "--host", "127.0.0.1", "--port", "%PORT"]
    argv += ["--workers", str(site.processes), "--blocking-threads", str(site.threads)] if interface == "wsgi" else []
    return _relayed(plain, (*argv, "--no-ws" if interface == "wsgi" else "--ws", spec[1]), "", host, site.name)


def _application(site: Site) -> AppSpec:
    try:
        return sharing.resolve(site)
    except ValueError as error:
        reason, _, remedy = str(error).partition("; ")
        raise Refused(reason, remedy, "application", site.application, id="MS534") from None


def _spec(site: Site, kinds: tuple[str, ...], server: str) -> tuple[str, str]:
    """Return (kind, what the server loads); factories, and kinds that the server does not know, are refused."""
    spec = _application(site)
    if spec.kind not in kinds or spec.call:
        raise Refused(f"server = {server} cannot run application = {site.application}", "use server = auto", id="MS534")
    if spec.kind == "file":
        return "file", os.path.join(site.location, spec.target)
    return spec.kind, f"{spec.target}:{spec.candidates[0]}"


def _beside(python: str, name: str, plain: Launch) -> str:
    """Return the program `name` of the site's virtualenv, else of PATH."""
    path = os.path.join(os.path.dirname(python), name)
    found = path if os.access(path, os.X_OK) else shutil.which(name, path=plain.env.get("PATH", os.defpath))
    if not found:
        remedy = f"{os.path.join(os.path.dirname(python), 'pip')} install {name}, or install it into the system"
        raise Refused("it is not installed", remedy, "server", name, id="MS534")
    return found


_SERVERS = {
    "auto": _runner,
    "asgi": _runner,
    "command": _command,
    "uwsgi": _uwsgi,
    "gunicorn": _gunicorn_server,
    "granian": _granian,
}
