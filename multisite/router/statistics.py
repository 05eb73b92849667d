"""The Fastrouter's statistics document: the announced nodes, and the results of their requests."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from multisite.config.model import Home
from multisite.router import counts
from multisite.router.counts import NodeFigures
from multisite.router.published import Subscribed

_NEVER = NodeFigures()


def document(home: Home, announced: Mapping[str, Any], supervisor: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Fastrouter's statistics document.

    Args:
        announced: the pool, as the supervisor tells of it.
        supervisor: its ``pid``, ``uid``, ``gid``, ``cwd`` and ``version``.
    """
    figures, now, wall = counts.read(home), time.monotonic(), time.time()
    keys = []
    for told in announced["keys"]:
        members = [_member(told["key"], node, figures, wall - now) for node in told["nodes"]]
        keys.append(
            {
                "key": told["key"],
                "hash": djb33x(told["key"]),
                "hits": sum(member["requests"] for member in members),
                "sni_enabled": 0,
                "algo": told["algorithm"] or home.router.algorithm,
                "nodes": members,
            }
        )
    fixed = [
        {"name": node, "hits": each.requests, "grace": int(each.is_dead)}
        for (mapper, _key, node), each in figures.items()
        if mapper == "to"
    ]
    return {
        **supervisor,
        "active_sessions": 0,
        "fastrouter": list(announced["sockets"]),
        "subscriptions": keys,
        "static_nodes": fixed,
        "cheap": int(not keys),
    }


def _member(
    key: str, told: Mapping[str, Any], figures: Mapping[counts.Place, NodeFigures], wall: float
) -> dict[str, Any]:
    counted = figures.get(counts.place_of(Subscribed.name, key, told["node"]), _NEVER)
    return {
        "name": told["node"],
        "modifier1": told["modifier1"],
        "modifier2": told["modifier2"],
        "last_check": int(wall + told["seen"]),
        "pid": 0,
        "uid": max(0, told["uid"]),
        "gid": 0,
        "requests": counted.requests,
        "last_requests": 0,
        "tx": 0,
        "rx": 0,
        "cores": told["cores"],
        "load": told["load"],
        "weight": told["weight"],
        "wrr": 0,
        "ref": counted.in_flight,
        "failcnt": counted.failures,
        "death_mark": int(counted.is_dead),
        "vassal": "",
        "backup": told["backup"],
        "proto": 104 if told["protocol"] == "http" else 117,
    }


def djb33x(key: str) -> int:
    """Return uWSGI's hash of a key, which its statistics show."""
    found = 5381
    for byte in key.encode("utf-8", "surrogateescape"):
        found = ((found << 5) + found) ^ byte
    return (found & 0xFFFFFFFF) % 0xFFFF
