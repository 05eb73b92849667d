"""``multisite hosts``: which site answers each host, and which file claims it."""

from __future__ import annotations

from typing import Any

import click

from multisite.cli.output import say, say_json, say_table, wide_option
from multisite.cli.session import Session, pass_session

EPILOG = """\b
Examples:
  multisite hosts
  multisite hosts --json
"""
HEADER = ("host", "site", "rule", "file")


@click.command(epilog=EPILOG, short_help="List the hosts, each with its site and file.")
@wide_option
@pass_session
def hosts(session: Session, wide: bool) -> None:
    """List the hosts of all enabled sites, each with the site and the file that claims it.

    Exact domains come first, then patterns in the order in which they are tried, then the default site.
    """
    found = rows(session)
    if session.as_json:
        return say_json({"hosts": found})
    if not found:
        return say(f"{session.home.path}: no site is enabled", err=True)
    say_table(HEADER, map(_cells, found), drop=("rule", "file"), cut=("file", "host", "site"), wide=wide)


def rows(session: Session) -> list[dict[str, Any]]:
    """Describe each claim on a host, in the order in which they are tried; longer mounts of a host come first."""
    catalogue = session.catalogue
    found = [
        _row(session, claim.domain, mount, name, rule)
        for claim, rule in catalogue.table.claims()
        for mount, name in claim.value
    ]
    default = session.home.service.default_site
    return [*found, *([_row(session, "", "/", default, "default site")] if default in catalogue.entries else ())]


def _row(session: Session, host: str, mount: str, name: str, rule: str) -> dict[str, Any]:
    return {"host": host, "mount": mount, "name": name, "rule": rule, "file": session.catalogue.entries[name].path}


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    mount = "" if row["mount"] == "/" else row["mount"]
    return (row["host"] or "any other host") + mount, row["name"], row["rule"], row["file"]
