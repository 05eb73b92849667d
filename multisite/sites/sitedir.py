"""The enabled site files: which files the globs of ``[projects] read`` name, their content, what changed.

A file is read when it is new or its stamp has changed, otherwise its last reading is kept,
over restarts, too (a checked cache). If the newest version of a file has errors, its last good
one stays in use.
"""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from multisite import __version__
from multisite.config import options
from multisite.config.model import Home, SiteFile
from multisite.config.read import read_site
from multisite.config.safefiles import LET_READ
from multisite.errors import Problem
from multisite.sites.statefile import StateFile

Stamp = tuple[int, ...]

# A time stamp younger than this may hide a second write within one tick of the kernel's clock
# (at most 10 ms), so what was read then is read once more.
_TICK_NS = 20_000_000
_GONE_GRACE = 2.0  # seconds that a missing target may be an editor's delete-and-write


@dataclass(slots=True)  # never changed once made; frozen would double the time that thousands take
class Entry:
    """One path in a folder of enabled sites.

    `file` is the version that serves; `problems` are those of the newest version.
    """

    path: str
    stamp: Stamp
    file: SiteFile
    problems: tuple[Problem, ...]
    good_at: int = field(default=0, compare=False)  # when the version that serves was read, Unix nanoseconds
    racy: bool = field(default=False, compare=False)  # so fresh that a second write may look the same
    gone_since: float = 0.0  # monotonic seconds; 0 while its target exists

    @property
    def broken(self) -> bool:
        """Whether there is no version that could serve."""
        return has_errors(self.file.problems)

    def to_json(self) -> list[Any]:
        """Return what `from_json` takes."""
        current = self.problems != self.file.problems
        newest = [p.as_dict() for p in self.problems] if current else None
        return [self.path, self.stamp, self.file.to_json(), newest, self.good_at]

    @classmethod
    def from_json(cls, row: list[Any]) -> Entry:
        """Raises ValueError, TypeError or KeyError for a row of another shape."""
        path, stamp, file, problems, good_at = row
        site_file = SiteFile.from_json(file)
        own = site_file.problems if problems is None else tuple(Problem(**p) for p in problems)
        return cls(path, tuple(map(int, stamp)), site_file, own, int(good_at))


def has_errors(problems: Iterable[Problem]) -> bool:
    """Tell whether one of `problems` is an error rather than a warning."""
    return any(problem.is_error for problem in problems)


def stamp_of(path: str, sources: Iterable[str] = ()) -> Stamp:
    """Return what changes whenever the file at `path`, or one of those it extends, does.

    A link's own time does not count: anybody may set that.
    """
    stamp: list[int] = []
    for name in (path, *sources):
        try:
            status = os.stat(name)
        except OSError as error:
            stamp += (-(error.errno or 1), 0, 0)
        else:
            stamp += (status.st_mtime_ns, status.st_size, status.st_ino)
    return tuple(stamp)


def changes_path(home: Home, name: str) -> str:
    """Return where Moya's ``.changes`` file of a site is."""
    return os.path.join(home.temp_dir, "moyasrv", f"{name}.changes")


def changes_stamp(path: str, site_file: str) -> Stamp:
    """Return the stamp of Moya's ``.changes`` file, if it comes from root, us or who owns the site file; else ().

    Its folder is in a place where anybody may write first.
    """
    try:
        status = os.lstat(path)
        owners = {0, os.geteuid(), os.stat(site_file).st_uid}
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino) if status.st_uid in owners else ()


def is_racy(stamp: Stamp) -> bool:
    """Tell whether what `stamp` describes was written within the clock's last ticks."""
    return 0 <= time.time_ns() - max(stamp[::3], default=0) < _TICK_NS


def _is_gone(path: str, look: Callable[[str], object]) -> bool:
    """Tell whether nothing is there; what may not be looked at is."""
    try:
        look(path)
    except OSError as error:
        return error.errno in GONE
    except ValueError:
        return True
    return False


def _later(ours: Entry, theirs: Entry | None) -> Entry:
    return theirs if theirs and not theirs.broken and theirs.good_at > ours.good_at else ours


