"""What changes in a site's files: whether they are others than those that were loaded, and since when.

Two sets of files are looked at: those whose change reloads a site, by worker and supervisor, and its code, for
development and to tell its version. None is read: a file is told by what it is, never by whether it is newer. A
roll-back, ``rsync -a`` and a link that leads back bring older times, and a file may have tomorrow's. One that is gone
asks for nothing; when it is back, it counts if it is another one.

Whose tree it is can put anything into it, and who looks at it has other things to do: a look at it has bounds.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any

from multisite.config.model import Home, Site
from multisite.sites import sitedir

QUIET = 0.5  # seconds without a further change after which one is taken: who writes a tree touches many files
LONGEST_LOCK = 60.0  # seconds after which a lock of git is taken for forgotten
MOST_FOLDERS = 8  # that are looked at for one: the site's and those above
MOST_NAMES = 10000  # that one look takes note of, in all folders together
MOST_IN_FOLDER = 2000  # a folder with more holds data
LONGEST_LOOK = 0.5  # seconds


class Look:
    """One look at the tree below `top`: it leads nowhere else, comes nowhere twice, and ends."""

    def __init__(self, top: str) -> None:
        self._top = os.path.realpath(top)
        self._entered: set[tuple[int, int]] = set()
        self._left = MOST_NAMES
        self._until = time.monotonic() + LONGEST_LOOK

    def at(self, folder: str) -> list[os.DirEntry[str]]:
        """Return what is in a folder, by name, as far as the bounds allow."""
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

    def may_enter(self, item: os.DirEntry[str]) -> bool:
        """Tell whether it is a folder of this tree into which this look has not led yet.

        Raises:
            OSError: it cannot be told.
        """
        if not item.is_dir():
            return False
        if item.is_symlink() and not os.path.realpath(item.path).startswith(self._top + os.sep):
            return False
        status = item.stat()
        is_new = (status.st_dev, status.st_ino) not in self._entered
        self._entered.add((status.st_dev, status.st_ino))
        return is_new


def is_quiet(times: Iterable[int]) -> bool:
    """Tell whether the newest of these times (nanoseconds since 1970) is long enough ago, and not to come."""
    age = time.time() - max(times, default=0) / 1e9
    return age >= QUIET


def is_being_written(location: str) -> bool:
    """Tell whether git is at work in the tree around `location` just now: it holds ``index.lock`` meanwhile."""
    folder = location
    for _ in range(MOST_FOLDERS if location else 0):
        git = os.path.join(folder, ".git")
        if os.path.lexists(git):
            return _is_fresh(os.path.join(git, "index.lock"))
        folder = os.path.dirname(folder)
    return False


def _is_fresh(path: str) -> bool:
    try:
        return time.time() - os.lstat(path).st_mtime < LONGEST_LOCK
    except OSError:
        return False


Times = tuple[tuple[str, tuple[int, ...]], ...]

CODE = (".py", ".wsgi")
TEMPLATES = ("templates", "template", "views")  # folders whose files are code, whatever they are called
MOST_FILES = 5000  # of one site; what is beyond is not looked at
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env", "virtualenv", "htmlcov"})


def times(site: Site) -> Times:
    """Return each file of the code of `site` with what tells it from another: Unix nanoseconds, bytes, inode."""
    named = [os.path.join(site.location, name) for name in (*site.ini, _file_of(site.application)) if name]
    return tuple(_timed([*named, *(_walk(site.location) if site.location else ())]))


def _file_of(application: str) -> str:
    """Return the file that `application` names: ``app.wsgi``, or ``production.ini`` of ``paste:production.ini#x``."""
    target = application.removeprefix("paste:").partition("#")[0].partition(":")[0]
    return target if "/" in target or target.endswith((*CODE, ".ini")) else ""


