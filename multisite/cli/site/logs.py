"""``multisite logs``: the output and the logs of sites, and their access logs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import click

from multisite.cli import complete
from multisite.cli.group import fail
from multisite.cli.output import complain, is_coloured, say, say_json
from multisite.cli.session import Named, Session, pass_session
from multisite.cli.site import loglines
from multisite.cli.site.loglines import Line
from multisite.cli.site.since import FORMS, point_in_time
from multisite.config import hosting
from multisite.errors import MultisiteError
from multisite.logs.kept import instances
from multisite.logs.keptfiles import file_name
from multisite.logs.logfiles import LINES, LOOK_FOR_MORE_EVERY, STREAMS, Tail
from multisite.status.fence import describe
from multisite.status.sight import closed_place, log_folders, privileged, user_name

LOGS = """\b
Examples:
  multisite logs
  multisite logs blog shop -n 100
  multisite logs -f blog
  multisite logs --since 10m
  multisite logs --since '2026-11-29 14:30' --access
"""
LOOK_FOR_SITES_EVERY = 5.0  # seconds between two looks for newly enabled sites while all sites are followed
NO_ACCESS_LOG = "{name} has no access log; multisite set {name} 'logging.access=/var/log/multisite/%(name)s.access.log'"


class Moment(click.ParamType[float]):
    """A point in time on the command line."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds since 1970."""
        try:
            return point_in_time(value, time.time())
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time; give {FORMS}", param, ctx)


@dataclass(frozen=True)
class Source:
    """One file with lines of a site, and how to read them; `older` is the rotated file."""

    name: str
    path: str
    read: Callable[[str, str], Line]
    older: str = ""


