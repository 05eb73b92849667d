"""Who besides ourselves may reach the sites' sockets: nobody, or the group that [supervisor] socket_group names."""

from __future__ import annotations

import grp
import os
import stat
from dataclasses import dataclass

from multisite.config.model import Home
from multisite.errors import Problem

KEY = "socket_group"


@dataclass
class Access:
    """Gives sockets and folders the narrowest mode that lets `group` connect; None: nobody else."""

    group: int | None = None

    def admit_to_socket(self, path: str) -> None:
        """Set group and mode of a socket.

        Raises:
            OSError: they cannot be set.
        """
        self._set(path, 0o600 if self.group is None else 0o660)

    def admit_to_folder(self, path: str, others: int = 0) -> None:
        """Set group and mode of a folder, through which `others` (0o11: everybody) may go besides.

        Raises:
            OSError: they cannot be set.
        """
        self._set(path, others | (0o700 if self.group is None else 0o710))

    def _set(self, path: str, mode: int) -> None:
        group = os.getegid() if self.group is None else self.group
        status = os.lstat(path)
        if status.st_gid != group:
            os.chown(path, -1, group, follow_symlinks=False)
        if stat.S_IMODE(status.st_mode) != mode:
            os.chmod(path, mode)


def access_of(home: Home) -> Access:
    """Return who is let in; nobody, where the group that moya.conf names cannot be had."""
    name, problem = home.supervisor.socket_group, problem_of(home)
    return Access() if not name or (problem and problem.is_error) else Access(_gid(name))


def problem_of(home: Home) -> Problem | None:
    """Return why the group that moya.conf names cannot be let in, or None."""
    name = home.supervisor.socket_group
    if not name:
        return None
    gid, severity = _gid(name), "error"
    if gid is None:
        reason, remedy = "there is no such group on this machine", "correct it or create the group"
    elif os.geteuid() != 0 and gid not in (os.getegid(), *os.getgroups()):
        reason = "only root may give sockets to a group that the service's user is not a member of"
        remedy = "add the user to the group, or start the service as root"
    elif not (closed := _closed_to(gid, home.runtime_dir)):
        return None
    else:
        reason = f"the group cannot enter {closed}, where the sockets are"
        remedy = "set [service] runtime_dir to a folder that it can reach, such as one in /run"
        severity = "warning"
    return Problem(home.file, reason, "supervisor", KEY, name, remedy, severity)


def _gid(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return int(name) if name.isdigit() else None


def _closed_to(gid: int, path: str) -> str:
    """Return the first folder above `path` that the group may not pass, "" if there is none."""
    for folder in _above(path):
        try:
            status = os.stat(folder)
        except OSError:
            continue  # it is going to be made
        if not status.st_mode & (stat.S_IXGRP if status.st_gid == gid else stat.S_IXOTH):
            return folder
    return ""


def _above(path: str) -> list[str]:
    folders = []
    while (above := os.path.dirname(path)) != path:
        path = above
        folders.append(path)
    return folders[::-1]
