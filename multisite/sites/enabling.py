"""Enable and disable sites: the links in ``sites-enabled``, kept as a2ensite and a2dissite keep them.

A path is looked at once (`state_of`), the step is decided without touching anything (`plan_enable`,
`plan_disable`), and `Places` knows the directories and carries it out.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from multisite.errors import MultisiteError

Kind = Literal["nothing", "link", "dangling", "loop", "file", "other"]
Action = Literal["create", "replace", "remove", "keep", "refuse"]


class EnablingError(MultisiteError):
    """The home has no directory in which a site could be enabled."""

    id = "MS245"


@dataclass(frozen=True, slots=True)
class PathState:
    """What is at `path`; `text` is the text of a link, `real` the regular file that it leads to."""

    path: str
    kind: Kind
    text: str = ""
    real: str = ""

    @property
    def fault(self) -> str:
        """Why this cannot be read as a site file; "" if it can."""
        return {
            "nothing": "there is no such file",
            "dangling": f"the link is dangling: there is no {self.text}",
            "loop": "the link leads in a loop",
            "other": "it is not a regular file",
        }.get(self.kind, "")


@dataclass(frozen=True, slots=True)
class Step:
    """One decision: what to do at `path`, and the message about it."""

    action: Action
    path: str
    message: str


def plan_enable(name: str, found: PathState, source: PathState, alias: str = "") -> Step:
    """Decide how `name` becomes enabled.

    Args:
        name: the user's name for the site.
        found: what is at the place of the link.
        source: the site file in ``sites-available``.
        alias: another link that leads to the same site file already, or "".
    """
    if source.fault:
        return Step("refuse", source.path, f"{source.path}: {source.fault}")
    if found.kind == "link" and found.real == source.real:
        return Step("keep", found.path, f"{name} is already enabled")
    if obstacle := _obstacle(name, found, source):
        return Step("refuse", found.path, obstacle)
    if alias:
        return Step("keep", alias, f"{name} is already enabled (as {os.path.basename(alias)})")
    if found.kind == "nothing":
        return Step("create", found.path, f"enabled {name}")
    return Step("replace", found.path, f"enabled {name} (in place of a link that led nowhere)")


def _obstacle(name: str, found: PathState, source: PathState) -> str:
    """Return what is in the way of the link, "" for nothing."""
    if found.kind in ("file", "other"):
        return f"{found.path} is not a link; it is left alone"
    if found.kind == "link":
        return f"{found.path} leads to {found.real}, not to {source.path}; multisite dissite {name} removes it"
    return ""


def plan_disable(name: str, found: PathState) -> Step:
    """Decide how `name` becomes disabled; `found` is what is in ``sites-enabled``."""
    if found.kind == "nothing":
        return Step("keep", found.path, f"{name} is already disabled")
    if found.kind in ("file", "other"):
        remedy = "move it to sites-available to keep it, or delete it yourself"
        return Step("refuse", found.path, f"{found.path} is not a link; {remedy}")
    tail = "" if found.kind == "link" else " (a link that led nowhere)"
    return Step("remove", found.path, f"disabled {name}{tail}")


def link_name(pattern: str, stem: str) -> str:
    """Name a link so that the glob `pattern` finds it: ``blog.ini`` under ``*.ini``."""
    usual = f"{stem}.ini"
    return usual if fnmatch.fnmatch(usual, pattern) else pattern.replace("*", stem, 1)


def state_of(path: str) -> PathState:
    """Look at `path` without opening it."""
    try:
        is_link = stat.S_ISLNK(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return PathState(path, "nothing")
    text = os.readlink(path) if is_link else ""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return PathState(path, "dangling", text)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return PathState(path, "loop", text)
    if not regular:
        return PathState(path, "other", text)
    return PathState(path, "link" if is_link else "file", text, os.path.realpath(path))


@dataclass(frozen=True)
class Places:
    """Where a home keeps its site files (`available`) and the links to them (`enabled`, found by `pattern`)."""

    available: str
    enabled: str
    pattern: str = "*.ini"

    @classmethod
    def of(cls, home: str, read: tuple[str, ...]) -> Places:
        """Find the directories of `home`: links belong into the directory of the first glob of `read` that names one.

        Raises:
            EnablingError: every glob has a wildcard in its directory.
        """
        for glob in read:
            folder, pattern = os.path.split(os.path.normpath(os.path.join(home, glob)))
            if not any(letter in folder for letter in "*?["):
                beside = os.path.join(os.path.dirname(folder), "sites-available")
                own = os.path.join(home, "sites-available")
                return cls(own if os.path.isdir(own) else beside, folder, pattern)
        raise EnablingError(f"{home}/moya.conf: [projects] read names no directory for links; add sites-enabled/*.ini")

    def choices(self) -> list[str]:
        """Stems of the site files that can be enabled, sorted."""
        return sorted(name[:-4] for name in _names(self.available) if name.endswith(".ini") and name[0] != ".")

    def enabled_choices(self) -> list[str]:
        """Stems of what stands in the enabled directory, dangling links included, sorted."""
        return sorted(os.path.splitext(n)[0] for n in _names(self.enabled) if fnmatch.fnmatch(n, self.pattern))

    def source(self, stem: str) -> str:
        """Path of the site file `stem` in ``sites-available``."""
        return os.path.join(self.available, f"{stem}.ini")

    def link(self, stem: str) -> str:
        """Path at which the site file `stem` is enabled."""
        return os.path.join(self.enabled, link_name(self.pattern, stem))

    @cached_property
    def _links(self) -> dict[tuple[int, int] | None, str]:
        """The links at the first look, by the file that they lead to; looked up once."""
        paths = (
            os.path.join(self.enabled, n) for n in sorted(_names(self.enabled)) if fnmatch.fnmatch(n, self.pattern)
        )
        return {identity(path): path for path in paths if os.path.islink(path)}

    def link_to(self, stem: str) -> str:
        """Return the link, under whatever name, that leads to the site file `stem`; "" if there is none."""
        wanted = identity(self.source(stem))
        return self._links.get(wanted, "") if wanted else ""

    def enable(self, stem: str) -> Step:
        """Enable the site file `stem`; doing it twice changes nothing."""
        found, source = state_of(self.link(stem)), state_of(self.source(stem))
        alias = self.link_to(stem) if found.kind != "link" else ""
        step = plan_enable(stem, found, source, alias)
        if step.action in ("create", "replace"):
            self._write_link(step.path, source.path)
        return step

    def disable(self, stem: str) -> Step:
        """Disable the site file `stem`; a link under another name counts when there is none under its own."""
        found = state_of(self.link(stem))
        if found.kind == "nothing" and (alias := self.link_to(stem)):
            found = state_of(alias)
        step = plan_disable(stem, found)
        if step.action == "remove":
            os.unlink(step.path)
        return step

    def relink(self, stem: str, new: str) -> str:
        """Make the link to a site file follow its new name `new`; there is a link all the time.

        Return the path of the link, "" if the site was not enabled.
        """
        old = self.link_to(stem)
        if not old:
            return ""
        self._write_link(old, self.source(new))
        os.rename(old, self.link(new))
        return self.link(new)

    def _write_link(self, path: str, source: str) -> None:
        """Put the link in place in one step: a reader sees the old state or the new one, never neither."""
        os.makedirs(self.enabled, exist_ok=True)
        folder, name = os.path.split(source)
        target = os.path.relpath(os.path.join(os.path.realpath(folder), name), os.path.realpath(self.enabled))
        temporary = os.path.join(self.enabled, f".{os.path.basename(path)}.{os.getpid()}")
        try:
            os.symlink(target, temporary)
            os.replace(temporary, path)
        except OSError as error:
            error.filename, error.filename2 = path, None  # what the user knows of
            raise
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def identity(path: str) -> tuple[int, int] | None:
    """Return what identifies a file whatever its name is; None if nothing can be reached."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
