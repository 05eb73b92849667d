"""Sites that only some of the machines run: ``nodes`` in a site's file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from multisite.cluster import nodes
from multisite.config.cluster import ClusterOptions
from multisite.config.model import Home, Site, SiteFile
from multisite.config.nodes import Machine, parse_machine
from multisite.errors import Problem

ASKED_AGAIN = 60.0  # seconds after which a machine that does not know which node it is looks again

_own: dict[ClusterOptions, tuple[float, str]] = {}  # until when that counts if it is unclear, and this machine


def chosen(names: Iterable[str], listed: Sequence[Machine]) -> tuple[Machine, ...]:
    """Return those of `listed` that the nodes of a site name, in the order and with the weights of `listed`."""
    wanted = set(map(_name, names))
    return tuple(machine for machine in listed if str(machine) in wanted)


def common(pins: Iterable[Sequence[str]], listed: Sequence[Machine]) -> tuple[Machine, ...]:
    """Return the machines that run every site of one host: a front end chooses by the host alone.

    Args:
        pins: the nodes of each of the sites, empty for one that runs anywhere.

    Returns:
        Those of `listed`; () if all sites run anywhere, or no machine runs them all.
    """
    of = [set(chosen(names, listed)) for names in pins if names]
    found = {machine for machine in listed if all(machine in one for one in of)}
    return tuple(machine for machine in listed if machine in found) if len(found) < len(listed) else ()


def of_sites(files: Mapping[str, SiteFile], home: Home) -> dict[str, set[str]]:
    """Return the machines of each site that does not run on all of them, as moya.conf lists them."""
    listed = {str(machine) for machine in nodes.machines(home)}
    found = {}
    for name, file in files.items():
        written = file.values.get("service", {}).get("nodes") or home.defaults.get("nodes") or ()
        chosen_here = listed.intersection(map(_name, written))
        if chosen_here and chosen_here != listed:
            found[name] = chosen_here
    return found


def other_than(site: Site, home: Home) -> str:
    """Return this machine if `site` does not run on it, "" if it does, or if it is unclear which node this is."""
    own = own_name(home)
    return own if own and own not in map(_name, site.nodes) else ""


def own_name(home: Home) -> str:
    """Return this machine as `nodes` lists it, "" if that is unclear."""
    until, name = _own.get(home.cluster, (0.0, ""))
    if not name and time.monotonic() >= until:
        try:
            name = str(nodes.own(home))
        except nodes.UnknownNode:
            name = ""
        _own[home.cluster] = time.monotonic() + ASKED_AGAIN, name
    return name


def problems(site: Site, home: Home) -> list[Problem]:
    """Return the nodes of a site that moya.conf does not list, and whether this machine runs it for want of a name."""
    listed = nodes.machines(home)
    known, named = ", ".join(map(str, listed)), {str(machine) for machine in listed}
    remedy = f"write some of {known}" if known else f"list all machines in [cluster] nodes of {home.file}"
    found = [
        Problem("MS748", site.file, "it is not among [cluster] nodes", "service", "nodes", text, remedy)
        for text in site.nodes
        if _name(text) not in named
    ]
    if site.nodes and not own_name(home):
        reason = "it is unclear which node this machine is, so this machine runs the site"
        where = ("service", "nodes", ", ".join(site.nodes))
        say = f"write node = ADDRESS:PORT in [cluster] of {home.file}"
        found.append(Problem("MS742", site.file, reason, *where, remedy=say, severity="warning"))
    return found


def _name(text: str) -> str:
    """Return a machine as `nodes` lists it; one with a weight, which only moya.conf gives, is none of these."""
    return text if "=" in text else str(parse_machine(text))
