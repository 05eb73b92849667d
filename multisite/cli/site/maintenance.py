"""``multisite maintenance``, ``pause`` and ``resume``: take sites out of service for a while."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from multisite.cli import complete
from multisite.cli.group import fenced
from multisite.cli.output import say, say_json
from multisite.cli.session import Session, pass_session
from multisite.errors import MultisiteError
from multisite.sites.outages import LONGEST_PAGE, MAINTENANCE, PAUSED, Outage

if TYPE_CHECKING:
    from collections.abc import Callable

MAINTENANCE_EPILOG = """\b
Examples:
  multisite maintenance blog on
  multisite maintenance blog on --page back-at-noon.html
  multisite maintenance blog off
  multisite maintenance 'shop-*' on
"""
PAUSE = """\b
Examples:
  multisite pause blog
  multisite pause 'shop-*'
"""
RESUME = """\b
Examples:
  multisite resume blog
  multisite resume all
"""
ON, OFF = "on", "off"
NOTICED = 1.1  # seconds until every worker has noticed, with a margin (`multisite.sites.live.LOOK_EVERY`)
MEDIA_TYPES = {".txt": "text/plain", ".json": "application/json", ".xhtml": "application/xhtml+xml"}


class BadPage(MultisiteError):
    """The page for visitors cannot be used."""

    id = "MS914"


@click.command(epilog=MAINTENANCE_EPILOG, short_help="Show a maintenance page instead of sites.")
@click.option("--page", metavar="FILE", help="Show a copy of this page instead of the default one.")
@click.argument("words", metavar="SITE... on|off", nargs=-1, required=True, shell_complete=complete.switched)
@pass_session
def maintenance(session: Session, page: str | None, words: tuple[str, ...]) -> None:
    """Answer all requests for SITE with a maintenance page (503 and Retry-After), or end that.

    Static files are served as before, and no request starts a process. Running processes finish their requests.
    Maintenance lasts until you switch it off, even if the servers, the supervisor or the machine restart. `all` means
    all enabled sites, a quoted wildcard those that match.
    """
    *names, switch = words
    if switch not in (ON, OFF) or not names:
        raise click.UsageError(f"give the sites, then on or off: multisite maintenance {words[0]} on")
    if switch == OFF:
        if page is not None:
            raise click.UsageError("--page needs on")
        return _end(session, names, MAINTENANCE, "maintenance is over", "it was not in maintenance")
    begun = Outage(MAINTENANCE, time.time(), *(_page(page) if page is not None else ()))
    _begin(session, names, begun, "in maintenance")


@click.command(epilog=PAUSE, short_help="Make new requests for sites wait.")
@click.argument("names", metavar="SITE...", nargs=-1, required=True, shell_complete=complete.sites)
@pass_session
def pause(session: Session, names: tuple[str, ...]) -> None:
    """Make all new requests for SITE wait until `resume`; after the site's pause_timeout, they get a 503.

    The site finishes the requests that it already has. Its processes keep running, and its static files are served. A
    pause lasts until you end it, even if the servers, the supervisor or the machine restart. `all` means all enabled
    sites, a quoted wildcard those that match.
    """
    _begin(session, names, Outage(PAUSED, time.time()), "paused")


@click.command(epilog=RESUME, short_help="End the pause of sites.")
@click.argument("names", metavar="SITE...", nargs=-1, required=True, shell_complete=complete.sites)
@pass_session
def resume(session: Session, names: tuple[str, ...]) -> None:
    """End the pause of SITE: it answers the waiting requests, and new ones as usual.

    `all` means all enabled sites, a quoted wildcard those that match.
    """
    _end(session, names, PAUSED, "resumed", "it was not paused")


def _page(path: str) -> tuple[str, str]:
    """Return the text of a page and its media type.

    Raises:
        BadPage: the page cannot be used.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(4 * LONGEST_PAGE).decode("utf-8-sig")
    except OSError as error:
        raise BadPage(f"{path}: {(error.strerror or 'cannot be read').lower()}; name a file to show") from None
    except UnicodeDecodeError:
        raise BadPage(f"{path} is not UTF-8 text; save it as UTF-8") from None
    if not text.strip() or len(text) > LONGEST_PAGE:
        size = f"longer than {LONGEST_PAGE} characters; put pictures in [static]" if text.strip() else "empty"
        raise BadPage(f"{path} is {size}")
    media_type = MEDIA_TYPES.get(os.path.splitext(path)[1].lower(), "text/html")
    return text, f"{media_type}; charset=utf-8"


def _begin(session: Session, names: Iterable[str], outage: Outage, done: str) -> None:
    sites = [named.site.name for named in session.chosen(names)]

    def begin(name: str) -> str:
        session.outages.begin(name, outage)
        return done

    _switch(session, {name: partial(begin, name) for name in sites}, outage.kind)


def _end(session: Session, names: Iterable[str], kind: str, done: str, otherwise: str) -> None:
    """Put sites back into service, including any that have been disabled in the meantime."""
    noted = [name for name in names if kind in session.outages.named(name)]
    sites = [*noted, *(named.site.name for named in session.chosen(name for name in names if name not in noted))]

    def end(name: str) -> str:
        return done if session.outages.end(name, kind) else otherwise

    _switch(session, {name: partial(end, name) for name in sites}, None)


def _switch(session: Session, steps: dict[str, Callable[[], str]], service: str | None) -> None:
    """Take a step for each site, wait until all workers know, and print the results; exit status 1 if one failed."""
    failed: dict[str, str] = {}
    done = {name: fenced(session, name, step, partial(failed.setdefault, name)) for name, step in steps.items()}
    if len(failed) < len(done):
        _await(session)
    rows: list[dict[str, Any]] = [
        {"name": name, "error": each} if name in failed else {"name": name, "service": service, "done": each}
        for name, each in done.items()
    ]
    if session.as_json:
        say_json({"sites": rows})
    for name, each in () if session.as_json else done.items():
        say(f"multisite: {name}: {each}" if name in failed else f"{name}: {each}", err=name in failed)
    if failed:
        raise SystemExit(1)


def _await(session: Session) -> None:
    """Make the supervisor look, and wait for the workers, so that the change is in force when the command ends."""
    with contextlib.suppress(MultisiteError):  # it looks by itself within a second, and another user's refuses us
        session.ask("reload")
    time.sleep(NOTICED)
