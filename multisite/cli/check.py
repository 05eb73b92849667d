"""``multisite check``: all problems of all files in one run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import click

from multisite.cli import complete
from multisite.cli.group import fenced
from multisite.cli.output import say, say_json, say_problems, waiting, wide_option
from multisite.cli.session import Session, UnknownSite, pass_session

if TYPE_CHECKING:
    from multisite.errors import Problem
    from multisite.sites.placement import Saving

EPILOG = """\b
Examples:
  multisite check
  multisite check blog
  multisite --json check
  multisite check --boot
  multisite check --boot blog shop
"""


@click.command(epilog=EPILOG, short_help="Check the configuration of all sites.")
@click.option("--boot", is_flag=True, help="Start each site once in a test process.")
@wide_option
@click.argument("names", metavar="[NAME...]", nargs=-1, shell_complete=complete.sites)
@pass_session
def check(session: Session, boot: bool, wide: bool, names: tuple[str, ...]) -> None:
    """Check moya.conf, logging.ini and all site files, or only the sites in NAME; exit status 1 if there is an error.

    Files that are not enabled are checked, too. Their problems are listed separately and count only if the site is in
    NAME. No application is imported; the command looks for the callable in the source text.

    With --boot, the command starts all enabled sites, or those in NAME, once in a test process with its own socket,
    requests their smoke_path, if any, and stops them; exit status 1 if one does not start. Running processes are not
    affected.
    """
    if boot:
        from multisite.cli.trialruns import check_by_booting

        return check_by_booting(session, names, wide)
    if names:
        return _check_named(session, names)
    enabled = enabled_problems(session)
    idle = disabled_problems(session)
    errors = sum(problem.severity == "error" for problem in enabled)
    if session.as_json:
        notes = [{"name": name, "note": saving.sentence, **asdict(saving)} for name, saving in savings(session)]
        say_json({"errors": errors, "problems": [*_rows(enabled, True), *_rows(idle, False)], "notes": notes})
    else:
        say_problems(enabled, err=False)
        say_problems(idle, err=False, prefix="not enabled: ")
        for name, saving in savings(session):
            say(f"note: {name} {saving.sentence}")
        _sum_up(session, errors, len(enabled) - errors)
    if errors:
        raise SystemExit(1)


def _check_named(session: Session, names: tuple[str, ...]) -> None:
    """Check some sites, enabled or not."""
    from multisite.status.report import problems_of, problems_of_file

    enabled: list[Problem] = []
    idle: list[Problem] = []
    for name in names:
        try:
            chosen = session.chosen([name])
        except UnknownSite:
            idle += session.seen(problems_of_file(session, session.known_site(name)))
        else:
            enabled += (problem for one in chosen for problem in problems_of(session, one.site.entry_name))
    found = list(dict.fromkeys([*enabled, *idle]))
    errors = sum(problem.is_error for problem in found)
    if session.as_json:
        say_json({"errors": errors, "problems": [*_rows(enabled, True), *_rows(idle, False)], "notes": []})
    else:
        say_problems(found, err=False)
        if not found:
            say(f"{', '.join(names)}: no problems")
    if errors:
        raise SystemExit(1)


def enabled_problems(session: Session) -> list[Problem]:
    """Return the problems of the home, its logging.ini, its enabled sites, and the places that these name."""
    from multisite.cli import routing
    from multisite.cluster import engines, keyfile, nodes
    from multisite.control.rundir import access_problem
    from multisite.logs import servicelog
    from multisite.status import places
    from multisite.status.report import problems_of
    from multisite.status.sight import service_uid

    group = access_problem(session.home, service_uid(session.home))
    found = [
        *servicelog.problems_of(session.home),
        *places.home_problems(session.home),
        *routing.problems(session.home),
        *nodes.problems(session.home),
        *engines.problems(session.home),
        *keyfile.problems(session.home),
        *session.seen(session.catalogue.problems),
        *([group] if group else []),
    ]
    names = list(session.catalogue.sites)
    with waiting() as show:
        for number, name in enumerate(names, 1):
            show(f"checking {name} ({number} of {len(names)})")
            found += problems_of(session, name)
    return list(dict.fromkeys(found))


def savings(session: Session) -> Iterator[tuple[str, Saving]]:
    """Yield the enabled sites that should share, and the memory that this would save."""
    from multisite.status.report import saving

    def of_site(name: str) -> Saving | None:
        return saving(session, session.catalogue.site(name))

    for name in sorted(session.placements.rows().keys() & session.catalogue.sites.keys()):
        found = fenced(session, name, partial(of_site, name), lambda reason: None)  # it is among the problems
        if found:
            yield name, found


def disabled_problems(session: Session) -> list[Problem]:
    """Return the problems of the site files that no link enables."""
    return session.seen(problem for file in session.disabled.values() for problem in file.problems)


def _rows(problems: Iterable[Problem], enabled: bool) -> Iterator[dict[str, object]]:
    return ({**problem.as_dict(), "enabled": enabled} for problem in problems)


def _sum_up(session: Session, errors: int, warnings: int) -> None:
    if not errors:
        tail = f" ({_count(warnings, 'warning')})" if warnings else ""
        return say(f"{session.home.path}: {_count(len(session.catalogue.sites), 'site')}, no errors{tail}")
    say(f"multisite: {session.home.path}: {_count(errors, 'error')}, {_count(warnings, 'warning')}", err=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
