"""Claims: to which site of an interpreter a top-level module name belongs.

Sites that share an interpreter share `sys.modules`, so a name such as ``helper`` can
have only one meaning. The first site that is used claims the names of its directory; a
later one with the same name elsewhere may not share. The ledger is kept in the state
directory, so that all workers, and `multisite explain`, give the same answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any

from multisite.errors import NeedsProcess
from multisite.sites.statefile import StateFile

DJANGO = "<django>"  # claimed by the one Django project that an interpreter can hold
EACH = "<each>"  # in place of a directory: each site that claims the name in this way has its own module (`finder`)

# Files in nearly every project's folder that no serving code imports.
NEVER_SERVED = frozenset({"conftest", "docs", "fabfile", "manage", "noxfile", "setup", "tasks", "test", "tests"})

MOST_NAMES = 8  # clashing modules that a reason lists

Names = dict[str, str]  # top-level name → the directory that it is imported from, or `EACH`


def importable_names(directory: str) -> set[str]:
    """Return the top-level names that `directory` would offer on the import path.

    Modules, extension modules, packages, and folders that hold modules (PEP 420).
    """
    names = set()
    try:
        with os.scandir(directory) as found:
            for item in found:
                name = _module_name(item)
                if name:
                    names.add(name)
    except OSError:
        pass
    return names - NEVER_SERVED


def _module_name(item: os.DirEntry[str]) -> str:
    stem, dot, _ = item.name.partition(".")
    if not stem.isidentifier() or stem == "__pycache__":
        return ""
    if dot:  # gunicorn.conf.py is not a module; x.cpython-311-x86_64-linux-gnu.so is
        return stem if item.name[len(stem) :] in (".py", *EXTENSION_SUFFIXES) else ""
    return stem if item.is_dir() and _holds_modules(item.path) else ""


def _holds_modules(directory: str) -> bool:
    try:
        return any(name.endswith((".py", *EXTENSION_SUFFIXES)) for name in os.listdir(directory))
    except OSError:
        return False


def conflict(names: Mapping[str, str], others: Mapping[str, Mapping[str, str]]) -> str:
    """Return why a site that needs `names` may not share with `others`, "" if it may.

    Two sites that import a name from the same directory use the same module.
    """
    for other, held in others.items():
        if DJANGO in names.keys() & held.keys():
            return f"it is a second Django project, and this interpreter, which can hold only one, has '{other}'"
        clashing = [name for name in sorted(names.keys() & held.keys()) if names[name] != held[name]]
        if len(clashing) == 1:
            return f"its module '{clashing[0]}' clashes with the '{clashing[0]}' of site '{other}', which came first"
        if clashing:
            told = ", ".join(f"'{name}'" for name in clashing[:MOST_NAMES])
            more = ", …" if len(clashing) > MOST_NAMES else ""
            return f"its modules {told}{more} clash with those of site '{other}', which came first"
    return ""


class Ledger:
    """The claims of one home's sites, shared by all its processes."""

    def __init__(self, file: StateFile, is_live: Callable[[str, Mapping[str, str]], bool]) -> None:
        self._file = file
        self._is_live = is_live  # (site name, its claims) → still enabled, and they are still its own?
        self._here: dict[str, Names] = {}  # used if the state directory cannot be written

    def others(self, site: str) -> dict[str, Names]:
        """Return the live claims of all other sites."""
        return {name: held for name, held in self._load().items() if name != site and self._is_live(name, held)}

    def acquire(self, site: str, names: Names) -> None:
        """Claim `names` for `site`, instead of its earlier claims.

        Raises:
            NeedsProcess: another site has one of them; then `site` keeps its earlier claims.
        """
        with self._file.locked():
            claims = self.others(site)
            reason = conflict(names, claims)
            if reason:
                raise NeedsProcess(reason)
            if names:
                claims[site] = dict(names)
            self._store(claims)

    def release(self, sites: Iterable[str]) -> None:
        """Release all claims of `sites`."""
        sites = set(sites)
        with self._file.locked():
            claims = self._load()
            if sites & claims.keys():
                self._store({name: held for name, held in claims.items() if name not in sites})

    def _load(self) -> dict[str, Names]:
        document = self._file.load()
        return dict(self._here) if document is None else _checked(document)

    def _store(self, claims: dict[str, Names]) -> None:
        self._here = claims
        self._file.store({"claims": claims})


def _checked(document: Any) -> dict[str, Names]:
    claims = document.get("claims") if isinstance(document, dict) else None
    if not isinstance(claims, dict):
        return {}
    return {
        str(site): {str(name): str(root) for name, root in names.items()}
        for site, names in claims.items()
        if isinstance(names, dict)
    }
