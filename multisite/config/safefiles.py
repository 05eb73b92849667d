"""Files from untrusted users: oversized or unusual ones are refused early, and nothing outside a folder is opened.

`read_bytes` never hangs. `reach` opens a file below a folder, and never one outside it, even if someone changes links
meanwhile. Every step starts from the folder opened before, with O_NOFOLLOW, so nothing that was checked can be
replaced before it is used. With links the walk is slower: each link is read and judged by the configured policy:

* ``none``: no link is followed.
* ``inside``: it must lead to a place below the root again.
* ``owner``: its target must belong to the owner of the link (as with Apache's SymLinksIfOwnerMatch); a link that root
  made may lead anywhere.
* ``all``: the kernel follows every link.

The administrator chose the root itself, so it is opened as it is written; only a process that runs as root, to which
the kernel denies nothing, walks to it by the rule of owners, too.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence

POLICIES = ("inside", "owner", "none", "all")
MOST_LINKS = 20
LET_READ = "give the service's user permission to read it"  # the remedy where reading is not permitted
LARGEST = 2**20  # bytes of a configuration file
_KINDS = (
    (stat.S_ISDIR, "is a directory"),
    (stat.S_ISFIFO, "is a named pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)

_FOLDER = os.O_RDONLY | getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: a FIFO without a writer is refused a line later; otherwise open() would wait.
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_ITEM = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
_IS_LINK = (errno.ELOOP, errno.ENOTDIR)


class Reached:
    """An open file or folder, and the open folder that contains it; the caller closes both."""

    __slots__ = ("file", "folder")

    def __init__(self, folder: int, file: int) -> None:
        self.folder = folder
        self.file = file

    def replace(self, file: int) -> None:
        """Use another file of the same folder instead of this one."""
        os.close(self.file)
        self.file = file

    def take_file(self) -> int:
        """Return the file, which the caller has to close."""
        file, self.file = self.file, -1
        return file

    def close(self) -> None:
        """Close the folder, and the file unless it was taken."""
        os.close(self.folder)
        if self.file >= 0:
            os.close(self.file)


def reach(root: bytes, names: Sequence[bytes], policy: str, *, trusting: bool) -> Reached:
    """Open the target of `names`, counted from the folder `root`; it may be anything but a link.

    Args:
        trusting: whether links in the path of `root` itself are followed without a check.

    Raises:
        OSError: there is no such file, or it may not be opened.
    """
    if policy == "all":
        return _anything(b"/".join((root, *names)))
    folder = open_folder(root, trusting=trusting)
    try:
        return _straight(folder, names)
    except OSError as error:
        if error.errno not in _IS_LINK or policy == "none":
            raise
    if policy == "inside":
        return _Walk(root, open_folder(root, trusting=trusting)).to(names)
    return _Walk(os.path.realpath(root) if trusting else root, None).to(names)


def open_folder(path: bytes, *, trusting: bool) -> int:
    """Open a folder; unless `trusting`, by the rule of owners.

    Raises:
        OSError: there is no such folder, or it may not be opened.
    """
    if trusting:
        return os.open(path, _FOLDER)
    names = [name for name in path.split(b"/") if name]
    root = os.open(b"/", _FOLDER)
    if not names:
        return root
    try:
        reached = _straight(root, names, _FOLDER)
    except OSError as error:
        if error.errno not in _IS_LINK:
            raise
        reached = _Walk(b"/", None).to(names, _FOLDER)
    found = reached.take_file()
    reached.close()
    return found


def _straight(folder: int, names: Sequence[bytes], flags: int = _FILE) -> Reached:
    """Walk a path without links; at a link, close `folder`."""
    try:
        for name in names[:-1]:
            inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        last = names[-1] if names else b"."
        return Reached(folder, os.open(last, flags | os.O_NOFOLLOW, dir_fd=folder))
    except BaseException:
        os.close(folder)
        raise


def beside(folder: int, name: bytes) -> int:
    """Open another file of an open folder; links are not followed.

    Raises:
        OSError: there is no such file, or it may not be opened.
    """
    return os.open(name, _FILE | os.O_NOFOLLOW, dir_fd=folder)


def _anything(path: bytes) -> Reached:
    folder = os.open(os.path.dirname(path), _FOLDER)
    try:
        mode = os.stat(path).st_mode  # before it is opened: opening a device may already be an action
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise FileNotFoundError(errno.ENOENT, "it is neither a file nor a folder", path)
        return Reached(folder, os.open(path, _FILE))
    except BaseException:
        os.close(folder)
        raise


class _Walk:
    """One walk in which we follow links ourselves.

    Args:
        root: where it starts.
        bottom: an open descriptor of it, below which every link must stay; None if owners are compared instead.
    """

    def __init__(self, root: bytes, bottom: int | None) -> None:
        self._root = root
        self._inside = bottom is not None
        self._stack = [os.open(b"/", _FOLDER) if bottom is None else bottom]
        self._todo: list[bytes] = []
        self._owed: list[tuple[int, int]] = []  # how much is still to do when a link has been followed; its owner
        self._links = 0

    def to(self, names: Iterable[bytes], flags: int = _FILE) -> Reached:
        """Walk, and open the last name with `flags`."""
        start = [] if self._inside else [name for name in self._root.split(b"/") if name]
        self._todo = [*start, *names][::-1]
        try:
            while self._todo:
                found = self._step(self._todo.pop(), flags)
                if found is not None:
                    return Reached(self._stack.pop(), found)
            found = os.open(b".", flags, dir_fd=self._stack[-1])
            return Reached(self._stack.pop(), found)
        finally:
            for descriptor in self._stack:
                os.close(descriptor)

    def _step(self, name: bytes, flags: int) -> int | None:
        """Go to `name`; return what it is if it was the last name."""
        here = self._stack[-1]
        if name == b"..":
            self._up()
            self._settle(os.fstat(self._stack[-1]))
            return None
        item = os.open(name, _ITEM, dir_fd=here)
        status = os.fstat(item)
        if stat.S_ISLNK(status.st_mode):
            try:
                target = os.readlink(b"", dir_fd=item)
            finally:
                os.close(item)
            self._follow(target, status.st_uid)
            return None
        if stat.S_ISDIR(status.st_mode) and self._todo:
            self._stack.append(item)
            self._settle(status)
            return None
        os.close(item)
        if self._todo:
            raise NotADirectoryError(errno.ENOTDIR, "it is not a folder", name)
        found = os.open(name, flags | os.O_NOFOLLOW, dir_fd=here)
        try:
            self._settle(os.fstat(found))
        except BaseException:
            os.close(found)
            raise
        return found

    def _up(self) -> None:
        if len(self._stack) > 1:
            os.close(self._stack.pop())
        elif self._inside:
            raise PermissionError(errno.EACCES, "a link leads out of the folder", self._root)

    def _follow(self, target: bytes, owner: int) -> None:
        self._links += 1
        if self._links > MOST_LINKS:
            raise OSError(errno.ELOOP, "too many links", self._root)
        if not self._inside and owner:
            self._owed.append((len(self._todo), owner))
        if target.startswith(b"/"):
            target = self._from_bottom(target)
            while len(self._stack) > 1:
                os.close(self._stack.pop())
        names = [name for name in target.split(b"/") if name not in (b"", b".")]
        self._todo += names[::-1]
        if not names:
            self._settle(os.fstat(self._stack[-1]))

    def _from_bottom(self, target: bytes) -> bytes:
        """Return the rest of an absolute target, counted from where the stack starts."""
        if not self._inside:
            return target
        for root in (self._root, os.path.realpath(self._root)):
            if target == root or target.startswith(root + b"/"):
                return target[len(root) :]
        raise PermissionError(errno.EACCES, "a link leads out of the folder", self._root)

    def _settle(self, status: os.stat_result) -> None:
        """Compare the owners of all links that lead to this."""
        while self._owed and self._owed[-1][0] >= len(self._todo):
            _, owner = self._owed.pop()
            if owner != status.st_uid:
                raise PermissionError(errno.EACCES, "a link and its target belong to different users", self._root)


class Unusable(Exception):
    """The file cannot be used as text; the arguments are the reason and the remedy."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def read_bytes(path: str) -> bytes:
    """Read a regular file of at most `LARGEST` bytes; nothing else is even opened.

    Raises:
        Unusable: the file is missing, a dangling link, unreadable, too large or not a regular file.
    """
    try:
        status = os.stat(path)
        _require_regular(status)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            data = os.read(descriptor, min(status.st_size + 4096, LARGEST + 1))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _explained(path, error) from None
    except ValueError as error:
        raise Unusable(f"cannot be read ({error})", "rename it") from None
    if len(data) > LARGEST:
        raise _too_large(len(data))
    return data


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        reason = next((word for test, word in _KINDS if test(status.st_mode)), "is not a regular file")
        raise Unusable(reason, "put a text file in its place or remove it")
    if status.st_size > LARGEST:
        raise _too_large(status.st_size)


def _too_large(size: int) -> Unusable:
    return Unusable(f"is too large ({size} bytes; at most {LARGEST})", "a configuration file is a few lines of text")


def _explained(path: str, error: OSError) -> Unusable:
    if error.errno == errno.ENOENT and os.path.islink(path):
        return Unusable(f"is a dangling link to {os.readlink(path)}", "restore the file or remove the link")
    if error.errno == errno.ELOOP:
        return Unusable("is a link that leads back to itself", "remove the link")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Unusable("does not exist", "create it or correct the path")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Unusable("may not be read by this user", LET_READ)
    return Unusable(f"cannot be read ({error.strerror})", "correct that and try again")


def decode(data: bytes) -> tuple[str, Unusable | None]:
    """Decode UTF-8; return the text, with replacement characters if it is not UTF-8, and the fault.

    Raises:
        Unusable: the data is binary.
    """
    if b"\0" in data:
        raise Unusable("is a binary file, not text", "put an INI file in its place or remove it")
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"is not UTF-8 (byte 0x{data[error.start]:02x} in line {line})"
        remedy = "save it as UTF-8, for example with iconv -f latin1 -t utf-8"
        return data.decode("utf-8", "replace"), Unusable(reason, remedy)
