"""``multisite stats`` and ``metrics``: the requests and response times of each site, for people and for Prometheus."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from multisite.cli import complete
from multisite.cli.group import fenced
from multisite.cli.output import say, say_json, say_table, wide_option
from multisite.cli.session import Session, pass_session

if TYPE_CHECKING:
    from multisite.sites.figures import Sums

EPILOG = """\b
Examples:
  multisite stats
  multisite stats blog shop
  multisite --json stats
"""
METRICS = """\b
Examples:
  multisite metrics
  multisite metrics --output /var/lib/prometheus/node-exporter/multisite.prom
"""
HEADER = ("name", "requests", "errors", "sent", "seconds", "50 %", "75 %", "90 %", "95 %", "99 %", "99.9 %")
DROP = ("75 %", "99.9 %", "seconds", "90 %", "sent", "95 %")
COUNTED = ("requests", "in_flight", "errors", "statuses", "received", "sent", "seconds", "measured")
IN_THE_LIST = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)


@click.command(epilog=EPILOG, short_help="Show the requests and response times of sites.")
@wide_option
@click.argument("names", metavar="[SITE]...", nargs=-1, shell_complete=complete.sites)
@pass_session
def stats(session: Session, names: tuple[str, ...], wide: bool) -> None:
    """Show requests, errors, bytes and times of all sites, or of each SITE with all percentiles.

    A percentile is the time within which that share of the requests was answered. Its precision is that of the buckets
    in which requests are counted; it is shown from 20 requests on. All figures survive restarts of processes.
    """
    session.warn_of_hidden()
    since, rows = table(session, [session.named(name).site.name for name in names])
    if session.as_json:
        return say_json({"since": since or None, "sites": rows})
    for row in rows:
        if row["problem"]:
            say(f"multisite: {row['name']}: {row['problem']}", err=True)
    if names:
        for row in rows:
            _say(row)
    elif rows:
        busiest = sorted(rows, key=lambda row: -(row["requests"] or 0))
        say_table(HEADER, map(_cells, busiest), numbers=HEADER[1:], drop=DROP, cut=("name",), wide=wide)
    if since and rows:
        say(f"since {time.strftime('%Y-%m-%d %H:%M', time.localtime(since))}")


@click.command(epilog=METRICS, short_help="Print the metrics of all sites for Prometheus.")
@click.option("--output", metavar="FILE", help="Replace FILE in one step instead of printing.")
@pass_session
def metrics(session: Session, output: str | None) -> None:
    """Print the metrics of all sites in Prometheus' text format, as /metrics on the status_domain does.

    With --output, node_exporter's textfile collector can read them if the name of FILE ends in .prom.
    """
    from multisite.cli.scaffold import write_new
    from multisite.status.document import document
    from multisite.status.metrics import exposition

    session.warn_of_hidden()
    text = exposition(document(session), time.time()).decode()
    if output:
        write_new(os.path.abspath(output), text, force=True)
        return say_json({"file": output}) if session.as_json else None
    return say_json({"metrics": text}) if session.as_json else click.echo(text, nl=False)


def table(session: Session, names: list[str]) -> tuple[float, list[dict[str, Any]]]:
    """Return the time of the first figures (seconds since 1970, 0.0: never), and the figures of each site."""
    counted, since = session.usage
    known = session.known
    instances = (name for name in known if known[name].get("host"))

    def of_site(name: str) -> dict[str, Any]:
        sums = counted.get(name)
        row = _row(name, sums, known.get(name) or {})
        return row if sums or known.get(name) or not session.hidden else {**row, **dict.fromkeys(COUNTED)}

    wanted = names or sorted({*session.catalogue.sites, *instances})
    return since, [fenced(session, name, partial(of_site, name), partial(_row, name, None, {})) for name in wanted]


def _row(name: str, sums: Sums | None, known: dict[str, Any], problem: str = "") -> dict[str, Any]:
    """Describe one site by its counts."""
    from multisite.runner.board import LATENCIES
    from multisite.sites import figures
    from multisite.sites.tally import percentiles

    found = figures.counted(sums, known)
    latencies = found["latencies"] or []
    times = percentiles(LATENCIES, latencies, figures.ENOUGH)
    return {
        "name": name,
        "requests": found["requests"],
        "in_flight": found["in_flight"],
        "errors": found["errors"],
        "statuses": found["statuses"],
        "received": found["received"],
        "sent": found["sent"],
        "seconds": found["busy"],
        "cpu": known.get("cpu"),
        "memory": known.get("memory"),
        "starts": known.get("starts"),
        "measured": sum(latencies),
        "problem": problem,
        "percentiles": {
            # JSON has no infinity: a time above all buckets becomes the largest bound.
            f"{share:g}": None if seconds is None else round(min(seconds, LATENCIES[-1]), 6)
            for share, seconds in times.items()
        },
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    times = (_time(row["percentiles"][f"{share:g}"]) for share in IN_THE_LIST)
    if row["requests"] is None:
        return row["name"], "-", "-", "-", "-", *times
    return row["name"], str(row["requests"]), str(row["errors"]), size(row["sent"]), f"{row['seconds']:.1f}", *times


def _say(row: dict[str, Any]) -> None:
    if row["requests"] is None:
        return say(f"{row['name']}: unknown")
    lines = {
        "requests": str(row["requests"]),
        "in flight": str(row["in_flight"]),
        "errors": str(row["errors"]),
        "statuses": ", ".join(f"{count} {name}" for name, count in row["statuses"].items() if count),
        "received": "" if row["received"] is None else size(row["received"]),
        "sent": size(row["sent"]),
        "seconds": f"{row['seconds']:.3f}",
        "cpu": "" if row["cpu"] is None else f"{row['cpu']:.3f} s",
        "memory": size(row["memory"]) if row["memory"] else "",
    }
    say(row["name"])
    for label, text in lines.items():
        if text:
            say(f"  {label + ':':11}{text}")
    for share, seconds in row["percentiles"].items():
        say(f"  {share:>4} %     {_time(seconds)}")


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def size(count: float) -> str:
    """Return a number of bytes in its largest unit."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"
