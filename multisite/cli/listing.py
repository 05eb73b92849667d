"""``multisite list``, ``multisite status`` and ``multisite where``: the sites, their states and their locations."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from multisite.cli import complete
from multisite.cli.output import not_replaced, say, say_json, say_problems, say_table, wide_option
from multisite.cli.session import ALL, Session, UnknownSite, is_wildcard, pass_session, stem_of
from multisite.status.needs import FAILED, state_of

if TYPE_CHECKING:
    from multisite.cli.output import Cell

LIST = """\b
Examples:
  multisite list
  multisite list blog shop
  multisite list 'demo-*'
  multisite --json list
"""
WHERE = """\b
Examples:
  multisite where blog
  cd "$(multisite where blog)"
"""
BROKEN = 3  # the exit status if an enabled site has failed
HEADER = ("name", "domains", "runs", "enabled", "state", "remarks")
HIDDEN = ("runs", "enabled", "remarks", "domains")


@click.command("list", epilog=LIST, short_help="List all sites.")
@wide_option
@click.argument("names", metavar="[NAME...]", nargs=-1, shell_complete=complete.known)
@pass_session
def list_(session: Session, names: tuple[str, ...], wide: bool) -> None:
    """List all sites or those in NAME, whether enabled or not, with domains, state and problems.

    NAME may be a quoted wildcard. The exit status is 3 if an enabled site in the list is broken, backoff or fatal.
    """
    from multisite.status.document import document

    session.warn_of_hidden()
    session.warn_of_drain()
    shown = document(session)
    sites = shown["sites"] = chosen_rows(session, shown["sites"], names)
    if session.as_json:
        say_json(shown)
    elif sites:
        say_table(HEADER, map(_cells, sites), drop=HIDDEN, cut=("remarks", "domains", "name"), wide=wide)
    elif not session.unread:
        say(f"{session.home.path} has no sites; multisite new NAME creates one", err=True)
    files = {site["file"] for site in sites}  # moya.conf has no row
    if sites and not names and not session.as_json:
        say_problems(problem for problem in session.seen(session.catalogue.problems) if problem.file not in files)
    end(sites)


def end(sites: Iterable[dict[str, Any]]) -> None:
    """End with status `BROKEN` if an enabled site has failed."""
    if any(site["enabled"] and site["state"] in FAILED for site in sites):
        raise SystemExit(BROKEN)


def chosen_rows(session: Session, sites: list[dict[str, Any]], names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the rows of the sites in `names`, in the order of the rows; all rows if `names` is empty.

    Raises:
        UnknownSite: a name or a wildcard matches no site.
    """
    called, wanted = {site["name"] for site in sites}, set[str]()
    for name in names:
        if name not in called and (name == ALL or is_wildcard(name)):
            matching = called if name == ALL else set(fnmatch.filter(called, stem_of(name)))
            if not matching:
                raise UnknownSite(f"no site matches {name!r}")
            wanted |= matching
        else:
            wanted.add(name if name in called else session.any_site(name).site.name)
    return [site for site in sites if not names or {site["name"], site.get("template")} & wanted]


@click.command(epilog=WHERE, short_help="Print the location of a site.")
@click.argument("name", shell_complete=complete.known)
@pass_session
def where(session: Session, name: str) -> None:
    """Print the location of the site NAME, enabled or not: its working directory and import path."""
    site = session.any_site(name).site
    say_json({"name": site.name, "location": site.location}) if session.as_json else say(site.location)


def _cells(site: dict[str, Any]) -> tuple[Cell, ...]:
    mount = "" if site["mount"] == "/" else site["mount"]
    domains = tuple(domain + mount for domain in site["domains"])
    problems = site["problems"]
    remarks = f"{len(problems)} problems; multisite check lists them" if problems else ""
    if len(problems) == 1:
        remarks = problems[0]["reason"]
    failure = site["failure"]
    if not remarks and failure and failure.get("serving"):
        remarks = not_replaced(failure["failure"])
    elif not remarks and failure and (site["state"] in FAILED or failure.get("remedy")):
        remarks = failure["failure"] + _remedy(failure)
    elif not remarks and site["saving"]:
        remarks = site["reason"]
    enabled = "yes" if site["enabled"] else "no"
    return site["name"], domains, site["placement"] or "-", enabled, state_of(site), remarks


def _remedy(failure: dict[str, Any]) -> str:
    return f"; {failure['remedy']}" if failure.get("remedy") else ""
