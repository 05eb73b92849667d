"""``multisite serve``: a server in this process, or in its place, with the sites of the home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from multisite.cli.serving import DEFAULT_PORT, DEFAULT_THREADS, serve_here
from multisite.cli.session import Session, pass_session

if TYPE_CHECKING:
    pass


EPILOG = """\b
Examples:
  multisite serve
  multisite serve --port 8080 --reload --debug
  multisite serve --bind 0.0.0.0:80 --bind unix:/run/multisite.sock --workers 2 --threads 8
  multisite serve --bind 0.0.0.0:443 --tls /etc/letsencrypt/live --http2
  multisite serve --publisher publisher.conf
"""


@click.command(epilog=EPILOG, short_help="Serve the sites from this process.")
@click.option(
    "--bind",
    "binds",
    multiple=True,
    metavar="ADDRESS",
    help="HOST, HOST:PORT, unix:PATH, unix:@NAME (abstract) or fd://N; repeatable.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help=f"Port of addresses without one.  [default: {DEFAULT_PORT}]"
)
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one for each processor, 4 at most]")
@click.option("--threads", type=click.IntRange(1), help=f"Threads of each process.  [default: {DEFAULT_THREADS}]")
@click.option("--tls", metavar="DIR", help="Certificates: DIR/DOMAIN/fullchain.pem and privkey.pem, or DIR/DOMAIN.pem.")
@click.option("--http2", is_flag=True, help="Offer HTTP/2, with --tls.")
@click.option("--reload", is_flag=True, help="Load a site anew when its code has changed.")
@click.option("--debug", is_flag=True, help="Show tracebacks and werkzeug's debugger; on loopback addresses only.")
@click.option("--publisher", metavar="FILE", help="File that says which server listens where; options override it.")
@pass_session
def serve(session: Session, /, publisher: str | None, **given: Any) -> None:
    """Serve the sites of the home from this process, for development or without a front end.

    On loopback addresses each site answers at http://NAME.localhost, too, where NAME is its own and no domain claims
    that.
    """
    if publisher:
        from multisite.cli.publish import publish

        return publish(session, publisher, given)
    serve_here(session, **given)
