"""``multisite status``: what the processes of sites do."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import click

from multisite.cli.output import say, say_json
from multisite.cli.session import Session, pass_session
from multisite.cli.table import say_table

STATUS = """\b
Examples:
  multisite status
  multisite --json status
"""
HEADER = (
    *("name", "runs", "state", "pids", "up"),
    *("requests", "errors", "in flight", "waiting", "starts", "cpu", "memory", "idle"),
)
GOES_ON = "the old version goes on serving, since the new one"
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
    pids = " ".join(map(str, site["pids"]))
    figures = (_number(site.get(key)) for key in ("requests", "errors", "in_flight", "waiting", "starts"))
    memory = f"{site['memory'] / 2**20:.1f} MiB" if site["memory"] else "-"
    used = time.time() - site["last_use"] if site["last_use"] else None
    idle = used if site.get("idle") is None else site["idle"]
    return (
        site["name"],
        site["placement"] or "-",
        site["state"],
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
    failure = site.get("failure")
    if site.get("replace_failure") and not failure:
        say(f"{site['name']}: {GOES_ON} failed: {site['replace_failure']}")
    if not failure:
        if site.get("state") == "broken" and site.get("problems"):
            say(f"{site['name']}: {site['problems'][0]['reason']}")
        return
    what = f"{GOES_ON} failed, " if failure.get("serving") else ""
    say(f"{site['name']}: {what}incident {failure['incident']}: {failure['failure']}")
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