class SiteDir:
    """All entries of a home, kept up to date on demand."""

    def __init__(
        self,
        home: Home,
        cache: bool = True,
        store: bool = True,
        known: SiteDir | None = None,  # of the same files, under an earlier moya.conf
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.home = home
        self.entries: dict[str, Entry] = {}
        self.problems: tuple[Problem, ...] = ()  # of the folders
        self._clock = clock
        self._folders: Stamp = ()
        self._folders_racy = True
        self._cache = StateFile(home, "sites", guides_us=store) if cache else None
        self._store_at = 0.0 if store else float("inf")
        self._dirty = False
        self._cache_stamp: Stamp = ()
        if known and known._key() == self._key():
            self.entries = known.entries
        elif self._cache:
            self.entries = self._stored()

    def scan(self) -> bool:
        """Look at every path; return True if an entry was added, changed or removed."""
        self._folders = self._folder_stamp()
        self._folders_racy = is_racy(self._folders)
        told, denied = self.problems, unlisted(self.home)
        self.problems = tuple(problem(self.home, *fault) for fault in denied.items())
        old, self.entries = self.entries, {}
        known = [path for path in old if os.path.dirname(path) in denied]  # perhaps not gone, but unreachable
        for path in dict.fromkeys([*enabled_paths(self.home), *known]):
            entry = self._current(path, old.get(path))
            if entry:
                self.entries[path] = entry
        changed = list(old.values()) != list(self.entries.values())
        self._dirty |= changed
        self.flush()
        return changed or self.problems != told

    def folders_changed(self) -> bool:
        """Tell, by a few stat calls, whether a path may have been added or removed."""
        stamp, racy = self._folders, self._folders_racy
        return racy or self._folder_stamp() != stamp

    def refresh(self, path: str) -> bool:
        """Look at one path again; return True if its entry changed or was removed."""
        old = self.entries.get(path)
        new = self._current(path, old)
        if new:
            self.entries[path] = new
        elif old:
            del self.entries[path]
        if new == old:
            return False
        self._dirty = True
        self.flush()
        return True

    def flush(self) -> None:
        """Write the cache if it is due: small homes at once, large ones at 2 % of the time at most."""
        if not self._cache or not self._dirty or self._clock() < self._store_at:
            return
        begun = self._clock()
        theirs = self._stored()
        rows = [_later(entry, theirs.get(path)).to_json() for path, entry in self.entries.items()]
        self._cache.store({"key": self._key(), "entries": rows})
        self._cache_stamp = stamp_of(self._cache.path)
        self._dirty = False
        self._store_at = self._clock() + 50 * (self._clock() - begun)

    def _current(self, path: str, old: Entry | None) -> Entry | None:
        stamp = stamp_of(path, old.file.sources[1:] if old else ())
        if old and stamp == old.stamp and not old.racy and not old.gone_since and self._environment_same(old.file):
            return old
        if _is_gone(path, os.lstat):
            return None
        new = read_site(path, self.home.path, defaults=self.home.defaults)
        if new.sources[1:] != (old.file.sources[1:] if old else ()):
            stamp = stamp_of(path, new.sources[1:])
        if has_errors(new.problems) and old and not old.broken:
            return self._keep(old, stamp, new)
        return Entry(path, stamp, new, new.problems, time.time_ns(), is_racy(stamp))

    def _keep(self, old: Entry, stamp: Stamp, new: SiteFile) -> Entry:
        """Return the entry of the last good version, which stays in use, whichever worker has seen it."""
        good = _later(old, self._stored().get(old.path))
        if not _is_gone(old.path, os.stat):
            return replace(good, stamp=stamp, problems=new.problems, racy=is_racy(stamp), gone_since=0.0)
        gone_since = old.gone_since or self._clock()
        if self._clock() - gone_since > _GONE_GRACE:
            return Entry(old.path, stamp, new, new.problems)
        return replace(good, stamp=stamp, problems=new.problems, gone_since=gone_since)

    def _stored(self) -> dict[str, Entry]:
        """Return what another worker has put into the cache since we last read or wrote it."""
        if not self._cache or stamp_of(self._cache.path) == self._cache_stamp:
            return {}
        self._cache_stamp = stamp_of(self._cache.path)
        return self._remembered(self._cache.load())

    def _folder_stamp(self) -> Stamp:
        looked_into = folders(self.home)
        if any(map(glob.has_magic, looked_into)):
            return tuple(map(hash, enabled_paths(self.home)))
        return stamp_of(self.home.file, looked_into)

    @staticmethod
    def _environment_same(file: SiteFile) -> bool:
        return not file.env_used or all(os.environ.get(name) == value for name, value in file.env_used.items())

    def _key(self) -> list[Any]:
        return [__version__, options.fingerprint(), self.home.path, repr(self.home.defaults)]

    def _remembered(self, document: Any) -> dict[str, Entry]:
        try:
            if document["key"] != self._key():
                return {}
            entries = map(Entry.from_json, document["entries"])
            return {entry.path: entry for entry in entries}
        except (KeyError, TypeError, ValueError, AttributeError):
            return {}


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
        remedy, severity = LET_READ, "error"
    value = ", ".join(home.projects.read)
    return Problem("MS244", home.file, reason, "projects", "read", value, remedy, severity)
