"""``multisite link``: the project in a folder becomes a site at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from multisite.cli.group import fail
from multisite.cli.output import say, say_json, say_problems
from multisite.cli.session import Session, pass_session

if TYPE_CHECKING:
    from multisite.cli.new import Draft
    from multisite.config.model import SiteFile

EPILOG = """\b
Examples:
  multisite link
  multisite link ~/src/wiki
  multisite link --name shop ~/src/django-shop
"""
LOCALHOST = "localhost"
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ODD = re.compile(r"[^a-z0-9]+")


@click.command(epilog=EPILOG, short_help="Make a site from a folder, enable it and print its address.")
@click.option("-n", "--name", help="Name of the site.  [default: name of the folder]")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(file_okay=False))
@pass_session
def link(session: Session, name: str | None, folder: str) -> None:
    """Make a site from the project in DIR, by default the current directory; enable it and print its address.

    As with `multisite new --from`, the command finds the application in the project's files and runs none of its code.
    The domain is NAME.localhost, or NAME under the domain that all your other sites share. If the folder already has a
    site, that site does not change; it is enabled if it was not.
    """
    from multisite.cli.new import draft

    folder = os.path.abspath(os.path.expanduser(folder))
    if not os.path.isdir(folder):
        fail(f"{folder}: there is no such directory")
    found = _site_of(session, {folder})
    if not found:
        made = draft(folder, None)
        found = _site_of(session, {folder, made.settings["location"]})
        if not found:
            return _write(session, _label(name or os.path.basename(folder)), folder, made)
    if name and name not in (found.name, _stem(found)):
        fail(f"{folder} already is the site {found.name}; multisite rename {found.name} {name} gives it another name")
    _enable(session, found, ())


def _label(name: str) -> str:
    """Return the name of the site, which is also part of its domain."""
    label = _ODD.sub("-", name.lower()).strip("-")[:63].rstrip("-")
    return label or fail(f"{name!r} has no letter or digit that could be in a domain; use --name")


def _stem(file: SiteFile) -> str:
    return os.path.basename(os.path.realpath(file.path)).removesuffix(".ini")


def _site_of(session: Session, folders: set[str]) -> SiteFile | None:
    """Return the site whose location is one of these folders, an enabled one if there is one."""
    from multisite.config.read import make_site

    wanted = {os.path.realpath(folder) for folder in folders}
    for file in (*session.catalogue.sites.values(), *session.disabled.values()):
        location = make_site(file, session.home).location
        if location and os.path.realpath(location) in wanted:
            return file
    return None


def habit(sites: Iterable[tuple[str, tuple[str, ...]]]) -> str:
    """Return the domain under which all sites have their names, ``localhost`` if they differ.

    Args:
        sites: names, with the domains of each.
    """
    suffixes: set[str] = set()
    for name, domains in sites:
        first, _, rest = (domains or ("",))[0].partition(".")
        suffixes.add(rest if first == _ODD.sub("-", name.lower()) and _is_domain(rest) else "")
    return suffixes.pop() if len(suffixes) == 1 and "" not in suffixes else LOCALHOST


def _is_domain(text: str) -> bool:
    return all(map(_LABEL.fullmatch, text.split(".")))


def _write(session: Session, name: str, folder: str, made: Draft) -> None:
    """Write the site file, and enable the site."""
    from multisite.cli.scaffold import write_new
    from multisite.config.options import site_template

    path = session.places.source(name)
    domain = f"{name}.{habit((site.name, site.domains) for site in session.catalogue.sites.values())}"
    taken = {*session.catalogue.sites, *(each.name for each in session.disabled.values())}
    text = site_template({"domains": domain, **made.settings}, made.comments, made.static, made.is_there)
    if name in taken or not write_new(path, text):
        fail(f"there already is a site {name}, for another folder; choose another name with --name")
    _enable(session, session.read_available(name), made.comments)


def _enable(session: Session, file: SiteFile, comments: Iterable[str]) -> None:
    """Enable a site, and print its address and its problems."""
    from multisite.cli.switch import Enabling

    is_enabled = file.name in session.catalogue.sites
    if not is_enabled:
        step = Enabling(session).enable(_stem(file))
        if step.action == "refuse":
            fail(f"{file.path} is not enabled: {step.message}")
        del session.catalogue  # out of date now
    _report(session, session.enabled_site(file.name), comments, what="already linked" if is_enabled else "")


def _report(session: Session, file: SiteFile, comments: Iterable[str], what: str) -> None:
    from multisite.cli.site.address import address_of
    from multisite.status.report import problems_of

    problems = problems_of(session, file.name)
    address, note = address_of(session, file)
    if session.as_json:
        document = {"name": file.name, "file": os.path.realpath(file.path), "domains": list(file.domains)}
        listed = [problem.as_dict() for problem in problems]
        say_json({**document, "address": address, "found": list(comments), "problems": listed})
    else:
        for line in comments:
            say(line)
        say(f"{file.name}: {what or os.path.realpath(file.path)}")
        say_problems(problems)
        say(f"{address}{note}")
    if any(problem.is_error for problem in problems):
        raise SystemExit(1)
