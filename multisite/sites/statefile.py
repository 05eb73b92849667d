"""JSON documents that a home keeps in its state directory.

They are caches and notes that all workers and the command line share. A user who could
write one could control us, so a document is trusted only if it belongs to us or to root
and nobody else may write to it, and it is never more than JSON.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multisite.config.model import Home


TEMPORARY = ".state-"  # prefix of the names of files that are being written
LEFT_AFTER = 3600.0  # seconds after which nobody writes it any more


def sweep(directory: str) -> None:
    """Remove half-written files of processes that were killed."""
    with contextlib.suppress(OSError), os.scandir(directory) as found:
        for item in list(found):
            with contextlib.suppress(OSError):
                age = time.time() - item.stat(follow_symlinks=False).st_mtime
                if item.name.startswith(TEMPORARY) and age > LEFT_AFTER:
                    os.unlink(item.path)


def _key_of(file: str) -> str:
    """Return what tells the documents of a home from those of another."""
    try:
        status = os.stat(file)
    except OSError:
        return _hashed(file, 0, 0)
    return _hashed(file, status.st_dev, status.st_ino)


@functools.lru_cache(maxsize=64)
def _hashed(file: str, _device: int, _inode: int) -> str:
    """Return the key of a file; a link that has come to lead elsewhere leads to another inode."""
    return hashlib.sha256(os.path.realpath(file).encode("utf-8", "surrogateescape")).hexdigest()[:12]


class StateFile:
    """One document, named `kind`, of one home; two homes may share a directory.

    With `guides_us` its content decides what we do, so root does not trust what the directory's owner wrote.
    """

    def __init__(self, home: Home, kind: str, guides_us: bool = False) -> None:
        self._guides_us = guides_us
        self.key = _key_of(home.file)
        self.directory = home.state_dir
        self.path = os.path.join(self.directory, f"{kind}-{self.key}.json")

    def load(self) -> Any:
        """Return the document, or None if there is none that can be trusted."""
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_uid not in self._believed() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    return None
                return json.loads(file.read())
        except (OSError, ValueError):
            return None

    def rows(self) -> dict[str, Any]:
        """Return the values of the document by name; nothing from one that cannot be trusted."""
        document = self.load()
        return {str(name): row for name, row in document.items()} if isinstance(document, dict) else {}

    def _believed(self) -> set[int]:
        # Root's command line reads what workers under another user wrote into their own directory.
        ours = {os.geteuid(), 0}
        if os.geteuid() != 0 or self._guides_us:
            return ours
        return ours | {os.stat(self.directory).st_uid}

    def store(self, document: Any) -> bool:
        """Replace the document atomically, mode 0600; False where that cannot be."""
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.directory, prefix=TEMPORARY)
        except OSError:
            return False
        try:
            with os.fdopen(handle, "w") as file:
                self._leave(handle)
                file.write(json.dumps(document, separators=(",", ":")))  # not dump(), which is Python, not C
            os.replace(temporary, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            return False
        return True

    def _leave(self, descriptor: int) -> None:
        """Let the directory's owner, for whom root's command line writes, read it; root believes what guides us only
        of root."""
        if os.geteuid() == 0 and not self._guides_us:
            status = os.stat(self.directory)
            os.fchown(descriptor, status.st_uid, status.st_gid)

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold this document's lock; yields False where no lock can be had."""
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            handle = os.open(self.path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._leave(handle)
        except OSError:
            yield False
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield True
        finally:
            os.close(handle)
