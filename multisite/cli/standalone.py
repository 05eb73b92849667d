"""gunicorn in this process, without a configuration file: its addresses, its settings and the announcement of sites."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from multisite.cli.group import fail, fenced
from multisite.cli.output import complain, say, say_problems
from multisite.cli.session import Session
from multisite.config.serving.development import Development, raising
from multisite.config.trusted import of_gunicorn
from multisite.control import localnames
from multisite.errors.pages import is_loopback

if TYPE_CHECKING:
    from multisite.config.model import SiteFile

_QUIET = {"control_socket_disable": True}  # every gunicorn of a user would open the same one; older ones have none
ENGINE = "multisite"
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ROOTS = (_PACKAGE + os.sep, sys.prefix + os.sep, sys.base_prefix + os.sep)
UNIX, DESCRIPTOR = "unix:", "fd://"
_ABSTRACT = "unix:@"
_GIVEN: set[str | bytes] = set()  # names of unix sockets that belong to somebody else
_PORT = re.compile(r":\d+\Z")
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
DEFAULT_THREADS = 8
MOST_WORKERS = 4  # each imports every site that shares it, so more of them should be a decision of the user


def serve_here(
    session: Session,
    binds: tuple[str, ...] = (),
    port: int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    tls: str | None = None,
    *,
    http2: bool = False,
    reload: bool = False,
    debug: bool = False,
    quiet: bool = False,
    unlisted: Collection[str] = (),
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Run gunicorn with the sites of the home until a signal stops it; `more` are gunicorn's settings.

    A line is printed for each request, unless `quiet`, and the address of each site that is not in `unlisted`.
    """
    addresses = [address_of(bind, port or DEFAULT_PORT) for bind in binds or (DEFAULT_HOST,)]
    settings = {**more, **_development(addresses, workers, reload, debug), **_tls(tls, http2)}
    settings |= {"workers": workers or default_workers(reload or debug), "threads": threads or DEFAULT_THREADS}
    is_local = all(map(only_this_machine, addresses))
    how = Development(debug, reload, secrets.token_hex(16) if debug else "", lines=not quiet, local=is_local)
    refuse_taken(addresses)
    sockets = bound(addresses)
    os.environ.update(how.environ)
    os.environ.update(raising(os.environ))
    if is_local:
        from multisite.config.read import read_home

        localnames.hold(read_home(session.home_path))  # with the folders of this process and its workers
    announce(session, addresses, how, "https" if tls else "http", unlisted)
    os.environ["MOYA_SERVICE_HOME"] = session.home.path
    settings |= believing(session.home.service.trusted_proxies)
    run({"bind": sockets, "when_ready": keep_paths, **settings})


def refuse_taken(addresses: Iterable[str]) -> None:
    """End the command with a remedy if the server could not listen on one of its TCP addresses."""
    from multisite.cli.publishers.listeners import refusals

    for reason in refusals(filter(port_of, addresses), "multisite serve"):
        fail(reason)


def default_workers(alone: bool) -> int:
    """Return the default number of processes; `alone`: for a developer."""
    return 1 if alone else min(MOST_WORKERS, len(os.sched_getaffinity(0)))


def _development(addresses: Iterable[str], workers: int | None, reload: bool, debug: bool) -> dict[str, Any]:
    """Refuse options that would show a debugger to strangers, or lose its state; return gunicorn's settings."""
    strange = [address for address in addresses if not only_this_machine(address)]
    if debug and strange:
        reason = f"visitors of {strange[0]} could be strangers"
        raise click.UsageError(f"--debug shows source code and runs code, so it needs loopback addresses; {reason}")
    if (reload or debug) and (workers or 1) > 1:
        raise click.UsageError("--reload and --debug keep their state in one process, so they need --workers 1")
    if not reload:
        return {}
    return reloading()


