"""Changes of a site's files: whether they differ from those that were loaded, and since when.

Two sets of files are watched: those whose change reloads a site, by worker and supervisor, and its code, for
development and to identify its version. None is read: a file is identified by its attributes, never by being newer.
A roll-back, ``rsync -a`` and a link that is set back bring older times, and a file may have tomorrow's. A missing file
causes nothing; when it is back, it counts if it differs.

The owner of a tree can put anything into it, and the processes that look at it have other work: a look has limits.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from itertools import islice
from typing import Any

from multisite.config.model import Home, Site
from multisite.sites import sitedir

QUIET = 0.5  # seconds without a further change after which a change is taken: deploying a tree touches many files
LONGEST_LOCK = 60.0  # seconds after which a lock of git counts as forgotten
MOST_FOLDERS = 8  # folders that are searched for a lock: the site's and those above
MOST_NAMES = 10000  # files that one look notes, in all folders together
MOST_IN_FOLDER = 2000  # a folder with more holds data
DEEPEST = 100  # nested folders
LONGEST_LOOK = 0.5  # seconds


class Look:
    """One look at the tree below `top`: it never leaves the tree, visits nothing twice, and ends."""

    def __init__(self, top: str) -> None:
        self._top = top
        self._bound = os.path.realpath(top) + os.sep
        self._entered: set[tuple[int, int]] = set()
        self._left = MOST_NAMES
        self._until = time.monotonic() + LONGEST_LOOK

    def below(
        self, enters: Callable[[os.DirEntry[str]], bool], deeper: int = DEEPEST, folder: str = ""
    ) -> Iterator[tuple[os.DirEntry[str], int]]:
        """Return the entries of a folder, by name, and then those of the folders below that `enters` chooses.

        Args:
            enters: decides whether to look into a folder, which may be a link.
            deeper: how many folders deep to go; each item comes with the number that is left.
            folder: where to begin; "": at the top.
        """
        folders = []
        for item in self._at(folder or self._top):
            yield item, deeper
            try:
                if deeper and item.is_dir() and enters(item) and self._is_new(item):
                    folders.append(item.path)
            except OSError:
                continue
        for path in folders:
            yield from self.below(enters, deeper - 1, path)

    def _at(self, folder: str) -> list[os.DirEntry[str]]:
        """Return the entries of a folder, by name, as far as the limits allow."""
        found: list[os.DirEntry[str]] = []
        try:
            with os.scandir(folder) as entries:
                for item in entries:
                    if self._left <= 0 or len(found) >= MOST_IN_FOLDER or time.monotonic() > self._until:
                        break
                    self._left -= 1
                    found.append(item)
        except OSError:
            pass
        return sorted(found, key=lambda item: item.name)

    def _is_new(self, folder: os.DirEntry[str]) -> bool:
        """Tell whether it belongs to this tree and has not been visited yet."""
        if folder.is_symlink() and not os.path.realpath(folder.path).startswith(self._bound):
            return False
        status = folder.stat()
        is_new = (status.st_dev, status.st_ino) not in self._entered
        self._entered.add((status.st_dev, status.st_ino))
        return is_new


def is_quiet(times: Iterable[int]) -> bool:
    """Tell whether the newest of these times (nanoseconds since 1970) is long enough ago, and not in the future."""
    age = time.time() - max(times, default=0) / 1e9
    return age >= QUIET


def is_being_written(location: str) -> bool:
    """Tell whether git is changing the tree around `location`: it holds ``index.lock`` while it does."""
    folder = location
    for _ in range(MOST_FOLDERS if location else 0):
        git = os.path.join(folder, ".git")
        if os.path.lexists(git):
            try:
                return time.time() - os.lstat(os.path.join(git, "index.lock")).st_mtime < LONGEST_LOCK
            except OSError:
                return False
        folder = os.path.dirname(folder)
    return False


Times = tuple[tuple[str, tuple[int, ...]], ...]

CODE = (".py", ".wsgi")
TEMPLATES = frozenset({"templates", "template", "views"})  # folders whose files are code, whatever they are called
MOST_FILES = 5000  # of one site; further ones are not looked at
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env", "virtualenv", "htmlcov"})


def times(site: Site) -> Times:
    """Return each file of the code of `site` with its identity: Unix nanoseconds, bytes, inode."""
    named = [os.path.join(site.location, name) for name in (*site.ini, _file_of(site.application)) if name]
    return tuple((path, _stamp(path)) for path in (*named, *islice(_code_below(site.location), MOST_FILES)))


def _file_of(application: str) -> str:
    """Return the file that `application` names: ``app.wsgi``, or ``production.ini`` of ``paste:production.ini#x``."""
    target = application.removeprefix("paste:").partition("#")[0].partition(":")[0]
    return target if "/" in target or target.endswith((*CODE, ".ini")) else ""


