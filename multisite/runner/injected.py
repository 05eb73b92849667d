"""gunicorn, for sites that have none of their own: under that name and no other.

A finder answers for the top-level name ``gunicorn`` alone, so nothing else of our installation can be seen. A
gunicorn of the site's own wins if it has what we need of it, which its file says without running it; otherwise, and
where a site's file merely has that name (a configuration called ``gunicorn.py``), ours stands first.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

NAME = "gunicorn"
FOR_WSGI = (22, 0)  # `SyncWorker.handle`, and a parser that cannot be led astray
FOR_ASGI = (27, 0)  # the inside of `ASGIProtocol`
_VERSION = re.compile(r"^version_info = \((\d+), (\d+)", re.MULTILINE)


class Finder:
    """Finds the gunicorn of one folder."""

    def __init__(self, folder: str) -> None:
        self._path = [os.path.dirname(os.path.abspath(folder))]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the import system asks."""
        return PathFinder.find_spec(name, self._path) if name == NAME else None


def inject(folder: str, least: tuple[int, int]) -> bool:
    """Make sure that ``import gunicorn`` gives at least that version; return whether it is the site's own.

    It may be called again with another version, as long as nobody has imported gunicorn.
    """
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Finder)]
    is_own = _version(PathFinder.find_spec(NAME)) >= least
    if folder:
        sys.meta_path.insert(len(sys.meta_path) if is_own else 0, Finder(folder))
    return is_own


def _version(spec: ModuleSpec | None) -> tuple[int, int]:
    """The version of a package by its source; (0, 0) if it is none."""
    if spec is None or not spec.origin or not spec.submodule_search_locations:
        return (0, 0)
    try:
        with open(spec.origin, encoding="utf-8") as file:
            found = _VERSION.search(file.read(10000))
    except (OSError, ValueError):
        return (0, 0)
    return (int(found[1]), int(found[2])) if found else (0, 0)
