"""``multisite list`` and ``multisite where``: which sites there are and where they live."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from multisite.cli import complete
from multisite.cli.output import GOES_ON, say, say_json, say_paragraph, say_problems, say_table, wide_option
from multisite.cli.session import ALL, Session, UnknownSite, is_wildcard, pass_session, stem_of
from multisite.status.needs import FAILED, state_of

if TYPE_CHECKING:
    from multisite.cli.output import Cell
    from multisite.errors import Problem

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
BROKEN = 3  # the exit status where an enabled site is
HEADER = ("name", "domains", "runs", "enabled", "state", "remarks")
HIDDEN = ("runs", "enabled", "remarks", "domains")


@click.command("list", epilog=LIST, short_help="List all sites.")
@wide_option
@click.argument("names", metavar="[NAME...]", nargs=-1, shell_complete=complete.known)
@pass_session
def list_(session: Session, names: tuple[str, ...], wide: bool) -> None:
    """List all sites, or those that are named: enabled, available, broken.

    NAME may be a quoted wildcard. The exit status is 3 if an enabled site in the list is broken, backoff or fatal.
    """
    from multisite.status.document import document

    session.warn_of_hidden()
    told = document(session)
    sites = told["sites"] = chosen_rows(session, told["sites"], names)
    if session.as_json:
        say_json(told)
    elif sites:
        say_table(HEADER, map(_cells, sites), drop=HIDDEN, cut=("remarks", "domains", "name"), wide=wide)
    elif not session.unread:
        say(f"{session.home.path} has no sites; multisite new NAME makes one", err=True)
    files = {site["file"] for site in sites}  # moya.conf has no row
    if sites and not names and not session.as_json:
        say_problems(problem for problem in session.seen(session.catalogue.problems) if problem.file not in files)
    _end(sites)


def _end(sites: Iterable[dict[str, Any]]) -> None:
    """End with status `BROKEN` if an enabled site is."""
    if any(site["enabled"] and site["state"] in FAILED for site in sites):
        raise SystemExit(BROKEN)


def chosen_rows(session: Session, sites: list[dict[str, Any]], names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the rows of the sites that are named, in their order; all of them where none is.

    Raises:
        UnknownSite: a name or a wildcard stands for none.
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
    told = f"{len(problems)} problems; multisite check lists them" if problems else ""
    if len(problems) == 1:
        told = problems[0]["reason"]
    failure = site["failure"]
    if not told and failure and failure.get("serving"):
        told = f"{GOES_ON} failed: {failure['failure']}"
    elif not told and failure and (site["state"] in FAILED or failure.get("remedy")):
        told = failure["failure"] + _remedy(failure)
    elif not told and site["saving"]:
        told = site["reason"]
    enabled = "yes" if site["enabled"] else "no"
    return site["name"], domains, site["placement"] or "-", enabled, state_of(site), told


STATUS = """\b
Examples:
  multisite status
  multisite status blog 'demo-*'
  multisite status --failed
  multisite --json status