def _tls(folder: str | None, http2: bool) -> dict[str, Any]:
    """Return gunicorn's settings for TLS; raise a usage error if it is not available."""
    if not folder:
        if http2:
            raise click.UsageError("--http2 needs --tls: browsers speak HTTP/2 only over TLS")
        return {}
    from importlib.util import find_spec

    from multisite.cli.publishers.certificates import Certificates

    if http2 and not (knows("http_protocols") and find_spec("h2")):
        raise click.UsageError("--http2 needs gunicorn 25 or newer and h2; pip install 'multisite-wsgi[http2]'")
    certificates = Certificates(os.path.abspath(folder), ("h2", "http/1.1") if http2 else ())
    try:
        pair = certificates.default()
        certificates.context(pair)
    except (ValueError, OSError) as error:
        raise click.UsageError(f"--tls {folder}: {error}") from None
    settings = {"certfile": pair.chain, "keyfile": pair.key, "ssl_context": certificates.for_gunicorn}
    return {**settings, "http_protocols": "h2,h1"} if http2 else settings


def announce(
    session: Session, addresses: Iterable[str], how: Development, scheme: str = "http", unlisted: Collection[str] = ()
) -> None:
    """Print what `check` reports, then the addresses of the sites, and which do not run in the workers."""
    from multisite.cli.check import enabled_problems

    say_problems(enabled_problems(session))
    if how.debug and session.supervisor:
        running = f"a supervisor is already running (process {session.supervisor['supervisor']['pid']})"
        complain("warning", f"{running}, so spawned sites have no debugger; stop its servers first")
    port = next(filter(None, map(port_of, addresses)), "")
    listed = {name: site for name, site in session.catalogue.sites.items() if name not in unlisted}
    for name, site in listed.items():
        step = partial(_announced, session, site, port, scheme, how)
        say(f"{name}: {fenced(session, name, step, str)}", err=True)


def _announced(session: Session, site: SiteFile, port: str, scheme: str, how: Development) -> str:
    """Return the addresses of a site, and where it runs if that is unusual."""
    from multisite.sites import addresses, sharing
    from multisite.status.report import judge

    own = addresses.urls(site, port, scheme) if port else site.domains
    where = [*addresses.by_name(session.catalogue, site, port, scheme), *own]
    settled = session.catalogue.site(site.name)
    found = judge(session, settled)
    usual = found.placement and (found.placement == "in-process" or sharing.is_examined(settled, session.home))
    elsewhere = "" if usual else f" ({found.placement or 'broken'}: {found.reason})"
    elsewhere = " (broken: see the errors above)" if found.faults else elsewhere
    if found.at_rest == "broken":
        faults = [*found.faults, *(problem for problem in found.problems if problem.is_error)]
        elsewhere = f" (broken: {faults[0].reason if faults else found.reason}; multisite explain {site.name})"
    asgi = settled.application.startswith("asgi:") or settled.server == "asgi"  # debugged by its framework
    pin = how.pin(site.name) if found.placement != "proxy" and settled.is_ours and not asgi else ""
    return f"{' '.join(where) or 'no domain'}{elsewhere}{f', debugger PIN {pin}' if pin else ''}"


def address_of(bind: str, port: int) -> str:
    """Complete `bind` to an address for gunicorn: ``HOST:PORT``, ``unix:PATH``, ``unix:@NAME`` or ``fd://N``."""
    if bind.startswith((UNIX, DESCRIPTOR)):
        return bind
    if bind.count(":") > 1 and bind[0] != "[":
        return f"[{bind}]:{port}"
    return bind if _PORT.search(bind) else f"{bind}:{port}"


def port_of(address: str) -> str:
    """Return the port of a TCP address, "" for any other."""
    return "" if address.startswith((UNIX, DESCRIPTOR)) else address.rpartition(":")[2]


def only_this_machine(address: str) -> bool:
    """Tell whether only this machine can connect to `address`; a unix socket may have a front end behind it."""
    return bool(port_of(address)) and is_loopback(address.rpartition(":")[0].strip("[]"))


