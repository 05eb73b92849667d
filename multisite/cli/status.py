"""``multisite status``: the home in a line, a row for each site, and the sites that need attention."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from multisite.cli import complete
from multisite.cli.listing import chosen_rows, end
from multisite.cli.output import complain, say, say_json, say_paragraph, say_table, wide_option
from multisite.cli.session import ALL, Session, UnknownSite, is_wildcard, pass_session
from multisite.errors import BackendUnavailable, MultisiteError
from multisite.status.needs import FAILED, Need, needs, of_all, ordered, state_of
from multisite.status.sight import state_folders
from multisite.status.summary import duration

if TYPE_CHECKING:
    from multisite.cli.output import Cell
    from multisite.errors import Problem

EPILOG = """\b
Examples:
  multisite status
  multisite status blog
  multisite status blog 'demo-*'
  multisite status --failed
  multisite status --watch 5
  multisite status --cluster
  multisite --json status
"""
HEADER = (
    *("name", "runs", "state", "needs", "pids", "up"),
    *("requests", "errors", "in flight", "waiting", "starts", "cpu", "memory", "idle"),
)
NUMBERS = HEADER[5:]
DROP = ("cpu", "starts", "up", "runs", "waiting", "idle", "errors", "in flight", "pids")
EVERY = 2.0  # seconds between two looks, unless --watch sets them
MOST = 10  # troubles to print below the table, unless --wide or names ask for all
LINES = 5  # of a site's log, and of what it went through
AFRESH = "\x1b[H\x1b[2J"


@click.command(epilog=EPILOG, short_help="Show the state and the processes of all sites.")
@wide_option
@click.option("--cluster", is_flag=True, help="Show the machines of the cluster, and where sites run.")
@click.option("--failed", is_flag=True, help="Show only sites that are broken, backoff or fatal.")
@click.option(
    "--watch",
    is_flag=False,
    flag_value=str(EVERY),
    metavar="[SECONDS]",
    help="Repeat every two seconds, or every SECONDS, until interrupted.",
)
@click.argument("names", metavar="[NAME...]", nargs=-1, shell_complete=complete.sites)
@pass_session
def status(
    session: Session, names: tuple[str, ...], cluster: bool, failed: bool, wide: bool, watch: str | None
) -> None:
    """Show a summary, and a row for each enabled site or each site in NAME.

    Sites that need attention come first: those that cannot start, those that still serve an old version, those with
    waiting or slow requests. The others follow, the most expensive first. Below the table, each trouble is listed with
    its cause and the command that helps. For a site in NAME, the command also shows what `explain` shows, its
    processes, its requests in flight, its last starts, deploys and slow requests, and the last lines of its log.

    Requests, errors, starts and processor time are sums over all processes that a site has had, also before the last
    restart of the supervisor; --json prints more of them. The exit status is 3 if an enabled site is broken, backoff or
    fatal.

    With --cluster, a row for each machine in the registry of [cluster], a row for each site and machine on which it has
    processes, and the failures on all machines.
    """
    pause, names = _pause(watch, names)
    while True:
        sites = _show_cluster(session, wide) if cluster else _show(session, names, failed, wide)
        if pause is None:
            return end(sites)
        sys.stdout.flush()
        time.sleep(pause)
        session = Session(session.home_path, session.as_json)
        if not session.as_json:
            again = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
            click.echo(AFRESH if again else "", nl=not again)


def _show_cluster(session: Session, wide: bool) -> list[dict[str, Any]]:
    from multisite.cli.node.clustertable import show

    show(session, wide)
    return []


def _pause(watch: str | None, names: tuple[str, ...]) -> tuple[float | None, tuple[str, ...]]:
    """Return the seconds between two looks, None for one look; a word after --watch that is not a number is a name."""
    if watch is None:
        return None, names
    try:
        seconds = float(watch)
    except ValueError:
        return EVERY, (watch, *names)
    if not 0.1 <= seconds <= 86400:
        raise click.UsageError(f"--watch accepts 0.1 to 86400 seconds, not {watch}")
    return seconds, names


def _show(session: Session, names: tuple[str, ...], failed: bool, wide: bool) -> list[dict[str, Any]]:
    """Show it once; return the rows that were shown."""
    from multisite.logs import past
    from multisite.status import lately
    from multisite.status.document import document

    session.warn_of_hidden()
    session.warn_of_drain()
    shown = document(session)
    whole = shown["sites"]
    shown["sites"] = chosen_rows(session, whole, names)
    detailed = [] if failed else [name for name in names if name != ALL and not is_wildcard(name)]
    for row in shown["sites"] if detailed else ():
        row.update(past.read(state_folders(session.home), row["name"]).as_dict())
    if failed:
        shown["sites"] = [site for site in shown["sites"] if site["enabled"] and site["state"] in FAILED]
    traffic = lately.note(whole, time.time()) if not session.as_json else (None, None)
    enabled = ordered([site for site in shown["sites"] if site["enabled"]])
    if session.as_json:
        say_json({**shown, **_registry(session, shown)}, indent=2)
        return enabled
    _say_headline(session, {**shown, "sites": whole}, *traffic)
    for preloader in shown["preloaders"]:
        say_paragraph(_preloader(preloader))
    if enabled:
        say_table(HEADER, map(_cells, enabled), numbers=NUMBERS, drop=DROP, cut=("pids", "name"), wide=wide)
    _say_needs(of_all({"sites": enabled}), sys.maxsize if wide or names or failed else MOST)
    for name in detailed:
        _say_detail(session, name, enabled)
    return enabled


def _say_headline(session: Session, whole: dict[str, Any], requests: float | None, errors: int | None) -> None:
    """Print a summary of the home, and why it has no supervisor, if it has none."""
    from multisite.status.places import runtime_problem
    from multisite.status.summary import summed

    options = session.home.supervisor
    line = summed(whole, session.home.path, options.max_backends, options.memory_budget, requests, errors)
    say_paragraph(str(line))
    if registry := _registry(session, whole).get("registry"):
        from multisite.cli.node.clustertable import registry_line

        say_paragraph(registry_line(registry))
    if not session.hidden and not whole["supervisor"]:
        say_paragraph(_without(runtime_problem(session.home)))


def _registry(session: Session, whole: dict[str, Any]) -> dict[str, Any]:
    """Return what a home with a registry knows of it: its state, and the number of machines."""
    if not session.home.cluster.url or not whole["supervisor"]:
        return {}
    from multisite.cli.node.clustertable import registry_of

    return registry_of(session)


def _without(obstacle: Problem | None) -> str:
    """Return why no supervisor is running."""
    if not obstacle:
        return "no supervisor is running; the first request for a spawned site starts it"
    who = "none can start" if obstacle.is_error else "this user cannot start one"
    return f"no supervisor of this home is running, and {who}: {obstacle}"


def _preloader(row: dict[str, Any]) -> str:
    """Return a line: ``preloader 4711 (www-data, /srv/venv/bin/python): 233 modules, 12 processes, 21.3 MiB``."""
    holds = f"{row['modules']} modules, {row['children']} processes, {row['memory'] / 2**20:.1f} MiB"
    state = "" if row["state"] == "ready" else f", {row['state']}"
    return f"preloader {row['pid']} ({row['user']}, {row['interpreter']}): {holds}{state}"


def _cells(site: dict[str, Any]) -> tuple[Cell, ...]:
    pids = tuple(map(str, site["pids"]))
    counts = (site.get(key) for key in ("requests", "errors", "in_flight", "waiting", "starts"))
    memory = f"{site['memory'] / 2**20:.1f} MiB" if site["memory"] else "-"
    used = time.time() - site["last_use"] if site["last_use"] else None
    idle = used if site.get("idle") is None else site["idle"]
    return (
        site["name"],
        site["placement"] or "-",
        state_of(site),
        ", ".join(dict.fromkeys(need.kind for need in needs(site))) or "-",
        pids or "-",
        "-" if site["up_since"] is None else duration(time.time() - site["up_since"]),
        *("-" if count is None else str(count) for count in counts),
        "-" if site["cpu"] is None else f"{site['cpu']:.1f}s",
        memory,
        "-" if idle is None else duration(idle),
    )


def _say_needs(found: list[Need], most: int) -> None:
    """Print each trouble in a line for its cause and one for the command that helps."""
    for need in found[:most]:
        incident = f", incident {need.incident}" if need.incident else ""
        mark = "error" if need.kind in ("cannot start", "old version serves", "requests fail") else "warning"
        complain(mark, f"{need.name}: {need.kind}{incident}: {need.cause}", err=False)
        say(f"    {need.remedy}")
    if len(found) > most:
        say(f"{len(found) - most} more; multisite status --wide shows all of them")


def _say_detail(session: Session, name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Print the output of `explain` for a site, its processes, its requests, and the last lines of its log."""
    from multisite.cli import explain
    from multisite.cli.site.loglines import shown
    from multisite.cli.site.logs import last_lines

    try:
        named = session.named(name)
    except UnknownSite:  # only available
        return
    row: dict[str, Any] = next((one for one in rows if one["name"] == named.site.name), {})
    say("")
    if "%" not in named.site.location:
        explain.say_answer(explain.of_site(session, named.site))
    _say_processes((session.supervisor or {}).get("sites", {}).get(named.site.name, {}))
    _say_requests(row.get("requests_in_flight") or ())
    _say_past(row)
    try:
        lines = last_lines(session, named, LINES)
    except (BackendUnavailable, MultisiteError, OSError):  # a warning above the table says that they are hidden
        return
    if lines:
        say("log:")
    for line in lines:
        click.echo(f"    {shown(line, 0, False)}")


