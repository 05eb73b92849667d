"""The globs of ``[projects] read``: the folders they look into and the paths they name."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os

from multisite.config.model import Home
from multisite.errors import Problem

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def patterns(home: Home) -> list[str]:
    """Return the globs, absolute."""
    return [os.path.normpath(os.path.join(home.path, os.path.expanduser(glob))) for glob in home.projects.read]


def folders(home: Home) -> list[str]:
    """Return the folders that the globs look into, each once; they may have wildcards too."""
    return list(dict.fromkeys(map(os.path.dirname, patterns(home))))


def enabled_paths(home: Home) -> list[str]:
    """Return the paths that the globs name: in their order, sorted by name within each."""
    paths: dict[str, None] = {}
    for pattern in patterns(home):
        paths.update(dict.fromkeys(_expand(pattern)))
    return list(paths)


def _expand(pattern: str) -> list[str]:
    directory, name = os.path.split(pattern)
    if glob.has_magic(directory) or "**" in name:
        return sorted(glob.glob(pattern, recursive=True))
    if not glob.has_magic(name):
        return [pattern] if os.path.lexists(pattern) else []
    try:
        names = fnmatch.filter(os.listdir(directory), name)
    except OSError:
        return []
    return [f"{directory}/{found}" for found in sorted(names) if not found.startswith(".")]


def unlisted(home: Home) -> dict[str, OSError]:
    """Return the folders that cannot be listed, with the error of each."""
    return {folder: error for folder in folders(home) if (error := _error_of(folder))}


def _error_of(folder: str) -> OSError | None:
    if glob.has_magic(folder):
        return None
    try:
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        os.stat(os.path.join(folder, "."))
    except OSError as error:
        return error
    return None


def problem(home: Home, folder: str, error: OSError) -> Problem:
    """Say that `folder` cannot be listed; one that is not there yet is no more than a warning."""
    if error.errno in GONE:
        reason, remedy, severity = f"there is no folder {folder}", "create it or correct the path", "warning"
    else:
        reason = f"the folder {folder} cannot be read ({(error.strerror or 'error').lower()})"
        remedy, severity = "give the service's user permission to read it", "error"
    value = ", ".join(home.projects.read)
    return Problem(home.file, reason, "projects", "read", value, remedy, severity)
