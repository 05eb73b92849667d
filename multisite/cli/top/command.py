"""``multisite top``: the sites of a home, live in a terminal."""

from __future__ import annotations

import os
import sys

import click

from multisite.cli.group import fail
from multisite.cli.session import Session, pass_session

EPILOG = """\b
Examples:
  multisite top
  multisite top --every 5
  multisite top --cluster
  multisite top --simulate 200
"""


@click.command(epilog=EPILOG, short_help="Watch all sites live.")
@click.option("--every", type=click.FloatRange(0.2, 3600), default=2.0, metavar="SECONDS", help="Time between looks.")
@click.option("--cluster", is_flag=True, help="Watch the sites of all machines in the registry of [cluster].")
@click.option("--simulate", type=click.IntRange(1, 100_000), metavar="N", help="Show invented figures of N sites.")
@click.option("--seed", type=int, default=1, metavar="NUMBER", help="With --simulate: other numbers give other sites.")
@pass_session
def top(session: Session, every: float, cluster: bool, simulate: int | None, seed: int) -> None:
    """Watch all enabled sites live: requests, errors, memory and processor time, with their curves.

    Keys: m c r e w sort by memory, cpu, requests, errors, waiting; n by need, as at the beginning. / filters by name,
    domain, state or need. Up, down and enter show one site with its live log, left goes back. R restarts a site, S
    stops it, D disables it after a question. q quits.

    With --cluster, there is a row for each site and machine on which it has processes, or fails.
    """
    if session.as_json:
        fail("top has no JSON form; multisite --json status has the figures")
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") in (None, "", "dumb", "unknown"):
        fail("top needs a terminal; multisite status --watch prints the figures anywhere")
    from multisite.cli.top.feed import ClusterFeed, Feed, HomeFeed, SimulatedFeed
    from multisite.cli.top.screen import LiveScreen

    feed: Feed = HomeFeed(session.home.path)
    if cluster:
        feed = ClusterFeed(session.home.path)
        feed.look()  # where there is none, this ends with a message
    elif simulate:
        feed = SimulatedFeed(simulate, seed)
    raise SystemExit(LiveScreen(feed, every).run())