def _say_processes(known: dict[str, Any]) -> None:
    rows = [
        (str(one["pid"]), one["state"], duration(one["seconds"]), one["reason"] or "-")
        for one in known.get("backends", ())
    ]
    if rows:
        say("processes:")
        say_table(("pid", "state", "for", "because"), rows, numbers=("pid", "for"), cut=("because",))


def _say_requests(requests: Iterable[dict[str, Any]]) -> None:
    rows = [(f"{one['age']:.1f}s", one["method"], one["path"]) for one in requests]
    if rows:
        say("requests in flight:")
        say_table(("age", "method", "path"), rows, numbers=("age",), cut=("path",))


def _say_past(row: dict[str, Any]) -> None:
    """Print what a site went through, the newest first; --json has more of it."""
    starts = [
        (_when(one), one["kind"], _outcome(one), f"{one['seconds']:.2f}s", _steps(one))
        for one in row.get("last_starts", ())[:LINES]
    ]
    deploys = [
        (_when(one), one["cause"], _outcome(one), f"{one['seconds']:.2f}s") for one in row.get("deploys", ())[:LINES]
    ]
    slow = [
        (_when(one), one["method"], one["path"], str(one["status"] or "-"), f"{one['seconds']:.1f}s", _split(one))
        for one in row.get("slow_requests", ())[:LINES]
    ]
    tables = (
        ("starts", ("when", "kind", "outcome", "took", "steps"), starts, ("steps", "outcome")),
        ("deploys", ("when", "cause", "outcome", "took"), deploys, ("outcome",)),
        ("slow requests", ("when", "method", "path", "status", "took", "of that"), slow, ("path", "of that")),
    )
    for title, heads, rows, cut in tables:
        if rows:
            say(f"{title}:")
            say_table(heads, rows, numbers=("took",), cut=cut)


def _when(one: dict[str, Any]) -> str:
    return f"{duration(max(0.0, time.time() - one['at']))} ago"


def _outcome(one: dict[str, Any]) -> str:
    incident = f", incident {one['incident']}" if one["incident"] else ""
    return f"{one['outcome']}{incident}" + (f": {one['failure']}" if one["failure"] else "")


def _steps(one: dict[str, Any]) -> str:
    return ", ".join(f"{step['step']} {step['seconds'] * 1000:.0f} ms" for step in one["steps"]) or "-"


def _split(one: dict[str, Any]) -> str:
    known = {name: seconds for name, seconds in one["split"].items() if seconds is not None}
    return ", ".join(f"{name} {seconds:.2f}s" for name, seconds in known.items()) or "-"
