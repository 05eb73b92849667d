"""How a shared interpreter imports the modules of its sites.

`multisite.inprocess.loader` decides *what* to import and asks an `Importer` to do it, so that the
host of the site decides where its modules live.

No site's directory is ever on `sys.path`: a finder answers for the claimed top-level
names alone, so a name is the same module whichever site was imported first. A module
that belongs to one site does not exist for another, as if it were not installed.

If no other file of its site imports a module, such as most ``app.py``, each site has its own. They are in
`sys.modules` under unique names, and their ``__name__`` is the plain one.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from multisite.logs import servicelog
from multisite.logs.servicelog import current_site
from multisite.runner.load import import_file, unique_name

if TYPE_CHECKING:
    from multisite.config.model import Site


class Importer(Protocol):
    """Imports for one site. What the site's code raises is not changed."""

    def module(self, dotted: str) -> ModuleType:
        """Return the module of that name, as ``import`` would give it to this site."""

    def file(self, path: str) -> ModuleType:
        """Execute the file under a unique module name, registered in `sys.modules`."""


class PlainImporter:
    """Python's own import; it leaves `sys.path` alone."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @classmethod
    def alone(cls, site: Site) -> PlainImporter:
        """Prepare a process that only the site uses: its location comes first in `sys.path` from now on."""
        if site.location and site.location not in sys.path:
            sys.path.insert(0, site.location)
        return cls(site)

    def module(self, dotted: str) -> ModuleType:
        """Import a dotted module; a file written a moment ago is seen."""
        importlib.invalidate_caches()
        return importlib.import_module(dotted)

    def file(self, path: str) -> ModuleType:
        """Execute a file under a name that no other site's has."""
        return import_file(path, unique_name(self._site.name, path))


