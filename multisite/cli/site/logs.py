"""``multisite logs``: what a site printed and logged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from multisite.cli import complete
from multisite.cli.group import fail
from multisite.cli.output import say, say_json
from multisite.cli.session import Named, Session, pass_session
from multisite.logs.logfiles import STREAMS, Tail, last_lines

LOGS = """\b
Examples:
  multisite logs blog
  multisite logs -f blog
"""
NOWHERE = (
    "{name} has no log of its own, and what it says goes to the service's log; to give it one, write "
    "error = /var/log/multisite/%(name)s.error.log below [logging] in {file}"
)


@click.command(epilog=LOGS, short_help="Show what a site printed and logged.")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is said, until interrupted.")
@click.argument("name", shell_complete=complete.sites)
@pass_session
def logs(session: Session, name: str, follow: bool) -> None:
    """Show the last lines of the error log of the site NAME, or the last that its processes printed.

    A site that shares the workers' interpreter has lines of its own only in the file that its [logging] error names.
    """
    _show(session, name, follow)


@click.command(epilog=LOGS, short_help="Follow what a site prints and logs.")
@click.argument("name", shell_complete=complete.sites)
@pass_session
def tail(session: Session, name: str) -> None:
    """Show the last lines of the site NAME and those that follow, as `logs -f` does."""
    _show(session, name, follow=True)


def _show(session: Session, name: str, follow: bool) -> None:
    named = session.named(name)
    if follow:
        for more in _follow(session, named):
            _say_lines(more)
        return
    lines = _lines(session, named)
    if session.as_json:
        return say_json({"name": named.site.name, "lines": lines})
    _say_lines(lines)
    if not lines and not _file(named) and not _has_processes(session, named):
        say(_nowhere(named), err=True)


def _file(named: Named) -> str:
    """Return the path of the site's own log, "" where that is nothing to be read back."""
    log = named.site.error_log
    return "" if log.startswith("syslog:") or log in STREAMS else log


def _lines(session: Session, named: Named) -> list[str]:
    path = _file(named)
    try:
        found = last_lines(path) if path else []
    except OSError:
        printed = _printed(session, named)
        if not printed:
            raise
        return printed
    return found or _printed(session, named)


def _printed(session: Session, named: Named) -> list[str]:
    """Return what the supervisor keeps of the output of the newest process."""
    answer = session.ask("logs", **named.request)
    return list(answer["lines"]) if answer else []


def _follow(session: Session, named: Named) -> Iterator[list[str]]:
    path = _file(named)
    if path:
        with Tail(path, waits=True) as tail:
            yield tail.begin()
            yield from tail.more()
    elif not _has_processes(session, named):
        fail(_nowhere(named))
    else:
        yield from _printed_from_now_on(session, named)


def _printed_from_now_on(session: Session, named: Named) -> Iterator[list[str]]:
    from multisite.control.client import NotRunning

    try:
        for answer in session.client.follow({"do": "logs", **named.request, "follow": True}):
            yield answer["lines"]
    except NotRunning:
        fail("no supervisor runs, so there is nothing to follow")


def _has_processes(session: Session, named: Named) -> bool:
    """Tell whether the site has processes of its own, or has had some that the supervisor knows of."""
    from multisite.cli.sitestate import judge

    if named.site.host or _printed(session, named):
        return True
    return judge(session, named.site).placement == "spawned"


def _nowhere(named: Named) -> str:
    """Say where the lines of a site are that has no file of its own."""
    log = named.site.error_log
    if log:
        where = "syslog" if log.startswith("syslog:") else "the service's output"
        return f"[logging] error of {named.site.file} has the lines of {named.site.name} go to {where}; read them there"
    return NOWHERE.format(name=named.site.name, file=named.site.file)


def _say_lines(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)