@click.command(epilog=LOGS, short_help="Show the output and the logs of sites.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing lines as they come, until interrupted.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help=f"Number of lines; {LINES} without --since.")
@click.option("--since", type=Moment(), help="Only lines since then, such as 10m, 14:30, yesterday or 2026-11-29.")
@click.option("--access", is_flag=True, help="Show the access logs instead.")
@click.argument("names", metavar="[SITE]...", nargs=-1, shell_complete=complete.sites)
@pass_session
def logs(
    session: Session, names: tuple[str, ...], follow: bool, lines: int | None, since: float | None, access: bool
) -> None:
    """Show the last lines that each SITE printed or logged; without SITE, those of all sites.

    Lines of several sites are merged by time. If a site has its own error log ([logging] error), its lines come from
    there; all others have their lines in the state directory. SITE may be a quoted wildcard.
    """
    _show(session, names, follow, lines, since, access)


@click.command(epilog=LOGS, short_help="Follow the output and the logs of sites.")
@click.argument("names", metavar="[SITE]...", nargs=-1, shell_complete=complete.sites)
@pass_session
def tail(session: Session, names: tuple[str, ...]) -> None:
    """Show the last lines of each SITE and all new ones, as `logs -f` does."""
    _show(session, names, follow=True)


def _show(
    session: Session,
    names: tuple[str, ...],
    follow: bool = False,
    count: int | None = None,
    since: float | None = None,
    access: bool = False,
) -> None:
    chosen = session.chosen(names or session.catalogue.sites)
    sources = _sources(session, chosen, access)
    if access and not sources:
        fail(NO_ACCESS_LOG.format(name=chosen[0].site.name if names else "NAME"))
    wanted = count if count is not None else LINES if since is None else None
    screen = Screen(session.as_json, {named.site.name for named in chosen} if len(chosen) != 1 else set())
    with ExitStack() as stack:
        _refuse_hidden(session, sources)
        followed = _Followed(sources, stack, waits=follow)
        found = followed.begin(wanted, since or 0.0)
        if not found and not access:
            found = [line for named in chosen for line in _printed(session, named)] if since is None else []
        if follow:
            screen.show_each(found)
            _follow(session, followed, screen, None if names else access)
        elif session.as_json:
            say_json({"lines": [line.as_dict() for line in found]})
        else:
            screen.show_each(found)
            if not found:
                say("no lines logged" + (" since then" if since else ""), err=True)


def _sources(session: Session, chosen: list[Named], access: bool) -> list[Source]:
    """Return the files with the lines of sites, each file once: several sites may share one."""
    found: dict[str, Source] = {}
    for named in chosen:
        site = named.site
        path = site.access_log if access else site.error_log
        is_file = path and path not in STREAMS and not path.startswith("syslog:")
        if is_file and "%" not in path:
            found.setdefault(path, Source(site.name, path, loglines.access if access else loglines.error))
        for folder in log_folders(session.home) if not access else ():
            for name in (site.name, *(instances(folder, site.name) if hosting.is_hosting(site.location) else ())):
                kept = os.path.join(folder, file_name(name))
                found[kept] = Source(name, kept, loglines.kept, f"{kept}.1")
    return list(found.values())


def _refuse_hidden(session: Session, sources: list[Source]) -> None:
    """End the command if this user may read none of the files; warn if only some are hidden."""
    places = [closed_place(source.path) for source in sources]
    hidden = list(dict.fromkeys(filter(None, places)))
    if not hidden:
        return
    again = privileged(session.home)
    what = f"the user '{user_name(os.geteuid())}' may not read {hidden[0]}" + (f"; use {again}" if again else "")
    readable = (source.path for source, place in zip(sources, places, strict=True) if not place)
    if not any(map(os.path.exists, readable)):
        fail(what)
    complain("warning", f"some lines are missing: {what}")


def _printed(session: Session, named: Named) -> list[Line]:
    """Return the output of the newest process that the supervisor remembers, without times."""
    answer = session.ask("logs", **named.request)
    return [Line(0.0, named.site.name, "INFO", text) for text in (answer["lines"] if answer else ())]


def last_lines(session: Session, named: Named, count: int) -> list[Line]:
    """Return the last lines that a site printed or logged, as far as this user may read them."""
    with ExitStack() as stack:
        sources = [source for source in _sources(session, [named], access=False) if not closed_place(source.path)]
        return _Followed(sources, stack, waits=False).begin(count, 0.0) or _printed(session, named)[-count:]


class _Followed:
    """Files that are read to the end and then followed."""

    def __init__(self, sources: list[Source], stack: ExitStack, waits: bool) -> None:
        self._stack, self._waits = stack, waits
        self._tails: dict[Source, Tail] = {}
        self.add(sources)

    def add(self, sources: list[Source]) -> None:
        """Read more files; a missing file is not an error."""
        for source in sources:
            if source in self._tails:
                continue
            try:
                self._tails[source] = self._stack.enter_context(Tail(source.path, waits=self._waits))
            except FileNotFoundError:
                pass
            except OSError as error:
                if not closed_place(source.path):  # already reported
                    complain("warning", describe(error))

    def begin(self, count: int | None, since: float) -> list[Line]:
        """Return the last lines of all files, `count` at most (None: all of them), written at `since` or later."""
        found = loglines.merged(_last(source, tail, count, since) for source, tail in self._tails.items())
        late = [line for line in found if line.at >= since]
        return late if count is None else late[len(late) - min(count, len(late)) :]

    def look(self) -> list[Line]:
        """Return the new lines."""
        logs = []
        for source, tail in self._tails.items():
            with suppress(PermissionError):
                lines = tail.look()[0]
                logs.append(loglines.timed((source.read(source.name, text) for text in lines), time.time()))
        return loglines.merged(logs)


def _last(source: Source, tail: Tail, count: int | None, since: float) -> list[Line]:
    def lines(texts: list[str]) -> list[Line]:
        return [source.read(source.name, text) for text in texts]

    def is_enough(texts: list[str]) -> bool:
        if count is not None:
            return len(texts) >= count
        first = next((line.at for line in lines(texts) if line.at), 0.0)
        return 0.0 < first < since

    found = lines(tail.begin(is_enough))
    older = source.older and (count is None or len(found) < count)
    if older:
        with suppress(OSError), Tail(source.older) as before:
            found = lines(before.begin(is_enough)) + found
    with suppress(OSError):
        return loglines.timed(found, os.stat(source.path).st_mtime)
    return found


class Screen:
    """Prints lines, or one JSON document a line for programs; `names` is for the column of names, if there is one."""

    def __init__(self, as_json: bool, names: set[str]) -> None:
        self._as_json = as_json
        self._width = max(map(len, names), default=0)
        self._coloured = is_coloured()

    def show_each(self, lines: list[Line]) -> None:
        """Print lines."""
        for line in lines:
            if self._as_json:
                say_json(line.as_dict(), indent=None)
            else:
                click.echo(loglines.shown(line, self._width, self._coloured), color=self._coloured)


def _follow(session: Session, followed: _Followed, screen: Screen, all_of: bool | None) -> None:
    """Print new lines until interrupted.

    Args:
        all_of: whether to follow access logs (True) or error logs (False) of all sites, new ones included; None:
            follow only the sites that were named.
    """
    look_for_sites_at = time.monotonic() + LOOK_FOR_SITES_EVERY
    while True:
        screen.show_each(followed.look())
        if all_of is not None and time.monotonic() >= look_for_sites_at:
            look_for_sites_at = time.monotonic() + LOOK_FOR_SITES_EVERY
            fresh = Session(session.home_path)
            with suppress(MultisiteError, OSError):
                followed.add(_sources(fresh, fresh.chosen(fresh.catalogue.sites), all_of))
        time.sleep(LOOK_FOR_MORE_EVERY)
