"""The machines of a cluster as this one knows them: what each announced, by machine, by site, and what fails (pure)."""

from __future__ import annotations

import time
from typing import Any

from multisite.logs.records import is_number

STATES = {
    "": "no registry",
    "connecting": "connecting",
    "connected": "connected",
    "away": "away",
    "refused": "not usable",
}


def machines(told: dict[str, Any]) -> dict[str, Any]:
    """Return the document that ``status --cluster`` shows.

    Args:
        told: what the supervisor answered. Its entries were written by others: nothing in them is sure.

    Returns:
        "registry", "node" (this machine's name), "nodes", "sites" and "incidents", each sorted.
    """
    entries = told.get("entries", {})
    nodes, figures = _found(entries, "node"), _found(entries, "figures")
    registry = {key: told.get(key) for key in ("url", "state", "reason", "since")}
    rows = [_node(name, nodes[name], figures.get(name, {})) for name in sorted(nodes)]
    sites = [row for name in sorted(nodes) for row in _sites(name, figures.get(name, {}))]
    incidents = [row for name in sorted(nodes) for row in _incidents(name, figures.get(name, {}))]
    return {
        "registry": registry,
        "node": told.get("node", ""),
        "nodes": rows,
        "sites": sorted(sites, key=lambda row: (row["name"], row["node"])),
        "incidents": sorted(incidents, key=lambda row: -row["at"]),
    }


def _found(entries: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {str(key): value for key, value in entries.get(kind, {}).items() if isinstance(value, dict)}


def _node(name: str, node: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    awake = figures.get("awake")
    return {
        "node": name,
        "host": str(node.get("host", "")),
        "version": str(node.get("version", "")),
        "pid": _number(node.get("pid")),
        "since": _number(node.get("since")),
        "draining": _number(node.get("draining")) or None,
        "home": str(node.get("home", "")),
        "sites": _number(figures.get("sites")),
        "awake": len(awake) if isinstance(awake, dict) else 0,
        "processes": _number(figures.get("processes")),
        "load": _number(figures.get("load")),
    }


def _sites(node: str, figures: dict[str, Any]) -> list[dict[str, Any]]:
    awake = figures.get("awake")
    rows = []
    for name, row in (awake if isinstance(awake, dict) else {}).items():
        if isinstance(row, list) and len(row) == 4:
            processes, requests, in_flight = map(_number, row[1:])
            state = str(row[0])
            rows.append(
                {
                    "name": str(name),
                    "node": node,
                    "state": state,
                    "processes": processes,
                    "requests": requests,
                    "in_flight": in_flight,
                }
            )
    return rows


def _incidents(node: str, figures: dict[str, Any]) -> list[dict[str, Any]]:
    found = figures.get("incidents")
    rows = []
    for row in found if isinstance(found, list) else ():
        if isinstance(row, list) and len(row) == 4:
            name, incident, cause = str(row[0]), str(row[1]), str(row[3])
            rows.append({"node": node, "name": name, "incident": incident, "at": _number(row[2]), "cause": cause})
    return rows


def _number(value: Any) -> float:
    return value if is_number(value) else 0


def headline(registry: dict[str, Any], age: str) -> str:
    """Return a sentence about the registry, for the summary of a home.

    Args:
        registry: as above.
        age: since when it is so, as text.
    """
    state = STATES.get(registry.get("state") or "", str(registry.get("state")))
    for_so_long = f" for {age}" if age and state != "connecting" else ""
    why = f": {registry['reason']}; what was last known of the other machines counts" if state == "away" else ""
    why = f": {registry['reason']}" if state == "not usable" else why
    return f"registry {registry['url']} {state}{for_so_long}{why}"


def age_of(since: float | None) -> float:
    """Return how many seconds ago a time in Unix seconds was."""
    return max(0.0, time.time() - since) if since else 0.0
