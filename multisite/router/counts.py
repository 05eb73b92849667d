"""What a worker counts for each node, in a file that commands and the statistics read (`multisite.sites.usage`).

The record of a node is like that of a site, except for two cells: `errors` counts how often it could not be reached,
and `started` has the time since when it cannot; 0 if it can.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from time import monotonic_ns
from urllib.parse import quote, unquote

from multisite.config.model import Home
from multisite.config.nodes import Node
from multisite.control.rundir import RuntimeDir, RuntimeDirError
from multisite.runner import board
from multisite.sites import usage
from multisite.sites.statefile import StateFile
from multisite.sites.usage import Counts

FOLDER = "nodes"  # in the runtime directory
MOST_APART = 2048  # nodes of keys that a worker counts apart; others are counted by their mapper alone
EVERY_KEY = "*"  # stands for all keys of nodes that serve any
OTHERS = "others"  # stands for nodes that are not counted apart
_FAILURES, _FAILED_AT, _LAST_USE = map(board.FIELDS.index, ("errors", "started", "last_use"))


Place = tuple[str, str, str]  # mapper, key and node


class NodeCounts:
    """The counts of one node for one key in this worker."""

    __slots__ = ("_cells", "_counts")

    def __init__(self, home: Home, mapper: str, key: str, node: Node) -> None:
        counted = usage.of_worker(home, _folder_made, FOLDER)
        name = _name(mapper, key, str(node))
        if counted.names >= MOST_APART and not counted.knows(name):  # a mapper that knows every host has no end of them
            name = _name(mapper, EVERY_KEY, OTHERS)
        self._counts: Counts = counted.of(name)
        self._cells = self._counts.cells
        self._cells[_FAILED_AT] = 0

    def began(self) -> None:
        """It was sent a request."""
        self._cells[_LAST_USE] = self._counts.count()

    def revived(self) -> None:
        """It can be reached again."""
        self._cells[_FAILED_AT] = 0

    def failed(self) -> None:
        """It could not be reached."""
        self._cells[_FAILURES] += 1
        self._cells[_FAILED_AT] = monotonic_ns()


@dataclass
class NodeFigures:
    """What all workers counted of a node for a key.

    Attributes:
        requests: that it was sent.
        failures: how often it could not be reached.
        in_flight: requests that it has just now.
        last_use: monotonic seconds of its last request, 0.0 for never.
        failed_at: since when it cannot be reached, in any worker; 0.0 where it can.
    """

    requests: int = 0
    failures: int = 0
    in_flight: int = 0
    last_use: float = 0.0
    failed_at: float = 0.0

    @property
    def is_dead(self) -> bool:
        """Whether it could not be reached since its last request."""
        return self.failed_at > self.last_use


def read(home: Home) -> dict[Place, NodeFigures]:
    """Return the figures by mapper, key and node."""
    folder, past = _folder(home), StateFile(home, FOLDER)
    found: dict[Place, NodeFigures] = {}
    for name, sums in usage.read(folder, past)[0].items():
        found[_of_name(name)] = NodeFigures(sums.requests, sums.errors)
    for name, record, is_dead in usage.records(folder, past):
        figures = found.get(_of_name(name))
        if figures:
            figures.last_use = max(figures.last_use, record.last_use)
            figures.failed_at = max(figures.failed_at, 0.0 if is_dead else record.started)
    return found


def _folder(home: Home) -> str:
    return os.path.join(home.runtime_dir, FOLDER)


def _folder_made(home: Home) -> str:
    """Return the folder of the workers' files; "" where there can be none."""
    rundir = RuntimeDir(home)
    try:
        rundir.make()
    except RuntimeDirError:
        return ""
    return _folder(home)


def place_of(mapper: str, key: str, node: str) -> Place:
    """Return where the figures of a node are found."""
    return _of_name(_name(mapper, key, node))


def _name(mapper: str, key: str, node: str) -> str:
    """Return the name of a record; what is too long for one ends in its digest."""
    name = " ".join((mapper, quote(key, safe=":*"), quote(node, safe=":/@+[]")))
    if len(name) <= usage.NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name[: usage.NAME - 17]}~{digest}"


def _of_name(name: str) -> Place:
    mapper, key, node, *_ = [*name.split(" "), "", ""]
    return mapper, unquote(key), unquote(node)
