"""What a site imports from its interpreter: the names that a preloader may import beforehand."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .notify import Notifier

LIBRARIES = ("site-packages", "dist-packages")
MOST = 4000  # names
known: set[str] = set()  # what the supervisor knows of already, because this process was forked with it
LONGEST = 60_000  # bytes that are told


class Learner:
    """Tells the supervisor which modules the site has needed, once it knows more than it has told.

    Most of a site is loaded with its app; a framework may leave a part of it to the first request.
    """

    def __init__(self, notifier: Notifier, gunicorn: str) -> None:
        self._notifier = notifier
        self._gunicorn = gunicorn
        self._told = 0

    def tell(self) -> None:
        """Tell the names of all modules of the interpreter, in the order of their imports."""
        if len(sys.modules) > self._told:
            self._told = len(sys.modules)
            found = names(self._gunicorn)
            if found:
                self._notifier.modules(found)


def names(gunicorn: str = "") -> str:
    """The modules that were imported from the interpreter's own folders, separated by blanks, within bounds."""
    folders = tuple(folder + os.sep for folder in _folders(gunicorn))
    new = ((name, module) for name, module in list(sys.modules.items()) if name not in known)
    found = [name for name, module in new if _is_from(folders, name, module)]
    text = " ".join(found[:MOST])
    return text if len(text) <= LONGEST else text[:LONGEST].rpartition(" ")[0]


def _folders(gunicorn: str) -> list[str]:
    """Where the standard library is, and what is installed."""
    standard = os.path.dirname(os.__file__)
    installed = [path for path in sys.path if os.path.basename(path) in LIBRARIES]
    return [path for path in (standard, os.path.join(standard, "lib-dynload"), *installed, gunicorn) if path]


def _is_from(folders: tuple[str, ...], name: str, module: object) -> bool:
    spec: Any = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    if not isinstance(origin, str) or spec.name != name:
        return False
    return origin.startswith(folders) and name.isascii() and all(map(str.isidentifier, name.split(".")))
