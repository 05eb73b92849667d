"""gunicorn in this process with the sites of the home: its settings, and what is announced of the sites."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from multisite.cli.binding import address_of, bound, keep_paths, only_this_machine, port_of
from multisite.cli.fence import fenced
from multisite.cli.output import say, say_problems
from multisite.cli.session import Session
from multisite.config.development import LOCALHOST, Development, raising

if TYPE_CHECKING:
    from multisite.config.model import SiteFile

DEFAULT_HOST = "127.0.0.1"

DEFAULT_PORT = 8000

DEFAULT_THREADS = 8

MOST_WORKERS = 4  # each imports every site that shares it, so more of them is somebody's decision


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
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Run gunicorn with the sites of the home, until it is told to stop; `more` are settings of it."""
    addresses = [address_of(bind, port or DEFAULT_PORT) for bind in binds or (DEFAULT_HOST,)]
    settings = {**more, **_development(addresses, workers, reload, debug), **_tls(tls, http2)}
    settings |= {"workers": workers or default_workers(reload or debug), "threads": threads or DEFAULT_THREADS}
    how = Development(debug, reload, secrets.token_hex(16) if debug else "")
    sockets = bound(addresses)
    os.environ.update(how.environ)
    os.environ.update(raising(os.environ))
    if all(map(only_this_machine, addresses)):
        os.environ[LOCALHOST] = "1"
    announce(session, addresses, how, "https" if tls else "http")
    os.environ["MOYA_SERVICE_HOME"] = session.home.path
    from multisite.cli.standalone import believing, run

    settings |= believing(session.home.service.trusted_proxies)
    run({"bind": sockets, "when_ready": keep_paths, **settings})


def default_workers(alone: bool) -> int:
    """Return how many processes serve where nobody says; `alone`: for a developer."""
    return 1 if alone else min(MOST_WORKERS, len(os.sched_getaffinity(0)))


def _development(addresses: Iterable[str], workers: int | None, reload: bool, debug: bool) -> dict[str, Any]:
    """Refuse what would show a debugger to strangers, or lose it; return gunicorn's settings."""
    strange = [address for address in addresses if not only_this_machine(address)]
    if debug and strange:
        reason = f"visitors of {strange[0]} could be strangers"
        raise click.UsageError(f"--debug shows source code and runs it, so it takes loopback addresses only; {reason}")
    if (reload or debug) and (workers or 1) > 1:
        raise click.UsageError("--reload and --debug take one worker, since what they know is known to one process")
    if not reload:
        return {}
    from multisite.cli.standalone import reloading

    return reloading()


def _tls(folder: str | None, http2: bool) -> dict[str, Any]:
    """Return gunicorn's settings for TLS; a usage error where it cannot be had."""
    if not folder:
        if http2:
            raise click.UsageError("--http2 needs --tls: browsers speak it over TLS only")
        return {}
    from multisite.cli.certificates import Certificates
    from multisite.cli.standalone import knows

    if http2 and not (knows("http_protocols") and _has_h2()):
        raise click.UsageError("--http2 needs gunicorn 25 or newer and h2; pip install 'multisite-wsgi[http2]'")
    certificates = Certificates(os.path.abspath(folder), ("h2", "http/1.1") if http2 else ())
    try:
        pair = certificates.default()
        certificates.context(pair)
    except (ValueError, OSError) as error:
        raise click.UsageError(f"--tls {folder}: {error}") from None
    settings = {"certfile": pair.chain, "keyfile": pair.key, "ssl_context": certificates.for_gunicorn}
    return {**settings, "http_protocols": "h2,h1"} if http2 else settings


def _has_h2() -> bool:
    from importlib.util import find_spec

    return find_spec("h2") is not None


def announce(session: Session, addresses: Iterable[str], how: Development, scheme: str = "http") -> None:
    """Say the problems, then where the sites are to be found, and which do not run in the workers."""
    say_problems(session.catalogue.problems)
    if how.debug and session.supervisor:
        running = f"a supervisor runs already (process {session.supervisor['supervisor']['pid']})"
        say(f"warning: {running}, so spawned sites have no debugger; end its servers first", err=True)
    port = next(filter(None, map(port_of, addresses)), "")
    for name, site in session.catalogue.sites.items():
        step = partial(_announced, session, site, port, scheme, how)
        say(f"{name}: {fenced(session, name, step, str)}", err=True)


def _announced(session: Session, site: SiteFile, port: str, scheme: str, how: Development) -> str:
    """Say where a site is to be found, and where it runs if that is unusual."""
    from multisite.cli.verdict import judge
    from multisite.sites import sharing

    where = [*_by_name(session, site, port, scheme), *(urls(site, port, scheme) if port else site.domains)]
    settled = session.catalogue.site(site.name)
    found = judge(session, settled)
    usual = found.placement and (found.placement == "in-process" or sharing.is_examined(settled, session.home))
    elsewhere = "" if usual else f" ({found.placement or 'broken'}: {found.reason})"
    asgi = settled.application.startswith("asgi:") or settled.server == "asgi"  # debugged by its framework
    pin = how.pin(site.name) if found.placement != "proxy" and settled.is_ours and not asgi else ""
    return f"{' '.join(where) or 'no domain'}{elsewhere}{f', debugger PIN {pin}' if pin else ''}"


def urls(site: SiteFile, port: str, scheme: str = "http") -> list[str]:
    """Return the addresses of `site` that can be opened; a pattern is shown as it is written."""
    from multisite.config.hosts import is_pattern

    return [domain if is_pattern(domain) else _url(domain, site, port, scheme) for domain in site.domains]


def _url(host: str, site: SiteFile, port: str, scheme: str) -> str:
    usual = port == {"http": "80", "https": "443"}[scheme]
    return f"{scheme}://{host}{'' if usual else f':{port}'}{site.mount.rstrip('/')}/"


def _by_name(session: Session, site: SiteFile, port: str, scheme: str) -> list[str]:
    """Return the address that a site has by its name, if nothing else claims that."""
    from multisite.config.hosts import local_host

    host = "" if session.catalogue.hosting(site.name) else local_host(site.name)
    found = session.catalogue.answering(host)[:1] if host and port else []
    return [_url(host, site, port, scheme)] if found and session.catalogue.table.falls_back(found[0]) else []
