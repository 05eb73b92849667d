"""``multisite router``: hosts that are not sites of this home, their nodes, and the results of their requests."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from multisite.cli.group import fail
from multisite.cli.output import complain, say, say_json, say_table, wide_option
from multisite.cli.session import Session, pass_session
from multisite.errors import MultisiteError
from multisite.status.fence import refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from multisite.router.report import KeyReport

EPILOG = """\b
Examples:
  multisite router
  multisite router unbit.it
  multisite --json router
"""
HEADER = ("key", "mapper", "node", "weight", "requests", "failures", "last seen", "health")
DROP = ("weight", "mapper", "failures", "last seen", "requests")


@click.command(epilog=EPILOG, short_help="Show the nodes and the keys that they answer.")
@wide_option
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@pass_session
def router(session: Session, keys: tuple[str, ...], wide: bool) -> None:
    """Show all keys that the mappers of [router] know, or each KEY, with their nodes.

    A key is a host, perhaps with a port; * stands for all hosts that no other mapper knows. Mappers that cannot list
    their keys (pattern, base, code, redis, sql) show those that requests have used.
    """
    from multisite.router.report import Report

    announced, is_known = None, True
    try:
        announced = session.ask("nodes")
    except MultisiteError as error:
        is_known = False
        complain("warning", f"{error.id} {refused(session, error)}")
    found = sorted(Report(session.home, announced).keys(), key=lambda each: (each.key, each.mapper))
    if keys:
        unknown = [key for key in keys if key not in {each.key for each in found}]
        found = [each for each in found if each.key in keys]
        if unknown:
            fail(f"no mapper lists {unknown[0]}; multisite explain {unknown[0]} shows who answers it")
    if session.as_json:
        counted = announced["counted"] if announced else {}
        return say_json({"keys": [asdict(each) for each in found], "announcements": counted})
    if not found:
        return say("no nodes are known; configure their source in [router] of moya.conf") if is_known else None
    cells = [row for each in found for row in _rows(each)]
    say_table(HEADER, cells, numbers=HEADER[3:6], drop=DROP, cut=("node", "key"), wide=wide)
    if announced and announced["counted"]:
        counted = ", ".join(f"{number} {outcome}" for outcome, number in sorted(announced["counted"].items()))
        say(f"announcements: {counted}")
    return None


def _rows(found: KeyReport) -> Iterator[tuple[str, ...]]:
    for number, node in enumerate(found.nodes):
        first = number == 0
        address = f"{node.node},{node.modifier1}" if node.modifier1 else node.node
        yield (
            found.key if first else "",
            found.mapper if first else "",
            address,
            str(node.weight),
            str(node.requests),
            str(node.failures),
            ago(node.last_seen),
            "dead" if node.dead else "alive" if node.last_seen else "",
        )


def ago(at: float | None) -> str:
    """Return how long ago a time in seconds since 1970 was; "never" for None."""
    if at is None:
        return "never"
    seconds = max(0.0, time.time() - at)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def explained(session: Session, host: str, raw: str) -> dict[str, Any] | None:
    """Return the mapper for a host that no site claims, its key and its nodes; None if there is none."""
    from multisite.router.keys import keys_of_host
    from multisite.router.report import Report
    from multisite.router.router import router_of

    found = router_of(session.home)
    if not found:
        return None
    try:
        announced = session.ask("nodes")
    except MultisiteError:
        announced = None
    known = Report(session.home, announced)
    found.mappers.append(known.named)
    route = found.find(keys_of_host(raw)) or found.stand_in()
    if not route:
        return None
    report = known.of(route.mapper, route.key, route.group)
    return {
        "host": host,
        "mapper": route.mapper.name,
        "key": route.key,
        "nodes": [asdict(each) for each in report.nodes],
    }
