"""Mappers that answer from memory or from a folder: a mapping file, a pattern, a base folder, fixed nodes.

They are asked for a key and return a `Group`, or None if they do not know it. Keys have been checked before
(`keys`): none of them leads out of a folder.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from multisite.config import nodes
from multisite.config.nodes import Node
from multisite.router import keys
from multisite.router.groups import Group, Groups

MOST_NAMED = 4096  # keys whose nodes were named
LOOK_EVERY = 0.5  # seconds between two looks at the file of a mapper
MOST_SHARED = 4096  # texts of nodes that keys have in common; where each has its own, a table of them costs memory only
MOST_COMPLAINTS = 10  # wrong lines of a file that are reported by number

_log = logging.getLogger("multisite.router")


class Mapper(Protocol):
    """Knows the nodes of some keys.

    Attributes:
        name: its name in `explain` and in the list of nodes: the option that it comes from.
    """

    name: str

    def find(self, key: str) -> Group | None:
        """Return the nodes of a key, None where there are none."""

    def look(self) -> None:
        """Check whether its file has changed; called at most every `LOOK_EVERY` seconds; return at once."""


class MapFile:
    """``map = FILE``: lines ``KEY NODE[,modifier1][|NODE…]``; what Fastrouters have in uWSGI's cache.

    Another thread reads it when it changes; while it cannot be read, the last good version is used.
    """

    name = "map"

    def __init__(self, path: str, groups: Groups) -> None:
        self.path = path
        self._groups = groups
        self._lines: dict[str, str] = {}
        self._stamp: tuple[int, ...] = ()
        self._reading = threading.Lock()
        self._failure = ""
        self.read()

    def find(self, key: str) -> Group | None:
        """Return the nodes of a key."""
        text = self._lines.get(key)
        return self._groups.of(text, self.path) if text else None

    def entries(self) -> Iterator[tuple[str, Group | None]]:
        """Yield each key and its nodes."""
        for key, text in list(self._lines.items()):
            yield key, self._groups.of(text, self.path)

    def look(self) -> None:
        """Read the file in another thread if it has changed."""
        if not self._reading.locked() and self._stamped() != self._stamp:
            threading.Thread(target=self.read, name="multisite-map", daemon=True).start()

    def read(self) -> None:
        """Read the file."""
        with self._reading:
            stamp = self._stamped()
            try:
                with open(self.path, encoding="utf-8", errors="surrogateescape") as file:
                    changed = _changed(file, self._lines) if self._lines else None
                    if changed is None:
                        file.seek(0)
                        self._lines = _parsed(file, self.path, self._lines)
                    else:
                        self._lines.update(changed)
                self._failure = ""
            except OSError as error:
                if self._failure != str(error):
                    _log.error("MS730 map = %s: %s", self.path, error.strerror)
                self._failure = str(error)
            self._stamp = stamp

    def _stamped(self) -> tuple[int, ...]:
        try:
            status = os.stat(self.path)
        except OSError:
            return ()
        return status.st_mtime_ns, status.st_ino, status.st_size


def _changed(lines: Iterable[str], former: Mapping[str, str]) -> dict[str, str] | None:
    """Return the keys whose nodes are others now, or that are new at the end of the file.

    None where there is more to it: another order, keys that are gone, wrong lines. Of a large file the table then is
    made anew, and for a while there are two.
    """
    expected = iter(former.items())
    changed: dict[str, str] = {}
    try:
        for line in lines:
            words = _words(line)
            if not words:
                continue
            text = words[1] if len(words) == 2 else "".join(words[1:])
            key, was = next(expected, ("", ""))
            if not key:
                key = keys.normal(words[0])
                if key in former:
                    return None
            elif words[0] != key and keys.normal(words[0]) != key:
                return None
            if text != was:
                changed[key] = text
    except ValueError:
        return None
    return changed if next(expected, None) is None else None


def _parsed(lines: Iterable[str], path: str, former: Mapping[str, str]) -> dict[str, str]:
    """Return the nodes of each key; a key that was there before is in its normal form."""
    found: dict[str, str] = {}
    shared: dict[str, str] = {}  # one text for all keys of a node
    wrong = 0
    for number, line in enumerate(lines, 1):
        try:
            words = _words(line)
            if not words:
                continue
            key = words[0] if words[0] in former else keys.normal(words[0])
            text = words[1] if len(words) == 2 else "".join(words[1:])
            found[key] = shared.setdefault(text, text) if len(shared) < MOST_SHARED else shared.get(text, text)
        except ValueError as error:
            wrong += 1
            if wrong <= MOST_COMPLAINTS:
                _log.error("MS732 %s, line %s: %s", path, number, error)
    if wrong > MOST_COMPLAINTS:
        _log.error("MS732 %s: %s more lines are wrong", path, wrong - MOST_COMPLAINTS)
    return found


def _words(line: str) -> list[str]:
    """Return the key and the nodes that a line names; nothing for one that is empty or a comment.

    Raises:
        ValueError: it is neither.
    """
    words = line.split()
    if not words or words[0][0] in "#;":
        return []
    if len(words) < 2:
        raise ValueError("a line is KEY NODE[,modifier1][|NODE…]")
    return words


def map_faults(path: str) -> Iterator[tuple[int, str, str]]:
    """Yield the number of each line of a mapping file that is wrong, the line, and the reason.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            try:
                words = _words(line)
                if words:
                    keys.normal(words[0])
                    nodes.parse_all("".join(words[1:]))
            except ValueError as error:
                yield number, line.strip(), str(error)


