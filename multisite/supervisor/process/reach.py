"""Whether a user can reach what should be executed: each directory and link on the way, and what its #! line names.

`closed_to` reads the permission bits for another user; `closed` asks the kernel about ourselves, access lists and all.
Both name the place where the way ends.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator

from multisite.supervisor.process.spec import Identity

MOST_LINKS = 40  # on one path, as in the kernel
MOST_SCRIPTS = 5  # that name one another in their first lines
LONGEST_LINE = 255  # bytes of a #! line that the kernel reads
#: what grants more than the permission bits (acl(5), nfs4_acl(5))
_LISTS = ("system.posix_acl_access", "system.nfs4_acl")


def way(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every directory and link on the way to `path`, itself included; links are followed one at a time.

    Raises:
        OSError: something on it does not exist, or there are too many links.
    """
    here, rest, links = "", path.split("/")[::-1], 0
    while rest:
        name = rest.pop()
        if name == "..":
            here = os.path.dirname(here)
        if name in ("", ".", ".."):
            continue
        status = os.lstat(f"{here}/{name}")
        yield f"{here}/{name}", status
        if not stat.S_ISLNK(status.st_mode):
            here = f"{here}/{name}"
            continue
        target = os.readlink(f"{here}/{name}")
        links += 1
        if links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        here = "" if target.startswith("/") else here
        rest += target.split("/")[::-1]


def executed(program: str, search: str = os.defpath) -> Iterator[str]:
    """Yield a program and the interpreters that its #! line, and theirs, name (execve(2)).

    Args:
        program: its path, absolute.
        search: where ``/usr/bin/env NAME`` looks.
    """
    for _ in range(MOST_SCRIPTS):
        yield program
        words = _first_line(program)
        if words[:1] and os.path.basename(words[0]) == "env":
            yield words[0]
            named = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
            words = [found] if (found := shutil.which(named, path=search)) else []
        if not words:
            return
        program = words[0]


def _first_line(path: str) -> list[str]:
    """Return the words of a #! line; none if there is no such line."""
    try:
        if not os.path.isfile(path):
            return []
        with open(path, "rb") as file:
            line = file.readline(LONGEST_LINE)
    except OSError:
        return []
    return os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []


def closed_to(who: Identity, path: str) -> str:
    """Return the first place on the way to `path` that the permission bits close to `who`, "" for none.

    A file must be readable, and a program also executable. A place that does not exist is closed: it is returned.
    """
    return _first_closed(path, lambda place, status: _may(who, status, place))


def closed(path: str) -> str:
    """Return the first place on the way to `path` that the kernel closes to this process's own user, "" for none."""
    return _first_closed(path, lambda place, status: os.access(place, _asked(status)))


def opening(who: Identity, place: str) -> str:
    """Return the command that opens a closed place to a user."""
    try:
        status = os.stat(place)
    except OSError:
        return f"chmod o+x {shlex.quote(place)}"
    bits = _asked(status)
    letters = "".join(letter for bit, letter in ((os.R_OK, "r"), (os.X_OK, "x")) if bits & bit)
    others = "g" if status.st_gid in (who.gid, *who.groups) else "o"
    return f"chmod {'u' if who.uid == status.st_uid else others}+{letters} {shlex.quote(place)}"


def mode_of(place: str) -> str:
    """Return the mode of a directory or file for a sentence, "" if it cannot be seen."""
    try:
        return f" (mode {stat.S_IMODE(os.stat(place).st_mode):04o})"
    except OSError:
        return ""


def _first_closed(path: str, is_open: Callable[[str, os.stat_result], bool]) -> str:
    place = path
    try:
        if not is_open("/", os.stat("/")):
            return "/"
        for place, status in way(os.path.abspath(path)):
            if not stat.S_ISLNK(status.st_mode) and not is_open(place, status):
                return place
    except OSError:
        return place
    return ""


def is_missing(path: str) -> bool:
    """Tell whether nothing exists there; a place that we may not look at counts as existing."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def hides(path: str) -> str:
    """Return the place that prevents us from knowing whether `path` exists, "" if nothing does."""
    try:
        os.stat(path)
    except PermissionError:
        return closed(path) or path
    except OSError:
        pass
    return ""


def _asked(status: os.stat_result) -> int:
    """Return the needed permission: to enter a directory, to read a file, to run a program."""
    if not stat.S_ISREG(status.st_mode):
        return os.X_OK
    return os.R_OK | (os.X_OK if status.st_mode & 0o111 else 0)


def _may(who: Identity, status: os.stat_result, path: str) -> bool:
    bits = _asked(status)
    if who.uid == 0:
        return True
    if who.uid == status.st_uid:
        granted = status.st_mode >> 6
    elif status.st_gid in (who.gid, *who.groups):
        granted = status.st_mode >> 3
    else:
        granted = status.st_mode
    return granted & bits == bits or _has_list(path)


def _has_list(path: str) -> bool:
    """Tell whether more than the permission bits may apply."""
    try:
        return any(name in _LISTS for name in os.listxattr(path))
    except OSError:
        return False