class SiteFinder:
    """The claims of this process as a finder (PEP 302, PEP 451).

    Attributes:
        owners: top-level name → its directory, and the sites that have it.
        each: top-level name → site → the name in `sys.modules` of that site's own module.
        fenced: all these names.
    """

    def __init__(self) -> None:
        self.owners: dict[str, tuple[str, frozenset[str]]] = {}
        self.each: dict[str, dict[str, str]] = {}
        self.fenced: frozenset[str] = frozenset()
        self._locations: dict[str, str] = {}  # of the sites in `each`

    def add(self, site: str, names: Mapping[str, str]) -> None:
        """Let `site` import each name from its directory."""
        owners = dict(self.owners)
        for name, root in names.items():
            _root, sites = owners.get(name, (root, frozenset()))
            owners[name] = (root, sites | {site})
            if isinstance(sys.modules.get(name), OwnModule):
                del sys.modules[name]
        self.owners = owners
        if names:
            self._install()

    def add_own(self, site: str, location: str, name: str, key: str) -> None:
        """Make `name` stand, for `site` alone, for the module that is in `sys.modules` as `key`."""
        self._locations[site] = os.path.join(os.path.realpath(location), "")
        self.each = {**self.each, name: {**self.each.get(name, {}), site: key}}
        if not isinstance(sys.modules.get(name), OwnModule):
            sys.modules[name] = OwnModule(name)
        self._install()

    def remove(self, site: str) -> set[str]:
        """Forget `site`; return the names that no site claims any more."""
        left = {name: (root, sites - {site}) for name, (root, sites) in self.owners.items()}
        self.owners = {name: claim for name, claim in left.items() if claim[1]}
        self._remove_own(site)
        self._install()
        return left.keys() - self.owners.keys()

    def _remove_own(self, site: str) -> None:
        left = {name: {one: key for one, key in keys.items() if one != site} for name, keys in self.each.items()}
        self.each = {name: keys for name, keys in left.items() if keys}
        self._locations.pop(site, None)
        for name in left.keys() - self.each.keys():
            if isinstance(sys.modules.get(name), OwnModule):
                del sys.modules[name]

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a claimed top-level module for its owner."""
        claim = self.owners.get(fullname)
        if path is not None or claim is None or self.hidden(fullname):
            return None
        return PathFinder.find_spec(fullname, [claim[0]])

    def invalidate_caches(self) -> None:
        """Do nothing: there is no cache here."""

    def hidden(self, top_level: str) -> bool:
        """Tell whether a name belongs to sites other than the one that asks."""
        claim = self.owners.get(top_level)
        sites = claim[1] if claim else self.each.get(top_level)
        asking = current_site.get()
        return sites is not None and asking != "" and asking not in sites

    def own(self, name: str) -> ModuleType | None:
        """Return the module `name` of the asking site, if it has its own."""
        return sys.modules.get(self.key(name))

    def key(self, name: str) -> str:
        """Return its name in `sys.modules`, "" if there is none."""
        keys = self.each.get(name)
        return keys.get(current_site.get() or self._site_of_caller(keys), "") if keys else ""

    def _site_of_caller(self, sites: Iterable[str]) -> str:
        """Return the site whose code asks, in a thread that a site has started."""
        frame = sys._getframe()
        while frame.f_back:
            frame = frame.f_back
            path = os.path.realpath(frame.f_code.co_filename)
            for site in sites:
                if path.startswith(self._locations.get(site, "\0")):
                    return site
        return ""

    def _install(self) -> None:
        self.fenced = frozenset((*self.owners, *self.each))
        if self in sys.meta_path or not self.fenced:
            return
        sys.meta_path.insert(0, self)
        builtins.__import__ = _fenced(self, builtins.__import__)
        importlib.import_module = _fenced_function(self, importlib.import_module)
        servicelog.part_loggers(self.key)


class OwnModule(ModuleType):
    """Represents in `sys.modules` a name for which several sites each have their own module.

    Code that looks a site's class up by the name of its module (pickle, dataclasses, Flask) finds that site's module.
    """

    def __getattribute__(self, name: str) -> Any:
        found = _found(self)
        return ModuleType.__getattribute__(self, name) if found is None else getattr(found, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(_found(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_found(self), name)

    def __dir__(self) -> list[str]:
        return dir(_found(self))


def _found(module: OwnModule) -> ModuleType | None:
    """Return what the site that asks means; its own name is all that such a module knows."""
    return finder.own(ModuleType.__getattribute__(module, "__name__"))


def _fenced(finder: SiteFinder, original: Any) -> Any:
    # sys.modules is asked before any finder, so `import local_settings` of a site that has none
    # would silently get its neighbour's: only the import statement itself can know who asks.
    def __import__(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level == 0 and name.partition(".")[0] in finder.fenced:
            own = _own_or_hidden(finder, name)
            if own:
                return own
        return original(name, globals, locals, fromlist, level)

    return __import__


def _fenced_function(finder: SiteFinder, original: Any) -> Any:
    @functools.wraps(original)
    def import_module(name: str, package: str | None = None) -> ModuleType:
        if name.partition(".")[0] in finder.fenced:
            own = _own_or_hidden(finder, name)
            if own:
                return own
        found: ModuleType = original(name, package)
        return found

    return import_module


def _own_or_hidden(finder: SiteFinder, name: str) -> ModuleType | None:
    """Return the asking site's own module of this name; raise if only other sites have one."""
    if finder.hidden(name.partition(".")[0]):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return finder.own(name)


finder = SiteFinder()


def modules_of(names: Iterable[str]) -> list[str]:
    """Return the loaded modules at and below the top-level `names`."""
    names = set(names)
    return [module for module in list(sys.modules) if module.partition(".")[0] in names]


def referring(names: Iterable[str], candidates: Iterable[str]) -> set[str]:
    """Return the top-level names among `candidates` that refer to `names`, directly or not.

    A module that refers to one that is imported again would keep using the old one: Django's
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
    """Remove the modules at and below `names` from `sys.modules`; return them, to restore them."""
    found = [module for module in modules_of(names) if not isinstance(sys.modules.get(module), OwnModule)]
    taken = {module: sys.modules.pop(module) for module in found if module in sys.modules}
    importlib.invalidate_caches()
    return taken
