"""How a shared interpreter imports the modules of its sites.

No site's directory is ever on `sys.path`: a finder answers for the claimed top-level
names alone, so a name means the same module whoever was imported first. A module that
belongs to one site is not there for another, as if it were not installed.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from multisite.logs import current_site


class SiteFinder:
    """The claims of this process as a finder (PEP 302, PEP 451)."""

    def __init__(self) -> None:
        self.owners: dict[str, tuple[str, frozenset[str]]] = {}  # top-level name → directory, its sites

    def add(self, site: str, names: Mapping[str, str]) -> None:
        """Let `site` import each name from its directory."""
        owners = dict(self.owners)
        for name, root in names.items():
            _root, sites = owners.get(name, (root, frozenset()))
            owners[name] = (root, sites | {site})
        self.owners = owners
        if names:
            self._install()

    def remove(self, site: str) -> set[str]:
        """Forget `site`; return the names that nobody claims any more."""
        left = {name: (root, sites - {site}) for name, (root, sites) in self.owners.items()}
        self.owners = {name: claim for name, claim in left.items() if claim[1]}
        return left.keys() - self.owners.keys()

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a claimed top-level module for its owner."""
        claim = self.owners.get(fullname)
        if path is not None or claim is None or self.hidden(fullname):
            return None
        return PathFinder.find_spec(fullname, [claim[0]])

    def invalidate_caches(self) -> None:
        """Nothing is cached here."""

    def hidden(self, top_level: str) -> bool:
        """Tell whether a name belongs to sites other than the one that asks."""
        claim = self.owners.get(top_level)
        asking = current_site.get()
        return claim is not None and asking != "" and asking not in claim[1]

    def _install(self) -> None:
        if self in sys.meta_path:
            return
        sys.meta_path.insert(0, self)
        builtins.__import__ = _fenced(self, builtins.__import__)


def _fenced(finder: SiteFinder, original: Any) -> Any:
    # sys.modules is asked before any finder, so `import local_settings` of a site that has none
    # would silently get its neighbour's: only the import statement itself can know who asks.
    owners_of = finder.hidden

    def __import__(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level == 0 and name.partition(".")[0] in finder.owners and owners_of(name.partition(".")[0]):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, globals, locals, fromlist, level)

    return __import__


finder = SiteFinder()


def modules_of(names: Iterable[str]) -> list[str]:
    """Return the loaded modules at and beneath the top-level `names`."""
    names = set(names)
    return [module for module in list(sys.modules) if module.partition(".")[0] in names]


def referring(names: Iterable[str], candidates: Iterable[str]) -> set[str]:
    """Return the top-level names among `candidates` that refer to `names`, directly or not.

    What refers to a module that is imported anew would go on using the old one: Django's
    applications keep its registry, for instance. `names` themselves are included.
    """
    packages: dict[str, set[str]] = {}
    for module in candidates:
        packages.setdefault(module.partition(".")[0], set()).update(_refers_to(module))
    tainted = set(names)
    while True:
        more = {package for package, refers in packages.items() if refers & tainted} - tainted
        if not more:
            return tainted
        tainted |= more


def _refers_to(module: str) -> set[str]:
    values = list(vars(sys.modules.get(module) or ModuleType("")).values())
    owners = (v.__name__ if isinstance(v, ModuleType) else getattr(type(v), "__module__", "") for v in values)
    defined = (v.__module__ for v in values if isinstance(v, type) or callable(v) if hasattr(v, "__module__"))
    return {str(name).partition(".")[0] for name in (*owners, *defined) if name}


def forget(names: Iterable[str]) -> dict[str, ModuleType]:
    """Take the modules at and beneath `names` out of `sys.modules`; return them, to put them back."""
    taken = {module: sys.modules.pop(module) for module in modules_of(names) if module in sys.modules}
    importlib.invalidate_caches()
    return taken
