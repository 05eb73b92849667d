"""Files in the state directory that workers and supervisor append to, even if these run as different users.

Each of them writes with one write(2), so that lines never mix and survive the end of whoever wrote them. A file that
has grown too large is renamed to ``NAME.1``, in the place of the one before, or is replaced by a shorter one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from urllib.parse import quote

from multisite.config.safefiles import open_folder
from multisite.logs.logfiles import open_in
from multisite.logs.servicelog import current_site

LONGEST_NAME = 100  # characters of a file's name before its ending
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def file_name(site: str, ending: str = ".log") -> str:
    """Return the name of a site's file, which is in the folder whatever the site is called."""
    name = quote(site, safe="")  # letters, digits and _.-~ alone
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 17]}-{hashlib.sha256(site.encode()).hexdigest()[:16]}"
    return f"{name}{ending}"


class KeptFiles:
    """A folder of such files.

    Args:
        path: of the folder, which is made when the first line comes.
        most: files in the folder; a new one takes the place of the one that was written longest ago. 0: no limit.
    """

    def __init__(self, path: str, most: int = 0) -> None:
        self.path, self._most = path, most

    def append(self, name: str, data: bytes, largest: int, shorten: Callable[[bytes], bytes] | None = None) -> None:
        """Append whole lines to a file, and rename or shorten it if it has more than `largest` bytes then.

        Args:
            shorten: returns what is kept of a content; all who append to this file have to give it.

        Raises:
            OSError: that cannot be.
        """
        token = current_site.set("")  # what watches the paths of a site must not take ours for its own
        try:
            self._append(name, data, largest, shorten)
        finally:
            current_site.reset(token)

    def _append(self, name: str, data: bytes, largest: int, shorten: Callable[[bytes], bytes] | None) -> None:
        folder = self._open()
        try:
            opened = _open_locked if shorten else open_in
            file, is_new = opened(folder, name, os.path.join(self.path, name))
            try:
                if is_new and os.geteuid() == 0:  # workers of the folder's owner write here, too
                    status = os.fstat(folder)
                    os.fchown(file, status.st_uid, status.st_gid)
                os.write(file, data)
                if os.fstat(file).st_size > largest:
                    _shorten(folder, name, shorten) if shorten else _rotate(folder, name, file)
                if is_new and self._most:
                    _forget_oldest(folder, self._most)
            finally:
                os.close(file)
        finally:
            os.close(folder)

    def _open(self) -> int:
        path, is_root = os.fsencode(self.path), os.geteuid() == 0
        with contextlib.suppress(FileNotFoundError):
            return open_folder(path, trusting=not is_root)
        above = os.path.dirname(self.path)
        os.makedirs(above, 0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
            if is_root:
                status = os.stat(above)
                os.chown(self.path, status.st_uid, status.st_gid, follow_symlinks=False)
        return open_folder(path, trusting=not is_root)


def _rotate(folder: int, name: str, file: int) -> None:
    """Rename a file unless another process has done so."""
    fcntl.flock(file, fcntl.LOCK_EX)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(file)):
            os.rename(name, f"{name}.1", src_dir_fd=folder, dst_dir_fd=folder)


def _open_locked(folder: int, name: str, path: str) -> tuple[int, bool]:
    """Open a file for appending as `open_in` does, and keep all others from it until it is closed."""
    while True:
        file, is_new = open_in(folder, name, path)
        fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(file)):
                return file, is_new
        os.close(file)  # another process has replaced it


def _shorten(folder: int, name: str, shorten: Callable[[bytes], bytes]) -> None:
    """Replace a file by a shorter one, whose old content stays if this process is killed; the caller has its lock."""
    with open(os.open(name, _READ, dir_fd=folder), "rb") as old:
        status = os.fstat(old.fileno())
        content = shorten(old.read())
    new = f".{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)
    with open(os.open(new, _NEW, stat.S_IMODE(status.st_mode), dir_fd=folder), "wb") as file:
        if os.geteuid() == 0:
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
        file.write(content)
    os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)


def _forget_oldest(folder: int, most: int) -> None:
    listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        names = os.listdir(listed)
    finally:
        os.close(listed)
    if len(names) <= most:
        return

    def written(name: str) -> float:
        with contextlib.suppress(OSError):
            return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
        return 0.0

    for name in sorted(names, key=written)[: len(names) - most]:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