def bound(addresses: Iterable[str]) -> list[str]:
    """Return the addresses for gunicorn, all as descriptors if one of them is a descriptor or an abstract socket.

    gunicorn makes sockets only if it is given none, and cannot make abstract ones.

    Raises:
        click.UsageError: it is impossible to listen on one of them.
    """
    addresses = list(addresses)
    if not any(address.startswith((_ABSTRACT, DESCRIPTOR)) for address in addresses):
        return addresses
    return [f"{DESCRIPTOR}{_descriptor(address)}" for address in addresses]


def _descriptor(address: str) -> int:
    try:
        if address.startswith(DESCRIPTOR):
            return _given(address)
        listening = _listen(address)
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise click.UsageError(f"--bind {address}: {reason[:1].lower()}{reason[1:]}") from None
    listening.set_inheritable(True)
    return listening.detach()


def _given(address: str) -> int:
    number = int(address.removeprefix(DESCRIPTOR))
    with socket.socket(fileno=os.dup(number)) as given:
        if given.type != socket.SOCK_STREAM:
            raise ValueError("it is not a stream socket")
        if given.family == socket.AF_UNIX:
            _GIVEN.add(given.getsockname())
    return number


def _listen(address: str) -> socket.socket:
    if address.startswith(UNIX):
        return _listen_unix(address.removeprefix(UNIX))
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=2048)


def _listen_unix(path: str) -> socket.socket:
    """Listen at a path, in place of a stale socket there, or in the abstract namespace."""
    listening = socket.socket(socket.AF_UNIX)
    if path.startswith("@"):
        listening.bind("\0" + path[1:])
    else:
        path = re.sub(r"\A//", "", path)
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                raise ValueError("another process listens there")
        if os.path.exists(path):
            os.unlink(path)
        listening.bind(path)
    listening.listen(2048)
    return listening


def keep_paths(server: Any) -> None:
    """Keep gunicorn from removing paths that are not its own when it ends: its hook ``when_ready``.

    It removes the path of any unix socket, and an abstract one has none.
    """
    for listener in server.LISTENERS:
        name = listener.getsockname()
        if isinstance(name, bytes) or name in _GIVEN:
            listener.getsockname = lambda: ("", 0)


def run(settings: dict[str, Any]) -> None:
    """Run gunicorn until a signal stops it."""
    from gunicorn.app.base import BaseApplication

    class Standalone(BaseApplication):  # type: ignore[misc]
        """gunicorn with only our settings."""

        def load_config(self) -> None:
            """Apply our settings; an older gunicorn does not know all of them."""
            for key, value in {**settings, **_QUIET}.items():
                if key in self.cfg.settings:
                    self.cfg.set(key, value)

        def load(self) -> Any:
            """Import the dispatcher, in the worker."""
            from multisite.service import application

            return application

    Standalone().run()


def believing(proxies: Iterable[str]) -> dict[str, str]:
    """Return the settings that make gunicorn trust the same proxies as we do."""
    from gunicorn.config import Config

    named = of_gunicorn(proxies)
    try:
        Config().set("forwarded_allow_ips", ",".join(named))
    except ValueError:  # it is too old to know networks
        named = [proxy for proxy in named if "/" not in proxy]
    return dict.fromkeys(("forwarded_allow_ips", "proxy_allow_ips"), ",".join(named))


def knows(setting: str) -> bool:
    """Tell whether this gunicorn has a setting."""
    from gunicorn.config import Config

    return setting in Config().settings


def reloading() -> dict[str, Any]:
    """Return the settings with which a worker restarts when multisite or an installed package has changed.

    A change of a site does not count: gunicorn's own reloader would restart all sites for it.
    """
    from gunicorn import reloader

    class Installed(reloader.Reloader):  # type: ignore[misc]
        """Watches the modules that do not belong to a site."""

        def get_files(self) -> list[str]:
            """Return the files of these modules."""
            return [path for path in super().get_files() if path.startswith(_ROOTS)]

    reloader.reloader_engines[ENGINE] = Installed
    return {"reload": True, "reload_engine": ENGINE}
