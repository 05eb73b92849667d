"""``status --cluster``: the machines of the cluster, where sites run, and what fails anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multisite.cli.group import fail
from multisite.cli.output import complain, say_json, say_paragraph, say_table
from multisite.errors import MultisiteError
from multisite.status.fence import refused
from multisite.status.machines import age_of, headline, machines
from multisite.status.summary import duration

if TYPE_CHECKING:
    from multisite.cli.session import Session

NODES = ("node", "host", "version", "up", "sites", "awake", "processes", "load")
SITES = ("site", "node", "state", "processes", "requests", "in flight")
MOST = 20  # incidents, unless --wide asks for all
NO_URL = "moya.conf has no [cluster] url; multisite status shows this machine"


def looked(session: Session) -> dict[str, Any]:
    """Return the document of the cluster; end with a message where there is none."""
    if not session.home.cluster.url:
        fail(NO_URL)
    try:
        told = session.ask("cluster")
    except MultisiteError as error:
        fail(refused(session, error))
    if not told:
        fail("no supervisor is running, so this machine is not in the registry; multisite serve and a request start it")
    return machines(told)


def registry_of(session: Session) -> dict[str, Any]:
    """Return ``{"registry": …}`` with its state and the number of machines; {} if the supervisor does not know."""
    try:
        told = session.ask("cluster")
    except MultisiteError:  # an older one
        return {}
    found = machines(told or {})
    return {"registry": {**found["registry"], "node": found["node"], "machines": len(found["nodes"])}}


def registry_line(registry: dict[str, Any]) -> str:
    """Return a sentence about the registry and the machines in it."""
    count = registry["machines"]
    said = headline(registry, duration(age_of(registry["since"])))
    return f"{said}; {count} {'machine' if count == 1 else 'machines'}"


def show(session: Session, wide: bool) -> None:
    """Print the registry's state, a row for each machine, a row for each site and machine, and what fails."""
    found = looked(session)
    if session.as_json:
        return say_json(found, indent=2)
    registry = found["registry"]
    said = headline(registry, duration(age_of(registry["since"])))
    say_paragraph(f"{said}; this machine is {found['node']}")
    say_table(NODES, map(_node, found["nodes"]), numbers=NODES[3:], drop=("version", "load", "awake"), wide=wide)
    for row in found["nodes"]:
        if row["draining"]:
            say_paragraph(f"{row['node']} has been draining for {duration(age_of(row['draining']))}")
    if found["sites"]:
        say_table(SITES, map(_site, found["sites"]), numbers=SITES[3:], drop=SITES[4:], cut=("site",), wide=wide)
    for row in found["incidents"] if wide else found["incidents"][:MOST]:
        incident = f", incident {row['incident']}" if row["incident"] else ""
        complain("error", f"{row['name']} on {row['node']}{incident}: {row['cause']}", err=False)
    return None


def _node(row: dict[str, Any]) -> tuple[str, ...]:
    counts = (str(row[key]) for key in ("sites", "awake", "processes"))
    return (row["node"], row["host"], row["version"], duration(age_of(row["since"])), *counts, f"{row['load']:.2f}")


def _site(row: dict[str, Any]) -> tuple[str, ...]:
    return (row["name"], row["node"], row["state"], *(str(row[key]) for key in ("processes", "requests", "in_flight")))