class Pattern:
    """``pattern = DIR/%s/uwsgi.sock`` and ``base = DIR``: a socket for each key.

    A key whose socket does not exist is unknown; a pattern that is not a path has a node for every key.
    """

    def __init__(self, name: str, pattern: str, groups: Groups) -> None:
        self.name = name
        self._pattern = pattern
        self._groups = groups
        path = pattern.partition("unix:")[2] or pattern
        self._before, _, after = path.partition("%s")
        self._after = after.partition(",")[0]
        self._is_path = path.startswith("/")
        self._there: dict[str, Group] = {}  # by key: those whose socket existed a moment ago

    def find(self, key: str) -> Group | None:
        """Return the node of a key, if its socket is there."""
        there = self._there.get(key)
        if there:
            return there
        if self._is_path:
            try:
                if not stat.S_ISSOCK(os.stat(self._before + key + self._after).st_mode):
                    return None
            except (OSError, ValueError):  # a key that cannot be a file name has no node
                return None
        found = self._groups.of(self._pattern.replace("%s", key), self.name)
        if found and self._is_path:
            self._there[key] = found
        return found

    def look(self) -> None:
        """Let the next request for each key look for its socket again."""
        self._there = {}


class Fixed:
    """``to = NODE…`` and ``fallback = NODE…``: the same nodes for every key."""

    def __init__(self, name: str, members: tuple[Node, ...]) -> None:
        self.name = name
        self.group = Group(members)

    def find(self, key: str) -> Group | None:
        """Return the nodes."""
        return self.group

    def look(self) -> None:
        """Do nothing: they never change."""


class NamedNodes:
    """``provision =``: the nodes that were named for new domains; the newest are remembered."""

    name = "provision"

    def __init__(self, groups: Groups, named: Mapping[str, str] | None = None) -> None:
        self._groups = groups
        self._named = OrderedDict(named or {})

    def remember(self, key: str, text: str) -> None:
        """Remember the nodes of a key; one thread calls this at a time."""
        self._named.pop(key, None)
        while len(self._named) >= MOST_NAMED:
            self._named.popitem(last=False)
        self._named[key] = text

    def find(self, key: str) -> Group | None:
        """Return the nodes that were named for a key."""
        text = self._named.get(key)
        return self._groups.of(text, self.name) if text else None

    def entries(self) -> Iterator[tuple[str, Group | None]]:
        """Yield each key and its nodes."""
        for key, text in list(self._named.items()):
            yield key, self._groups.of(text, self.name)

    def look(self) -> None:
        """Do nothing: there is no file."""
