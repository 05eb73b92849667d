"""``multisite serve``: gunicorn in this process, with the sites of the home."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from multisite.cli.output import say, say_problems
from multisite.cli.session import Session, pass_session

if TYPE_CHECKING:
    from multisite.model import SiteFile

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
_QUIET = {"control_socket_disable": True}  # every gunicorn of a user would open the same one; older ones have none
_OTHER = ("unix:", "fd://")  # addresses without a port

EPILOG = """\b
Examples:
  multisite serve
  multisite serve --port 8080 --reload --debug
  multisite serve --bind 0.0.0.0:80 --bind unix:/run/multisite.sock --workers 2 --threads 8
"""


@click.command(epilog=EPILOG, short_help="Serve the sites from this process.")
@click.option("--bind", "binds", multiple=True, metavar="ADDRESS", help="HOST, HOST:PORT or unix:PATH; repeatable.")
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True, help="Port.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--threads", type=click.IntRange(1), default=4, show_default=True, help="Threads of each process.")
@click.option("--reload", is_flag=True, help="Restart workers when code changes (site files are live).")
@click.option("--debug", is_flag=True, help="Show tracebacks on error pages; on loopback addresses only.")
@pass_session
def serve(
    session: Session, binds: tuple[str, ...], port: int, workers: int, threads: int, *, reload: bool, debug: bool
) -> None:
    """Serve the sites of the home from this process, for development or without a front end."""
    addresses = [address_of(bind, port) for bind in binds or (DEFAULT_HOST,)]
    if debug and not all(map(is_loopback, addresses)):
        raise click.UsageError("--debug shows source code to visitors, so it takes loopback addresses only")
    announce(session, addresses)
    os.environ["MOYA_SERVICE_HOME"] = session.home.path
    if debug:
        os.environ["MULTISITE_DEBUG"] = "1"
    if reload:
        os.environ["MULTISITE_EXAMINE"] = "no"  # only what the workers have imported is watched
    run({"bind": addresses, "workers": workers, "threads": threads, "reload": reload})


def address_of(bind: str, port: int) -> str:
    """Complete `bind` to an address as gunicorn takes it: ``HOST:PORT`` or ``unix:PATH``."""
    if bind.startswith(_OTHER):
        return bind
    if bind.count(":") > 1 and bind[0] != "[":
        return f"[{bind}]:{port}"
    return bind if re.search(r":\d+\Z", bind) else f"{bind}:{port}"


def is_loopback(address: str) -> bool:
    """Tell whether only this machine can connect to `address`; a unix socket may have a front end behind it."""
    import ipaddress

    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def announce(session: Session, addresses: Iterable[str]) -> None:
    """Say the problems, then where the sites are to be found, and which do not run in the workers."""
    from multisite import sharing
    from multisite.cli.verdict import judge

    say_problems(session.catalogue.problems)
    port = next((address.rpartition(":")[2] for address in addresses if not address.startswith(_OTHER)), "")
    for name, site in session.catalogue.sites.items():
        where = " ".join(urls(site, port) if port else site.domains) or "no domain"
        settled = session.catalogue.site(name)
        found = judge(session, settled)
        usual = found.placement and (found.placement == "in-process" or sharing.is_examined(settled, session.home))
        say(f"{name}: {where}" + ("" if usual else f" ({found.placement or 'broken'}: {found.reason})"), err=True)


def urls(site: SiteFile, port: str) -> list[str]:
    """Return the addresses of `site` that can be opened; a pattern is shown as it is written."""
    from multisite.hosts import is_pattern

    tail = ("" if port == "80" else f":{port}") + site.mount.rstrip("/") + "/"
    return [domain if is_pattern(domain) else f"http://{domain}{tail}" for domain in site.domains]


def run(settings: dict[str, Any]) -> None:
    """Run gunicorn until it is told to stop."""
    from gunicorn.app.base import BaseApplication

    class Standalone(BaseApplication):  # type: ignore[misc]
        """gunicorn without a configuration file and without its own command line."""

        def load_config(self) -> None:
            """Take our settings alone."""
            for key, value in {**settings, **_QUIET}.items():
                if key in self.cfg.settings:
                    self.cfg.set(key, value)

        def load(self) -> Any:
            """Import the dispatcher, in the worker."""
            from multisite.service import application

            return application

    Standalone().run()