def _stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a path that a site has printed may hold a NUL
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _code_below(location: str) -> Iterator[str]:
    for item, _ in Look(location).below(_is_ours) if location else ():
        is_template = not item.name.endswith("~") and not TEMPLATES.isdisjoint(
            item.path[len(location) :].split(os.sep)[:-1]
        )
        with contextlib.suppress(OSError):
            if (item.name.endswith(CODE) or is_template) and not item.is_dir():
                yield item.path


def _is_ours(folder: os.DirEntry[str]) -> bool:
    """Tell whether a folder holds code of the site rather than installed packages."""
    hidden = folder.is_symlink() or folder.name.startswith(".") or folder.name in _SKIPPED
    return not hidden and not os.path.exists(os.path.join(folder.path, "pyvenv.cfg"))


RESTART, ALWAYS_RESTART = "tmp/restart.txt", "tmp/always_restart.txt"

Identity = tuple[Any, ...]
Files = dict[str, Identity]  # by path


def paths(site: Site) -> tuple[str, ...]:
    """Return the files whose change reloads `site`; its own file is watched elsewhere."""
    own = (RESTART, ALWAYS_RESTART) if site.location else ()
    return (*(os.path.join(site.location, name) for name in own), *site.touch_reload)


def identity(path: str) -> Identity:
    """Return the identity of a file: where links lead, time in nanoseconds, size, inode; () if it is missing."""
    stamp = _stamp(path)
    return (os.path.realpath(path), *stamp) if stamp else ()


def changed_at(path: str) -> float:
    """Return when a file, or the link to it, last changed: Unix seconds that nobody can set; 0.0 if it is missing."""
    try:
        return max(os.lstat(path).st_ctime, os.stat(path).st_ctime)
    except (OSError, ValueError):
        return 0.0


def files(site: Site, home: Home) -> Files:
    """Return the files that reload a site, as they are now: its trigger files, Moya's, and where its location leads."""
    found = {path: identity(path) for path in paths(site)}
    changes = sitedir.changes_path(home, site.name)
    found[changes] = sitedir.changes_stamp(changes, site.file)
    if site.location:
        found[os.path.join(site.location, "")] = (os.path.realpath(site.location),)  # what is in it does not count
    return found


class Watched:
    """The files of one site.

    Attributes:
        loaded: as they were when the site was loaded.
        newest: as they were at the last look; a missing one, as it was last.
        due: monotonic seconds at which a change will be taken; None: there is none.
    """

    def __init__(self, loaded: Mapping[str, Identity] = {}, newest: Mapping[str, Identity] = {}) -> None:
        self.loaded, self.newest = dict(loaded), dict(newest)
        self.due: float | None = None

    def begin(self, found: Files) -> None:
        """Note that the files are loaded as they are now."""
        self.newest = self._with_gone(found)
        self.take_change()

    def take_change(self) -> None:
        """Take the change that was seen last."""
        self.loaded, self.due = self.newest, None

    def is_due(self, found: Files, now: float) -> bool:
        """Tell whether there is a change, and nothing has changed for a while: deploying a tree touches many files.

        Args:
            found: the files as they are now; those that were not looked at before are ignored.
            now: monotonic seconds.
        """
        found = self._with_gone(found)
        self.loaded = {path: self.loaded.get(path, known) for path, known in found.items()}
        if found == self.loaded:
            self.newest, self.due = found, None
        elif found != self.newest or self.due is None:
            times = [known[-3] for known in found.values() if len(known) > 1]
            self.newest, self.due = found, now if is_quiet(times) else now + QUIET
        return self.due is not None and now >= self.due

    def _with_gone(self, found: Files) -> Files:
        return {path: known or self.newest.get(path, ()) for path, known in found.items()}


MOST = 4000  # files that are looked at
SUFFIXES = (".py", ".wsgi", ".ini", *EXTENSION_SUFFIXES)


def version_of(site: Site, home: Home) -> str:
    """Return a text that differs when the code of `site` may differ."""
    digest = hashlib.sha256(f"{sys.version} {sys.prefix} {os.path.realpath(site.location)}".encode(errors="replace"))
    asked = files(site, home)
    libraries = (path for path in sys.path if path.endswith(("site-packages", "dist-packages")))
    found = [*asked.items(), *((path, identity(path)) for path in (site.file, *libraries))]
    for path, known in found:
        digest.update(f"{path} {known}\n".encode(errors="replace"))
    for line in sorted(islice(_source_below(site.location), MOST)):
        digest.update(line.encode(errors="replace"))
    return digest.hexdigest()[:16]


def _source_below(location: str) -> Iterator[str]:
    for item, deeper in Look(location).below(_is_package, 2) if location else ():
        if item.name.endswith(SUFFIXES):
            if stamp := _stamp(item.path):
                yield f"{item.path} {' '.join(map(str, stamp))}\n"
        elif deeper and _is_package(item) and item.is_symlink():  # it may lead to another one with the same files
            yield f"{item.path} {os.path.realpath(item.path)}\n"


def _is_package(item: os.DirEntry[str]) -> bool:
    return item.name.replace("-", "_").isidentifier() and item.name != "__pycache__"
