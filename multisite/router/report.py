"""Keys and nodes for commands: where they come from, and the results of their requests."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from multisite.config.model import Home
from multisite.config.nodes import Node
from multisite.router import counts
from multisite.router.counts import EVERY_KEY, NodeFigures
from multisite.router.groups import Group, Groups
from multisite.router.mappers import Fixed, MapFile, Mapper, NamedNodes
from multisite.router.published import Subscribed
from multisite.router.router import mappers_of

_NEVER = NodeFigures()


@dataclass
class NodeReport:
    """A node of a key; `last_seen` is in seconds since 1970, None for never.

    A node that announces itself is seen when it does so, any other when it is sent a request.
    """

    node: str
    modifier1: int = 0
    weight: int = 1
    requests: int = 0
    failures: int = 0
    last_seen: float | None = None
    dead: bool = False


@dataclass
class KeyReport:
    """A key and its nodes, and the mapper that knows it; the key ``*`` stands for all that no other mapper knows."""

    key: str
    mapper: str
    nodes: list[NodeReport] = field(default_factory=list)


def _unheard(_complaint: str) -> None:
    """Ignore it: the workers log what is wrong with a text."""


class Report:
    """The keys of a home.

    Args:
        announced: the supervisor's report of the pool; None if there is none.

    Attributes:
        named: the mapper of new domains for which a node was named.
    """

    def __init__(self, home: Home, announced: Mapping[str, Any] | None) -> None:
        self._home = home
        self.named = NamedNodes(Groups(_unheard), (announced or {}).get("provisioned"))
        self._figures = counts.read(home)
        self._seen = {
            (told["key"], node["node"]): float(node["seen"])
            for told in (announced or {}).get("keys", ())
            for node in told["nodes"]
        }
        self._now, self._wall = time.monotonic(), time.time()

    def keys(self) -> list[KeyReport]:
        """Return all keys that a mapper lists, and those for which a request has been relayed."""
        found: dict[tuple[str, str], KeyReport] = {}
        for mapper in (*mappers_of(self._home, Groups(_unheard)), self.named):
            for key, group in _entries(mapper):
                if group:
                    found[mapper.name, key] = self.of(mapper, key, group)
        for mapper_name, key, node in self._figures:
            report = found.setdefault((mapper_name, key), KeyReport(key, mapper_name))
            if node not in [each.node for each in report.nodes] and not _lists(mapper_name):
                report.nodes.append(self._node(mapper_name, key, node))
        return [report for report in found.values() if report.nodes]

    def of(self, mapper: Mapper, key: str, group: Group) -> KeyReport:
        """Return the report of the nodes that a mapper names for a key."""
        place = EVERY_KEY if isinstance(mapper, Fixed) else key
        return KeyReport(place, mapper.name, [self._node(mapper.name, place, node) for node in group.nodes])

    def _node(self, mapper: str, key: str, node: Node | str) -> NodeReport:
        figures = self._figures.get(counts.place_of(mapper, key, str(node)), _NEVER)
        seen = self._seen.get((key, str(node)), figures.last_use)
        report = NodeReport(
            str(node),
            requests=figures.requests,
            failures=figures.failures,
            last_seen=round(self._wall - self._now + seen, 3) if seen else None,
            dead=figures.is_dead,
        )
        if isinstance(node, Node):
            report.modifier1, report.weight = node.modifier1, node.weight
        return report


def _lists(mapper: str) -> bool:
    """Tell whether a mapper lists its keys: keys that it no longer lists are not reported."""
    return mapper in (MapFile.name, Subscribed.name, NamedNodes.name)


def _entries(mapper: Mapper) -> list[tuple[str, Group | None]]:
    if isinstance(mapper, (MapFile, Subscribed, NamedNodes)):
        return list(mapper.entries())
    return [(EVERY_KEY, mapper.group)] if isinstance(mapper, Fixed) else []
