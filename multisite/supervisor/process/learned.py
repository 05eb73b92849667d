"""What is known of the modules that sites of one interpreter and user import, kept in the state directory."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from multisite.config.model import Home
from multisite.sites.statefile import StateFile

MOST_MODULES = 4000
MOST_PAIRS = 500
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\Z")
_LONGEST = 200  # characters of a name


@dataclass
class Knowledge:
    """Of one pair of interpreter and user.

    Attributes:
        modules: what its sites import, in the order of their imports.
        denied: module to why it is not preloaded; whatever is below it is not, either.
    """

    modules: dict[str, None] = field(default_factory=dict)
    denied: dict[str, str] = field(default_factory=dict)

    def learn(self, names: Iterable[str]) -> int:
        """Take names of modules that a site says it imports, whatever it says; returns how many are new."""
        before = len(self.modules)
        for name in itertools.islice(names, MOST_MODULES):
            if len(self.modules) >= MOST_MODULES:
                break
            if len(name) <= _LONGEST and _NAME.match(name) and not self.is_denied(name):
                self.modules.setdefault(name)
        return len(self.modules) - before

    def is_denied(self, name: str) -> bool:
        """Tell whether a module is not to be preloaded."""
        parts = name.split(".")
        return any(".".join(parts[: end + 1]) in self.denied for end in range(len(parts)))

    def deny(self, reasons: Mapping[str, str]) -> None:
        """Have modules preloaded no more, for these reasons."""
        for name, reason in itertools.islice(reasons.items(), max(0, MOST_MODULES - len(self.denied))):
            if len(name) <= _LONGEST and _NAME.match(name):
                self.denied[name] = reason[:_LONGEST]
        self.modules = {module: None for module in self.modules if not self.is_denied(module)}


class Learned:
    """The knowledge of a home, by pair; a pair is a text."""

    def __init__(self, home: Home) -> None:
        self._file = StateFile(home, "preload")
        self._pairs: dict[str, Knowledge] = {}
        self._changed = False
        document = self._file.load()
        for pair, told in document.items() if isinstance(document, dict) else ():
            self._pairs[pair] = _read(told)

    def of(self, pair: str) -> Knowledge:
        """Return what is known of a pair; nothing, where it is new."""
        return self._pairs.setdefault(pair, Knowledge())

    def forget_denied(self, pair: str) -> None:
        """Have all modules of a pair tried again, whose packages may be others now."""
        self.of(pair).denied.clear()
        self._changed = True

    def change(self) -> None:
        """Note that something is to be kept."""
        self._changed = True

    def keep(self) -> None:
        """Write it down, if there is anything new."""
        if self._changed:
            newest = list(self._pairs.items())[-MOST_PAIRS:]
            told = {p: {"modules": list(k.modules), "denied": k.denied} for p, k in newest if k.modules}
            self._changed = not self._file.store(told)


def _read(told: Any) -> Knowledge:
    """Believe no more of a document than its types."""
    knowledge = Knowledge()
    if isinstance(told, dict):
        denied, modules = told.get("denied"), told.get("modules")
        if isinstance(denied, dict):
            knowledge.deny({str(name): str(reason) for name, reason in denied.items()})
        knowledge.learn(map(str, modules) if isinstance(modules, list) else ())
    return knowledge
