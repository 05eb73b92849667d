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
    """The first file or folder below `folders` that somebody else than root may write, "" where there is none."""
    for folder in folders:
        for path in _above(folder):
            if _is_strange(path):
                return path
        for top, below, names in os.walk(folder):
            for name in (*below, *names):
                if _is_strange(os.path.join(top, name), in_it=True):
                    return os.path.join(top, name)
    return next((repr(finder) for finder in sys.meta_path if _leads_elsewhere(finder)), "")


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


def _leads_elsewhere(finder: object) -> bool:
    """Whether a finder knows packages that stand somewhere else: those installed as editable."""
    where = finder.__module__ if isinstance(finder, type) else type(finder).__module__
    return where.startswith("__editable__")