def _timed(paths: list[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for path in paths:
        try:
            status = os.stat(path)
            yield path, (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            yield path, ()


def _walk(folder: str) -> Iterator[str]:
    found = _below_code(folder, Look(folder), is_template=False)
    return (path for _, path in zip(range(MOST_FILES), found, strict=False))


def _below_code(folder: str, look: Look, is_template: bool) -> Iterator[str]:
    folders = []
    for item in look.at(folder):
        try:
            if item.is_dir():
                if not item.is_symlink() and _is_ours(item) and look.may_enter(item):
                    folders.append(item)
            elif item.name.endswith(CODE) or (is_template and not item.name.endswith("~")):
                yield item.path
        except OSError:
            continue
    for item in folders:
        yield from _below_code(item.path, look, is_template or item.name in TEMPLATES)


def _is_ours(item: os.DirEntry[str]) -> bool:
    """Tell whether a folder holds code of the site rather than what was installed."""
    hidden = item.name.startswith(".") or item.name in _SKIPPED
    return not hidden and not os.path.exists(os.path.join(item.path, "pyvenv.cfg"))


RESTART, ALWAYS_RESTART = "tmp/restart.txt", "tmp/always_restart.txt"

Identity = tuple[Any, ...]
Files = dict[str, Identity]  # by path


def paths(site: Site) -> tuple[str, ...]:
    """Return the files whose change reloads `site`; its own file is looked at elsewhere."""
    own = (RESTART, ALWAYS_RESTART) if site.location else ()
    return (*(os.path.join(site.location, name) for name in own), *site.touch_reload)


def identity(path: str) -> Identity:
    """Return what tells a file from others: where links lead, time in nanoseconds, size, inode; () if it is gone."""
    try:
        status = os.stat(path)
        return os.path.realpath(path), status.st_mtime_ns, status.st_size, status.st_ino
    except (OSError, ValueError):  # a path that a site has printed may hold a NUL
        return ()


def changed_at(path: str) -> float:
    """Return when a file, or the link to it, was changed last: Unix seconds that nobody can set; 0.0 if it is gone."""
    try:
        return max(os.lstat(path).st_ctime, os.stat(path).st_ctime)
    except (OSError, ValueError):
        return 0.0


def files(site: Site, home: Home) -> Files:
    """Return what reloads a site, as it is now: its trigger files, Moya's, and where its location leads."""
    found = {path: identity(path) for path in paths(site)}
    changes = sitedir.changes_path(home, site.name)
    found[changes] = sitedir.changes_stamp(changes, site.file)
    if site.location:
        found[os.path.join(site.location, "")] = (os.path.realpath(site.location),)  # what is in it does not count
    return found


def _written_at(known: Identity) -> int:
    return known[-3] if len(known) > 1 else 0


class Watched:
    """The files of one site.

    Attributes:
        loaded: as they were when the site was loaded.
        newest: as they were when they were last looked at; what is gone, as it was last.
        due: monotonic seconds at which a change is to be taken; None: there is none.
    """

    def __init__(self, loaded: Mapping[str, Identity] = {}, newest: Mapping[str, Identity] = {}) -> None:
        self.loaded, self.newest = dict(loaded), dict(newest)
        self.due: float | None = None

    def begin(self, found: Files) -> None:
        """Take the files as they are now for those that are loaded."""
        self.newest = self._with_gone(found)
        self.take()

    def take(self) -> None:
        """Have the change taken that was seen last."""
        self.loaded, self.due = self.newest, None

    def look(self, found: Files, now: float) -> bool:
        """Tell whether there is a change, and nothing has changed for a while: who writes a tree touches many files.

        Args:
            found: the files as they are now; those that were not looked at before tell nothing.
            now: monotonic seconds.
        """
        found = self._with_gone(found)
        self.loaded = {path: self.loaded.get(path, known) for path, known in found.items()}
        if found == self.loaded:
            self.newest, self.due = found, None
        elif found != self.newest or self.due is None:
            self.newest, self.due = found, now if is_quiet(map(_written_at, found.values())) else now + QUIET
        return self.due is not None and now >= self.due

    def _with_gone(self, found: Files) -> Files:
        return {path: known or self.newest.get(path, ()) for path, known in found.items()}


MOST = 4000  # files that are looked at
SUFFIXES = (".py", ".wsgi", ".ini", *EXTENSION_SUFFIXES)


def version_of(site: Site, home: Home) -> str:
    """Return a text that is another one when `site` may be another one."""
    digest = hashlib.sha256(f"{sys.version} {sys.prefix} {os.path.realpath(site.location)}".encode(errors="replace"))
    asked = files(site, home)
    libraries = (path for path in sys.path if path.endswith(("site-packages", "dist-packages")))
    found = [*asked.items(), *((path, identity(path)) for path in (site.file, *libraries))]
    for path, known in found:
        digest.update(f"{path} {known}\n".encode(errors="replace"))
    for line in sorted(_first(_below_source(site.location, Look(site.location), 2))) if site.location else ():
        digest.update(line.encode(errors="replace"))
    return digest.hexdigest()[:16]


def _first(lines: Iterator[str]) -> Iterator[str]:
    return (line for _, line in zip(range(MOST), lines, strict=False))


def _below_source(folder: str, look: Look, deeper: int) -> Iterator[str]:
    packages = []
    for item in look.at(folder):
        try:
            if item.name.endswith(SUFFIXES):
                status = item.stat()
                yield f"{item.path} {status.st_mtime_ns} {status.st_size} {status.st_ino}\n"
            elif deeper and item.name.replace("-", "_").isidentifier() and item.name != "__pycache__":
                if item.is_symlink():  # which may lead to another one that has files like these
                    yield f"{item.path} {os.path.realpath(item.path)}\n"
                if look.may_enter(item):
                    packages.append(item.path)
        except OSError:
            continue
    for path in packages:
        yield from _below_source(path, look, deeper - 1)
