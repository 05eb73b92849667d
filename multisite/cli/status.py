"""``multisite status`` and ``multisite logs``: what the processes of sites do, and what they said."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import click

from multisite.cli import complete
from multisite.cli.group import fail
from multisite.cli.output import say, say_json
from multisite.cli.session import Named, Session, pass_session
from multisite.cli.table import say_table

STATUS = """\b
Examples:
  multisite status
  multisite --json status
"""
LOGS = """\b
Examples:
  multisite logs blog
  multisite logs -f blog
"""
HEADER = (
    *("name", "runs", "state", "pids", "up"),
    *("requests", "errors", "in flight", "waiting", "starts", "cpu", "memory", "idle"),
)
DROP = ("cpu", "starts", "up", "waiting", "runs", "idle", "errors", "in flight")


@click.command(epilog=STATUS, short_help="Show the processes of all sites.")
@pass_session
def status(session: Session) -> None:
    """Show the supervisor and, for each enabled site, its state, its processes and what it has used.

    Requests, errors, starts and processor time are sums over all processes that a site has had, those before the last
    restart of the supervisor included; --json has more of them.
    """
    from multisite.cli.listing import document

    told = document(session)
    if session.as_json:
        return say_json(told)
    say(_headline(told["supervisor"]))
    for preloader in told["preloaders"]:
        say(_preloader(preloader))
    enabled = [site for site in told["sites"] if site["enabled"]]
    if enabled:
        say_table(HEADER, map(_cells, enabled), numbers=HEADER[4:], drop=DROP, fold=("name", "pids"))
    for site in enabled:
        say_failure(site)


def _headline(supervisor: dict[str, Any] | None) -> str:
    if not supervisor:
        return "no supervisor runs; the first request for a site with a process of its own starts it"
    backends = f"{supervisor['backends']} of {supervisor['max_backends']} backends"
    return f"supervisor {supervisor['pid']}, up {duration(supervisor['uptime'])}, {backends}"


def _preloader(told: dict[str, Any]) -> str:
    """One line: ``preloader 4711 (www-data, /srv/venv/bin/python): 233 modules, 12 processes, 21.3 MiB``."""
    holds = f"{told['modules']} modules, {told['children']} processes, {told['memory'] / 2**20:.1f} MiB"
    state = "" if told["state"] == "ready" else f", {told['state']}"
    return f"preloader {told['pid']} ({told['user']}, {told['interpreter']}): {holds}{state}"


def _cells(site: dict[str, Any]) -> tuple[str, ...]:
    from multisite.cli.listing import shown_state

    pids = " ".join(map(str, site["pids"]))
    figures = (_number(site.get(key)) for key in ("requests", "errors", "in_flight", "waiting", "starts"))
    memory = f"{site['memory'] / 2**20:.1f} MiB" if site["memory"] else "-"
    used = time.time() - site["last_use"] if site["last_use"] else None
    idle = used if site.get("idle") is None else site["idle"]
    return (
        site["name"],
        site["placement"] or "-",
        shown_state(site),
        pids or "-",
        "-" if site["up_since"] is None else duration(time.time() - site["up_since"]),
        *figures,
        "-" if site["cpu"] is None else f"{site['cpu']:.1f}s",
        memory,
        "-" if idle is None else duration(idle),
    )


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def say_failure(site: dict[str, Any]) -> None:
    """Say why a site failed last, as its start report has it."""
    if site.get("replace_failure"):
        say(f"{site['name']}: the old process goes on, the new one failed: {site['replace_failure']}")
    failure = site.get("failure")
    if not failure:
        return
    say(f"{site['name']}: incident {failure['incident']}: {failure['failure']}")
    say_journey(((step["step"], step["seconds"]) for step in failure["steps"]), failure["output"])


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


@click.command(epilog=LOGS, short_help="Show what a site printed.")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is printed, until interrupted.")
@click.argument("name", shell_complete=complete.sites)
@pass_session
def logs(session: Session, name: str, follow: bool) -> None:
    """Show the last lines that the processes of the site NAME printed, or those of its error log."""
    named = session.named(name)
    if follow:
        return _follow(session, named)
    lines = _lines(session, named)
    if session.as_json:
        return say_json({"name": named.site.name, "lines": lines})
    _say_lines(lines)


def _lines(session: Session, named: Named) -> list[str]:
    answer = session.ask("logs", **named.request)
    lines = list(answer["lines"]) if answer else []
    path = named.site.error_log
    return lines if lines or not path else _tail(path)


def _tail(path: str) -> list[str]:
    """Return the last lines of a file, of its last 64 KiB at most."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, 2) - 65536))
        return file.read().decode("utf-8", "replace").splitlines()[-40:]


def _follow(session: Session, named: Named) -> None:
    from multisite.supervisor.client import Client, NotRunning

    try:
        for answer in Client(session.home).follow({"do": "logs", **named.request, "follow": True}):
            _say_lines(answer["lines"])
    except NotRunning:
        fail("no supervisor runs, so there is nothing to follow")


def _say_lines(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)
