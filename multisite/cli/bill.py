"""``multisite bill``: what each site has cost."""

from __future__ import annotations

import csv
import fnmatch
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import click

from multisite.cli import complete
from multisite.cli.output import printable, say, say_json, say_table, wide_option
from multisite.cli.session import ALL, Session, is_wildcard, pass_session, stem_of
from multisite.cli.stats import size

EPILOG = """\b
Examples:
  multisite bill
  multisite bill blog 'demo-*' --month
  multisite bill --month 2026-10 --csv > october.csv
"""
THIS_MONTH = "this"
HEADER = ("name", "cpu", "memory", "requests", "received", "sent", "starts")
DROP = ("received", "starts", "sent")
FIGURES = ("cpu", "memory", "requests", "received", "sent", "starts")
COLUMNS = (
    *("day", "site", "cpu_seconds", "memory_mib_seconds", "requests"),
    *("received_bytes", "sent_bytes", "starts"),
)
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet begins to calculate at


@click.command(epilog=EPILOG, short_help="Show what each site has cost.")
@wide_option
@click.option(
    "--month",
    is_flag=False,
    flag_value=THIS_MONTH,
    default="",
    metavar="[YYYY-MM]",
    help="A calendar month, without a value this one; default: the last 30 days.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print a line for each site and day, for spreadsheets.")
@click.argument("names", metavar="[SITE]...", nargs=-1, shell_complete=complete.sites)
@pass_session
def bill(session: Session, names: tuple[str, ...], month: str, as_csv: bool, wide: bool) -> None:
    """Show processor time, memory, requests, bytes and starts of all sites, or of each SITE, with their sums.

    Memory is measured as its proportional set size times the time it was used: 1 GiB h is a gibibyte for an hour. Days
    are those of UTC, and are kept for 400 days, those of removed sites included.
    """
    from multisite.status.charges import charges, span

    session.warn_of_hidden()
    now = time.time()
    try:
        first, last = span(time.strftime("%Y-%m", time.gmtime(now)) if month == THIS_MONTH else month, now)
    except ValueError as error:
        raise click.BadParameter(f"{error}; names of sites stand before it", param_hint="--month") from None
    _catch_up(session)
    told = charges(session.home, first, last, _chosen(session, names))
    if session.as_json:
        return say_json(told)
    if as_csv:
        return _write(told["sites"])
    if not told["sites"]:
        return say(f"nothing was used from {first} to {last}", err=True)
    rows = [*told["sites"], {"name": "total", **told["total"]}]
    say_table(HEADER, map(_cells, rows), numbers=HEADER[1:], drop=DROP, cut=("name",), wide=wide)
    say(f"from {first} to {last} (UTC)")


def _catch_up(session: Session) -> None:
    """Bill what workers have counted where no supervisor does it."""
    from multisite.sites.usage import FOLDER
    from multisite.supervisor.bill import Bill

    if session.hidden or session.supervisor or not os.access(session.home.state_dir, os.W_OK):
        return
    folder = os.path.join(session.home.runtime_dir, FOLDER)
    Bill(session.home, folder, session.tallies).write(session.tallies, time.monotonic())


def _chosen(session: Session, names: Iterable[str]) -> Callable[[str], bool]:
    """Return what tells whether a site is meant; a hosting site stands for its instances, too.

    Raises:
        UnknownSite: nothing is called so, and nothing was.
    """
    from multisite.config.hosting import split_name
    from multisite.sites.spending import Days

    wanted, patterns = set[str](), list[str]()
    for name in names:
        if name == ALL or is_wildcard(name):
            patterns.append("*" if name == ALL else stem_of(name))
        else:
            wanted.add(name)
    days = Days(session.home)
    billed = {name for day in days.all() for name in days.read(day)[0]} if wanted - set(session.catalogue.sites) else ()
    wanted = {name if name in billed else session.any_site(name).site.name for name in wanted}

    def is_meant(name: str) -> bool:
        meant = {name, split_name(name)[0]} & wanted
        return not (wanted or patterns) or bool(meant) or any(fnmatch.fnmatch(name, one) for one in patterns)

    return is_meant


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        f"{row['cpu']:.1f} s" if row["cpu"] < 3600 else f"{row['cpu'] / 3600:.1f} h",
        f"{row['memory'] / 1024 / 3600:.2f} GiB h",
        str(row["requests"]),
        size(row["received"]),
        size(row["sent"]),
        str(row["starts"]),
    )


def _write(sites: Iterable[dict[str, Any]]) -> None:
    """Write a line for each site and day, by day; no cell is a formula."""
    lines = sorted((day["day"], site["name"], *(day[key] for key in FIGURES)) for site in sites for day in site["days"])
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((day, harmless(name), *figures) for day, name, *figures in lines)


def harmless(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula, and that steers no terminal."""
    return f"'{printable(text)}" if text.startswith(FORMULAS) else printable(text)
