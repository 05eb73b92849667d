"""The runtime directory: one supervisor has it at a time, and its modes admit the right users only."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import shutil
import socket
import stat
from dataclasses import dataclass

from multisite.config.model import Home
from multisite.errors import MultisiteError, Problem

CONTROL = "control.sock"
WORKERS = "workers.sock"
LOCK = "supervisor.lock"
LONGEST_PATH = 107  # bytes of sun_path without the final zero, unix(7)
FOLDERS = ("sites", "domains", "board", "notify", "private")


class RuntimeDirError(MultisiteError):
    """The runtime directory cannot be used; the reason names it and a remedy."""

    id = "MS526"
    status = 503
    retry_after = 30


@dataclass
class Access:
    """Gives sockets and folders the narrowest mode that lets `group` connect; None: only their owner."""

    group: int | None = None

    def admit_to_socket(self, path: str) -> None:
        """Set group and mode of a socket.

        Raises:
            OSError: they cannot be set.
        """
        self._set(path, 0o600 if self.group is None else 0o660)

    def admit_to_folder(self, path: str, others: int = 0) -> None:
        """Set group and mode of a folder; `others` (0o11: everybody) may pass through it as well.

        Raises:
            OSError: they cannot be set.
        """
        self._set(path, others | (0o700 if self.group is None else 0o710))

    def admit_to_file(self, path: str) -> None:
        """Set group and mode of a file that `group` may read.

        Raises:
            OSError: they cannot be set.
        """
        self._set(path, 0o600 if self.group is None else 0o640)

    def _set(self, path: str, mode: int) -> None:
        group = os.getegid() if self.group is None else self.group
        status = os.lstat(path)
        if status.st_gid != group:
            os.chown(path, -1, group, follow_symlinks=False)
        if stat.S_IMODE(status.st_mode) != mode:
            os.chmod(path, mode)


class RuntimeDir:
    """Paths of one home's runtime directory; `path` is where it is, even if the home names another one by now."""

    def __init__(self, home: Home, path: str = "") -> None:
        self.path = path or home.runtime_dir
        self.home = home.path
        self.access = Access()
        self._others = 0o11 if os.geteuid() == 0 else 0  # sites of other users have files in it

    @property
    def control(self) -> str:
        """Path of the control socket."""
        return os.path.join(self.path, CONTROL)

    @property
    def workers(self) -> str:
        """Path of the socket at which workers of another user ask."""
        return os.path.join(self.path, WORKERS)

    def socket(self, site: str) -> str:
        """Path of a site's listening socket."""
        return os.path.join(self.path, "sites", site + ".sock")

    def board(self, site: str) -> str:
        """Path of the link that leads to a site's scoreboard."""
        return os.path.join(self.path, "board", site)

    def notify(self, serial: int) -> str:
        """Path of the socket at which the backend with this number reports that it is ready."""
        return os.path.join(self.path, "notify", str(serial))

    def private(self, site: str) -> str:
        """Folder that belongs to a site's own user, for the socket that its command binds."""
        return os.path.join(self.path, "private", site)

    def give(self, site: str, uid: int, gid: int) -> None:
        """Make that folder for this user, and remove what another user has left in it.

        Raises:
            OSError: it cannot be made.
        """
        folder = self.private(site)
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(folder).st_uid != uid:
                shutil.rmtree(folder)
        os.makedirs(folder, 0o700, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(folder, uid, gid, follow_symlinks=False)

    @property
    def mark(self) -> str:
        """How the marks begin that identify the processes of this directory's sites."""
        status = os.stat(self.path)
        return f"{status.st_dev:x}.{status.st_ino:x}"

    def make(self) -> None:
        """Make the directory and its folders.

        Raises:
            RuntimeDirError: they cannot be made, or belong to another user.
        """
        self.check_length()
        try:
            os.makedirs(self.path, 0o700 | self._others, exist_ok=True)
            self._check()
            for folder in FOLDERS:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(os.path.join(self.path, folder), 0o700)
        except OSError as error:
            raise self.error(f"{error.filename or self.path}: {(error.strerror or 'it fails').lower()}") from None

    def clear(self) -> None:
        """Remove all that a supervisor left in its folders; the files of the workers beside them stay."""
        for top in (os.path.join(self.path, name) for name in FOLDERS):
            with contextlib.suppress(OSError), os.scandir(top) as found:
                for item in list(found):
                    _remove(item)

    def check_length(self) -> None:
        """Refuse a path that is too long for a socket address.

        Raises:
            RuntimeDirError: even the control socket could not be bound.
        """
        if len(os.fsencode(self.control)) > LONGEST_PATH:
            raise self.error(f"the path of a socket in it is longer than {LONGEST_PATH} bytes")

    def _check(self) -> None:
        """Refuse a directory in which another user could replace our socket."""
        fault = self._fault()
        if fault:
            raise self.error(fault)

    def _fault(self) -> str:
        status = os.stat(self.path)
        if status.st_uid not in (os.geteuid(), 0):
            return f"it belongs to the user {status.st_uid}"
        if status.st_mode & (stat.S_IWOTH | stat.S_IWGRP) and not status.st_mode & stat.S_ISVTX:
            return "other users may write to it"
        return ""

    def obstacle(self) -> str:
        """Return why no supervisor of this user could work in the directory, "" if one could; make nothing."""
        there = self.path
        while not os.path.lexists(there):
            there = os.path.dirname(there)
        needed = [there] if there != self.path else [there, *(os.path.join(there, name) for name in (*FOLDERS, LOCK))]
        fault = "" if os.path.isdir(there) else f"{there} is not a folder"
        fault = fault or (self._fault() if there == self.path else "")
        if fault:
            return fault
        for path in filter(os.path.exists, needed):
            if not os.access(path, os.W_OK | (os.X_OK if os.path.isdir(path) else os.R_OK)):
                return f"the user {os.geteuid()} cannot write to {path}"
        return ""

    def let_in(self, access: Access) -> None:
        """Give the folders the narrowest modes that let sites reach their own files, and `access` the sockets.

        Raises:
            RuntimeDirError: that is not possible.
        """
        self.access = access
        own = Access()
        try:
            if os.stat(self.path).st_uid == os.geteuid():
                (own if self._others else access).admit_to_folder(self.path, self._others)
            for folder in ("sites", "domains"):
                access.admit_to_folder(os.path.join(self.path, folder))
            for folder in ("board", "notify", "private"):
                own.admit_to_folder(os.path.join(self.path, folder), self._others)
        except OSError as error:
            raise self.error(f"{error.filename}: {(error.strerror or 'it fails').lower()}") from None

    def lock(self) -> int | None:
        """Take the lock that a supervisor holds for life; return None if another one has it.

        Raises:
            RuntimeDirError: the lock file cannot be made.
        """
        path = os.path.join(self.path, LOCK)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self.error(f"{path}: {(error.strerror or 'it fails').lower()}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def sign(self, descriptor: int) -> None:
        """Write into the lock file who holds it, if the disk has room for that."""
        text = f"{os.getpid()}\n{self.home}\n".encode("utf-8", "surrogateescape")
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text, 0)

    def holder(self) -> tuple[int, str]:
        """Return pid and home of the last signer of the lock; (0, "") if there is none."""
        try:
            with open(os.path.join(self.path, LOCK), encoding="utf-8", errors="surrogateescape") as file:
                pid, home, *_ = file.read(8192).split("\n")
            return int(pid), home
        except (OSError, ValueError):
            return 0, ""

    def other_home(self) -> RuntimeDirError:
        """Return the error that the supervisor of another home uses this directory."""
        pid, home = self.holder()
        return self.error(f"the home {home or '?'} uses it (process {pid})")

    def error(self, reason: str) -> RuntimeDirError:
        """Return why the directory cannot be used, with a remedy."""
        remedy = "set another one with [service] runtime_dir in moya.conf"
        return RuntimeDirError(f"the runtime directory {self.path} cannot be used: {reason}; {remedy}")


def bind(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket at `path`, replacing whatever is there; so far only its owner may connect.

    Raises:
        OSError: it cannot be bound; if the path is too long, the message contains the remedy.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        reason = f"the path is longer than {LONGEST_PATH} bytes; choose a shorter [service] runtime_dir"
        raise OSError(errno.ENAMETOOLONG, reason, path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    bound = socket.socket(socket.AF_UNIX, kind)
    old_umask = os.umask(0o177)
    try:
        bound.bind(path)
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(old_umask)
    return bound


def _remove(item: os.DirEntry[str]) -> None:
    """Remove a file, or a folder as far as possible.

    Folders belong to sites, which may replace one by a link meanwhile; `shutil.rmtree` looks each name up in the open
    folder that it was found in. Folders nested too deeply for it stay.
    """
    with contextlib.suppress(OSError, RecursionError):
        if item.is_dir(follow_symlinks=False):
            shutil.rmtree(item.path, ignore_errors=True)
        else:
            os.unlink(item.path)


def access_of(home: Home) -> Access:
    """Return who is admitted: nobody else, if the group that moya.conf names is not available."""
    name, problem = home.supervisor.socket_group, access_problem(home)
    return Access() if not name or (problem and problem.is_error) else Access(_gid(name))


def access_problem(home: Home, uid: int = -1) -> Problem | None:
    """Return why a service of the user `uid` (ours) cannot admit the group that moya.conf names, or None."""
    name = home.supervisor.socket_group
    if not name:
        return None
    gid, severity = _gid(name), "error"
    if gid is None:
        reason, remedy = "there is no such group on this machine", "correct it or create the group"
    elif (uid if uid >= 0 else os.geteuid()) != 0 and gid not in _groups(uid):
        reason = "only root may give sockets to a group that the service's user is not a member of"
        remedy = "add the user to the group, or start the service as root"
    elif not (closed := _closed_to(gid, home.runtime_dir)):
        return None
    else:
        reason = f"the group cannot enter {closed}, where the sockets are"
        remedy = "set [service] runtime_dir to a folder that it can reach, such as one in /run"
        severity = "warning"
    return Problem("MS527", home.file, reason, "supervisor", "socket_group", name, remedy, severity)


def _groups(uid: int) -> tuple[int, ...]:
    """Return the groups of a user; those of this process, if it is its own."""
    if uid in (-1, os.geteuid()):
        return os.getegid(), *os.getgroups()
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return ()
    return tuple(os.getgrouplist(user.pw_name, user.pw_gid))


def _gid(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return int(name) if name.isdigit() else None


def _closed_to(gid: int, path: str) -> str:
    """Return the first folder above `path` that the group may not pass, "" if there is none."""
    names = path.split("/")
    for end in range(1, len(names)):
        folder = "/".join(names[:end]) or "/"
        try:
            status = os.stat(folder)
        except OSError:
            continue  # it will be made
        if not status.st_mode & (stat.S_IXGRP if status.st_gid == gid else stat.S_IXOTH):
            return folder
    return ""
