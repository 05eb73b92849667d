"""Read the folder of somebody's project: parse its Python and INI files, and find its virtualenv.

None of its code is imported or run.
"""

from __future__ import annotations

import ast
import configparser
import os
import warnings
from collections.abc import Iterator

from multisite.status.project.sources import Project

MOST_FILES = 500  # to read for one project
LARGEST = 512 * 1024  # bytes of a file to read
DEEPEST = 3  # folders below that of the project
VENVS = (".venv", "venv", "env", ".env", "virtualenv")
_SKIPPED = frozenset(
    {"tests", "test", "docs", "node_modules", "site-packages", "migrations", "build", "dist", "static"}
)


def survey(folder: str) -> Project:
    """Read the project in `folder`.

    Raises:
        OSError: the folder does not exist or may not be read.
    """
    os.listdir(folder)
    project = Project(folder, venv=_venv(folder))
    for path in source_files(folder):
        _take(project, path)
    return project


def _take(project: Project, path: str) -> None:
    name = os.path.relpath(path, project.folder)
    text = read(path)
    if name.endswith(".ini"):
        sections = _sections(text)
        if sections:
            project.inis[name] = sections
    else:
        tree = parse(text)
        if tree:
            project.sources[name] = tree
        else:
            project.unreadable.append(name)


def source_files(folder: str) -> Iterator[str]:
    """Yield the Python files of a project and the INI files in its own folder, without installed packages and tests."""
    left = MOST_FILES
    for place, folders, files in os.walk(folder):
        depth = os.path.relpath(place, folder).count(os.sep) + (place != folder)
        folders[:] = sorted(name for name in folders if depth < DEEPEST and _is_theirs(place, name))
        for name in sorted(files):
            if name.endswith((".py", ".wsgi")) or (name.endswith(".ini") and place == folder):
                yield os.path.join(place, name)
                left -= 1
                if not left:
                    return


def _is_theirs(place: str, name: str) -> bool:
    """Tell whether a folder may hold the project's own code."""
    return not name.startswith((".", "__")) and name not in _SKIPPED and not _is_venv(os.path.join(place, name))


def read(path: str) -> str:
    """Return the text of a file; "" if it is too large, unreadable or not a file."""
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > LARGEST:
            return ""
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def parse(text: str) -> ast.Module | None:
    """Parse Python; None if this interpreter does not accept it."""
    with warnings.catch_warnings():  # about escapes in the project's strings
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _sections(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    return {section: {key: value or "" for key, value in parser.items(section)} for section in parser.sections()}


def _is_venv(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, "pyvenv.cfg"))


def _venv(folder: str) -> str:
    """Return the virtualenv of the project, in its folder or beside it; "" if there is none."""
    for place in (folder, os.path.dirname(folder)):
        for name in VENVS:
            found = os.path.join(place, name)
            if _is_venv(found) and os.path.exists(os.path.join(found, "bin", "python")):
                return found
    return ""