"""
STATUS_HEADER = (
    *("name", "runs", "state", "pids", "up"),
    *("requests", "errors", "in flight", "waiting", "starts", "cpu", "memory", "idle"),
)
NUMBERS = STATUS_HEADER[4:]
DROP = ("cpu", "starts", "up", "waiting", "runs", "idle", "errors", "in flight")


@click.command(epilog=STATUS, short_help="Show the processes of all sites.")
@wide_option
@click.option("--failed", is_flag=True, help="Show only sites that are broken, backoff or fatal.")
@click.argument("names", metavar="[NAME...]", nargs=-1, shell_complete=complete.sites)
@pass_session
def status(session: Session, names: tuple[str, ...], failed: bool, wide: bool) -> None:
    """Show the supervisor and, for each enabled site or each that is named, its state, processes and use.

    Requests, errors, starts and processor time are sums over all processes that a site has had, those before the last
    restart of the supervisor included; --json has more of them. The exit status is 3 if an enabled site is broken,
    backoff or fatal.
    """
    from multisite.status.document import document
    from multisite.status.places import runtime_problem

    session.warn_of_hidden()
    told = document(session)
    told["sites"] = chosen_rows(session, told["sites"], names)
    if failed:
        told["sites"] = [site for site in told["sites"] if site["enabled"] and site["state"] in FAILED]
    enabled = [site for site in told["sites"] if site["enabled"]]
    if session.as_json:
        say_json(told)
        return _end(enabled)
    if not session.hidden:
        say_paragraph(_headline(told["supervisor"], None if told["supervisor"] else runtime_problem(session.home)))
    for preloader in told["preloaders"]:
        say_paragraph(_preloader(preloader))
    if enabled:
        say_table(STATUS_HEADER, map(_figures, enabled), numbers=NUMBERS, drop=DROP, cut=("pids", "name"), wide=wide)
    for site in enabled:
        say_failure(site)
    return _end(enabled)


def _headline(supervisor: dict[str, Any] | None, obstacle: Problem | None) -> str:
    if obstacle:
        who = "none can start" if obstacle.is_error else "this user can start none"
        return f"no supervisor of this home runs, and {who}: {obstacle}"
    if not supervisor:
        return "no supervisor runs; the first request for a spawned site starts it"
    backends = f"{supervisor['backends']} of {supervisor['max_backends']} backends"
    return f"supervisor {supervisor['pid']}, up {duration(supervisor['uptime'])}, {backends}"


def _preloader(told: dict[str, Any]) -> str:
    """One line: ``preloader 4711 (www-data, /srv/venv/bin/python): 233 modules, 12 processes, 21.3 MiB``."""
    holds = f"{told['modules']} modules, {told['children']} processes, {told['memory'] / 2**20:.1f} MiB"
    state = "" if told["state"] == "ready" else f", {told['state']}"
    return f"preloader {told['pid']} ({told['user']}, {told['interpreter']}): {holds}{state}"


def _figures(site: dict[str, Any]) -> tuple[Cell, ...]:
    pids = tuple(map(str, site["pids"]))
    counts = (site.get(key) for key in ("requests", "errors", "in_flight", "waiting", "starts"))
    memory = f"{site['memory'] / 2**20:.1f} MiB" if site["memory"] else "-"
    used = time.time() - site["last_use"] if site["last_use"] else None
    idle = used if site.get("idle") is None else site["idle"]
    return (
        site["name"],
        site["placement"] or "-",
        state_of(site),
        pids or "-",
        "-" if site["up_since"] is None else duration(time.time() - site["up_since"]),
        *("-" if count is None else str(count) for count in counts),
        "-" if site["cpu"] is None else f"{site['cpu']:.1f}s",
        memory,
        "-" if idle is None else duration(idle),
    )


def say_failure(site: dict[str, Any]) -> None:
    """Say why a site failed last, as its start report has it."""
    failure = site.get("failure")
    if site.get("replace_failure") and not failure:
        say_paragraph(f"{site['name']}: {GOES_ON} failed: {site['replace_failure']}")
    if not failure:
        if site.get("state") == "broken" and site.get("problems"):
            say_paragraph(f"{site['name']}: {site['problems'][0]['reason']}")
        return
    what = f"{GOES_ON} failed, " if failure.get("serving") else ""
    say_paragraph(f"{site['name']}: {what}incident {failure['incident']}: {failure['failure']}{_remedy(failure)}")
    say_journey(((step["step"], step["seconds"]) for step in failure["steps"]), failure["output"])


def _remedy(failure: dict[str, Any]) -> str:
    return f"; {failure['remedy']}" if failure.get("remedy") else ""


def say_journey(steps: Iterable[tuple[str, float]], output: Iterable[str]) -> None:
    """Say what a failed start went through, and the last that the process printed."""
    for step, seconds in steps:
        say(f"    {step}: {seconds * 1000:.0f} ms")
    for line in output:
        say(f"    | {line}")


def duration(seconds: float) -> str:
    """Say a time in its largest whole unit: ``42s``, ``7m``, ``3h``, ``2d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
