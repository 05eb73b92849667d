"""The nodes that share a key's requests, made once and kept while they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable

from multisite.config import nodes
from multisite.config.nodes import Node

MOST_GROUPS = 8192  # that are kept ready

_log = logging.getLogger("multisite.router")


class Group:
    """Nodes among which requests are distributed.

    Attributes:
        nodes: they; never empty.
        algorithm: how, "" for the usual one.
    """

    __slots__ = ("algorithm", "nodes")

    def __init__(self, members: tuple[Node, ...], algorithm: str = "") -> None:
        self.nodes = members
        self.algorithm = algorithm

    def __repr__(self) -> str:
        return f"<Group of {', '.join(map(str, self.nodes))}>"


class Groups:
    """Groups by their text, as mapping files and mappers have it.

    Args:
        complain: called with a sentence about a text that names no node, once while it is remembered.
    """

    def __init__(self, complain: Callable[[str], None] = _log.error) -> None:
        self._complain = complain
        self._known: dict[str, Group | None] = {}

    def of(self, text: str, source: str) -> Group | None:
        """Return the group that `text` names; None if it names none, which is reported with its `source`.

        A text that names no node is remembered, too, so that it is reported once.
        """
        try:
            return self._known[text]
        except KeyError:
            pass
        if len(self._known) >= MOST_GROUPS:
            self._known.clear()
        try:
            found = Group(nodes.parse_all(text))
        except ValueError as error:
            self._complain(f"{source}: {text[:200]!r} is not a node: {error}")
            found = None
        self._known[text] = found
        return found
