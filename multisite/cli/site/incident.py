"""``multisite incident``: what failed under the id that an error page shows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from multisite.cli import complete
from multisite.cli.group import fail
from multisite.cli.output import complain, say, say_json, say_paragraph, say_table
from multisite.cli.session import Session, pass_session
from multisite.status import incidents
from multisite.status.sight import privileged, user_name

if TYPE_CHECKING:
    from multisite.status.incidents import Incident

EPILOG = """\b
Examples:
  multisite incident
  multisite incident 3fa9c1d2
  multisite incident --site blog -n 5
  multisite --json incident 3fa9c1d2
"""
NONE_YET = "no incidents"


@click.command(epilog=EPILOG, short_help="Show what failed under an incident id.")
@click.argument("incident", metavar="[ID]", required=False, shell_complete=complete.incidents)
@click.option(
    "-n", "--lines", "most", default=20, type=click.IntRange(1, 1000), help="How many to list; 20 by default."
)
@click.option("--site", "name", metavar="SITE", help="List those of one site.", shell_complete=complete.sites)
@pass_session
def incident(session: Session, incident: str | None, most: int, name: str | None) -> None:
    """Show the incident ID: its time, site, request, cause, remedy and traceback, and what has been done since.

    ID is the id on an error page, and in the log. Without ID, the last incidents are listed.
    """
    if incident:
        _show_one(session, incident)
        return
    site = session.named(name).site.name if name else ""
    found = incidents.latest(session.home, most, site)
    _warn_of_closed(session)
    if session.as_json:
        say_json({"incidents": [one.as_dict() for one in found]})
    elif found:
        header = ("incident", "time", "site", "request", "cause")
        rows = [(one.incident, _time(one.at), one.site or "-", _request(one) or "-", one.cause) for one in found]
        say_table(header, rows, cut=("cause", "request"))
    else:
        say(NONE_YET, err=True)


def _show_one(session: Session, name: str) -> None:
    wanted = name.strip().lower().removeprefix("incident ")
    found = incidents.find(session.home, wanted)
    if not found:
        _warn_of_closed(session)
        fail(f"there is no incident {name}, or no longer; multisite incident lists the last ones")
    if session.as_json:
        say_json(found.as_dict())
        return
    say(f"incident {found.incident}")
    for label, text in _facts(found):
        say_paragraph(f"{label + ':':<10}{text}", indent=" " * 10)
    for deed in found.since:
        say_paragraph(
            f"since:    {_time(deed['at'])} {deed['did']}{deed['text'] and ': ' + deed['text']}", indent=" " * 10
        )
    for label, lines in (("output", found.output), ("traceback", found.traceback)):
        if lines:
            say(f"{label}:")
            for line in lines:
                say(f"    {line}")


def _facts(found: Incident) -> list[tuple[str, str]]:
    facts = [
        ("time", _time(found.at)),
        ("site", found.site),
        ("request", _request(found)),
        ("cause", found.cause),
        ("remedy", found.remedy),
    ]
    return [(label, text) for label, text in facts if text]


def _request(found: Incident) -> str:
    asked = found.request
    return f"{asked['method']} {asked['host']}{asked['path']}" if asked else ""


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _warn_of_closed(session: Session) -> None:
    """Print on stderr that this user may not see all incidents."""
    import os

    place = incidents.closed(session.home)
    if place:
        again = privileged(session.home)
        what = f"{place} is closed to the user '{user_name(os.geteuid())}'" + (f"; use {again}" if again else "")
        complain("warning", f"some incidents are missing: {what}")
