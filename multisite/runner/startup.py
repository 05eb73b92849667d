"""What runs in an interpreter before anything that was asked for: its own start-up files."""

from __future__ import annotations

import os
import re
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CUSTOM = ("sitecustomize", "usercustomize")
LARGEST = 65536  # bytes of a file that are looked at
_NAMES = re.compile(r"""["']([A-Z][A-Z0-9_]*)["']""")


def said_at_startup() -> set[str]:
    """The names of environment variables, as far as one can tell, that the interpreter's start-up files ask for.

    They have run already, so nobody could watch them: what looks like such a name in their text is taken for one.
    """
    return {name for text in _texts() for name in _NAMES.findall(text)}


def _texts() -> Iterator[str]:
    """`sitecustomize` and the like, and those lines of path configuration files that are run (`site`)."""
    for name in CUSTOM:
        path = getattr(sys.modules.get(name), "__file__", None)
        if path:
            yield _read(path)
    for folder in sys.path:
        for name in _listed(folder):
            if name.endswith(".pth"):
                lines = _read(os.path.join(folder, name)).splitlines()
                yield "\n".join(line for line in lines if line.startswith(("import ", "import\t")))


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST)
    except OSError:
        return ""


def strangers(folders: Iterable[str]) -> str:
    """The first file or folder below `folders` that somebody else than root may write, "" where there is none.

    What has been installed as editable stands elsewhere; it is looked at as well.
    """
    found = list(folders)
    for finder in filter(_is_editable, sys.meta_path):
        elsewhere = _leads_to(finder)
        if not elsewhere:
            return repr(finder)
        found += elsewhere
    return next(filter(None, map(_stranger_in, found)), "")


def _stranger_in(folder: str) -> str:
    for path in _above(folder):
        if _is_strange(path):
            return path
    for top, below, names in os.walk(folder):
        for name in (*below, *names):
            if _is_strange(os.path.join(top, name), in_it=True):
                return os.path.join(top, name)
    return ""


def _above(path: str) -> Iterator[str]:
    path = os.path.realpath(path)
    yield path
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        yield path


def _is_strange(path: str, *, in_it: bool = False) -> bool:
    """Whether others may write it; above our folders, those are harmless where everybody has files of his own."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    if in_it and os.path.islink(path):
        return any(map(_is_strange, _above(path)))
    others = stat.S_IWOTH | (stat.S_IWGRP if status.st_gid else 0)
    if not in_it and stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        others = 0
    return bool(status.st_uid or status.st_mode & others)


def _home(finder: object) -> str:
    """The name of the module that a finder was defined in."""
    return finder.__module__ if isinstance(finder, type) else type(finder).__module__


def _is_editable(finder: object) -> bool:
    """Whether a finder knows packages that stand somewhere else: setuptools writes one for an editable package."""
    return _home(finder).startswith("__editable__")


def _leads_to(finder: object) -> list[str]:
    """The folders that such a finder imports from, as its module says; none where that has another shape."""
    module = sys.modules.get(_home(finder))
    packages: dict[str, str] = getattr(module, "MAPPING", {})
    parts: dict[str, list[str]] = getattr(module, "NAMESPACES", {})
    paths = [*packages.values(), *(path for several in parts.values() for path in several)]
    return [path if os.path.isdir(path) else os.path.dirname(path) for path in paths]
