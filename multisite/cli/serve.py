"""``multisite serve``: serve the sites of the home from this process, or from a server that replaces it."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from multisite.cli.check import enabled_problems
from multisite.cli.group import fail
from multisite.cli.output import say_problems
from multisite.cli.session import Session, pass_session
from multisite.cli.standalone import (
    DEFAULT_PORT,
    DEFAULT_THREADS,
    UNIX,
    address_of,
    default_workers,
    refuse_taken,
    serve_here,
)
from multisite.config.serving.development import MOST_SIMULATED, SIMULATE

if TYPE_CHECKING:
    from multisite.config.sections import PublisherOptions

DEBIAN_UWSGI = "/usr/bin/uwsgi"
_REMEDIES = {"uwsgi": "pip install uwsgi, or apt-get install uwsgi-core uwsgi-plugin-python3"}
SERVE = """\b
Examples:
  multisite serve
  multisite serve --port 8080 --reload --debug
  multisite serve --bind 0.0.0.0:80 --bind unix:/run/multisite.sock --workers 2 --threads 8
  multisite serve --bind 0.0.0.0:443 --tls /etc/letsencrypt/live --http2
  multisite serve --publisher publisher.conf
  multisite serve --simulate 1000
"""


@click.command(epilog=SERVE, short_help="Serve the sites from this process.")
@click.option(
    "--bind",
    "binds",
    multiple=True,
    metavar="ADDRESS",
    help="HOST, HOST:PORT, unix:PATH, unix:@NAME (abstract) or fd://N; repeatable.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help=f"Port for addresses without one.  [default: {DEFAULT_PORT}]"
)
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one for each processor, 4 at most]")
@click.option("--threads", type=click.IntRange(1), help=f"Threads in each process.  [default: {DEFAULT_THREADS}]")
@click.option("--tls", metavar="DIR", help="Certificates: DIR/DOMAIN/fullchain.pem and privkey.pem, or DIR/DOMAIN.pem.")
@click.option("--http2", is_flag=True, help="With --tls: offer HTTP/2.")
@click.option("--reload", is_flag=True, help="Load a site again when its code has changed.")
@click.option("--debug", is_flag=True, help="Show tracebacks and werkzeug's debugger; only on loopback addresses.")
@click.option("--unlisted", multiple=True, metavar="SITE", hidden=True, help="Print no address of SITE; repeatable.")
@click.option("--quiet", is_flag=True, help="Do not print a line for each request.")
@click.option(
    "--simulate",
    type=click.IntRange(1, MOST_SIMULATED),
    metavar="N",
    help="Show invented figures of N sites on the status pages.",
)
@click.option("--publisher", metavar="FILE", help="Take server and addresses from FILE; options override it.")
@pass_session
def serve(session: Session, /, publisher: str | None, simulate: int | None, **given: Any) -> None:
    """Serve all enabled sites from this process, for development or without a front end.

    On loopback addresses, each site also answers at http://NAME.localhost, where NAME is the site's name, unless that
    is a domain of another site, and the page for an unknown host lists the sites. For each request, the command prints
    a line on standard error: time, method, host, path, status, duration and site.
    """
    if simulate:
        _simulate(session, simulate)
    if publisher:
        return publish(session, publisher, given)
    serve_here(session, **given)


def _simulate(session: Session, count: int) -> None:
    """Have the server that follows show so many invented sites."""
    if not session.home.service.status_domain:
        file, example = session.home.file, "status_domain = status.localhost"
        fail(f"--simulate: there are no status pages; write {example} into [service] of {file}")
    os.environ[SIMULATE] = str(count)


def publish(session: Session, file: str, given: dict[str, Any]) -> None:
    """Serve the sites of the home with the server that `file` names; `given` are options of the command line."""
    from multisite.config.serving.publisher import read_publisher

    options, written, problems = read_publisher(os.path.abspath(file))
    say_problems(problems)
    if any(problem.is_error for problem in problems):
        raise SystemExit(1)
    if options.type in ("gunicorn", "standalone"):
        return _gunicorn(session, options, written, given)
    options = _overridden(options, given)
    say_problems(enabled_problems(session))
    refuse_taken([] if options.socket else [address_of(options.host, options.bound_port)])
    os.environ["MOYA_SERVICE_HOME"] = session.home.path
    if options.type == "fastcgi":
        return _fastcgi(options)
    _become(options, given)


def _gunicorn(session: Session, options: PublisherOptions, written: dict[str, Any], given: dict[str, Any]) -> None:
    """Serve as `serve` does; options of the command line win."""
    address = f"unix:{options.socket}" if options.socket else options.host
    settings: dict[str, Any] = {
        "binds": (address,),
        "port": options.bound_port,
        "workers": options.processes or options.max_children,
        "threads": options.threads if "threads" in written else None,
        "tls": options.tls or None,
        "debug": options.debug,
    }
    settings |= {key: value for key, value in given.items() if value}
    requests = {"max_requests": options.max_requests, "max_requests_jitter": options.max_requests // 10}
    serve_here(session, **settings, more=requests if options.max_requests else {})


def _overridden(options: PublisherOptions, given: dict[str, Any]) -> PublisherOptions:
    """Replace options of the file by those of the command line."""
    from dataclasses import replace

    foreign = [name for name in ("reload", "debug", "http2", "tls", "quiet", "unlisted") if given.get(name)]
    if foreign:
        raise click.UsageError(f"--{foreign[0]} works only with type = gunicorn, not with {options.type}")
    if len(given.get("binds") or ()) > 1:
        raise click.UsageError(f"{options.type} listens only on one address")
    changes: dict[str, Any] = {"port": given.get("port") or options.port}
    for bind in given.get("binds") or ():
        if bind.startswith(UNIX):
            changes["socket"] = bind.removeprefix(UNIX)
        else:
            host, _, port = address_of(bind, given.get("port") or options.bound_port).rpartition(":")
            changes |= {"host": host.strip("[]"), "port": int(port), "socket": ""}
    changes |= {"processes": given["workers"]} if given.get("workers") else {}
    changes |= {"threads": given["threads"]} if given.get("threads") else {}
    return replace(options, **changes)


def _become(options: PublisherOptions, given: dict[str, Any]) -> None:
    """Replace this process by the server."""
    from multisite.config.serving import publisher
    from multisite.control import program as ours

    name = publisher.PROGRAMS[options.type]
    found = shutil.which(name, path=os.path.dirname(sys.executable)) or shutil.which(name)
    if not found:
        remedy = _REMEDIES.get(options.type, f"pip install {options.type}")
        fail(f"type = {options.type}: {name} is not installed; {remedy}")
    argv = publisher.command(options, found, options.processes or default_workers(alone=False), sys.prefix)
    if os.path.realpath(found).startswith(DEBIAN_UWSGI):  # its Python is a plugin
        argv[1:1] = ["--plugins-dir", "/usr/lib/uwsgi/plugins", "--plugin", "python3"]
    os.execve(found, argv, ours.environment(os.environ))


def _fastcgi(options: PublisherOptions) -> None:
    try:
        from multisite.cli.publishers.fastcgi import Server
    except ImportError:
        fail("type = fastcgi: flup is not installed; pip install 'multisite-wsgi[fastcgi]'")
    from multisite.service import application

    Server(
        application,
        bindAddress=options.socket or (options.host, options.bound_port),
        umask=options.umask,
        minSpare=options.min_children,
        maxSpare=max(options.max_spare, options.min_children),
        maxChildren=options.max_children or 50,
        maxRequests=options.max_requests,
    ).run()
