"""The pool of announced nodes, published by the supervisor and read by all workers.

Two files below ``router`` in the runtime directory: the pool as JSON, replaced whole, and one number that workers have
mapped. A request looks at the number; only when it has changed, the pool is read. So a request asks nobody, and needs
no system call.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from multisite.control.rundir import RuntimeDir
from multisite.router import pool
from multisite.router.groups import Group
from multisite.router.pool import Pool

FOLDER = "router"  # in the runtime directory
POOL, NUMBER = "pool.json", "pool.number"
LOST_AFTER = 5.0  # seconds without a sign of the supervisor after which a worker has it started again
_SIZE = mmap.PAGESIZE
_GENERATION, _BEAT = 0, 1

_log = logging.getLogger("multisite.router")


class Publisher:
    """Publishes the pool of a home; the supervisor has one.

    Args:
        rundir: the runtime directory; users that it admits may read the files.

    Attributes:
        published: generation of the pool that the workers know.

    Raises:
        OSError: the files cannot be made.
    """

    def __init__(self, rundir: RuntimeDir) -> None:
        self._rundir = rundir
        self._folder = os.path.join(rundir.path, FOLDER)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        path = os.path.join(self._folder, NUMBER)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(file, 0, _SIZE)
            self._number = memoryview(mmap.mmap(file, _SIZE)).cast("Q")
        finally:
            os.close(file)
        self.published = -1

    def publish(self, found: Pool) -> None:
        """Publish the pool if it has changed.

        Raises:
            OSError: it cannot be written; it is tried again the next time.
        """
        if found.generation == self.published:
            return
        handle, temporary = tempfile.mkstemp(dir=self._folder)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(json.dumps(found.document()))  # not dump(), which is Python, not C
            access = self._rundir.access
            access.admit_to_file(temporary)
            os.replace(temporary, os.path.join(self._folder, POOL))
            access.admit_to_file(os.path.join(self._folder, NUMBER))
            access.admit_to_folder(self._folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        self._number[_GENERATION] += 1
        self.published = found.generation

    def beat(self) -> None:
        """Show the workers that the supervisor is alive."""
        self._number[_BEAT] = time.monotonic_ns()


def silence(rundir: RuntimeDir) -> float:
    """Return the seconds since a supervisor last showed that it is alive; infinity if that is unknown."""
    try:
        with open(os.path.join(rundir.path, FOLDER, NUMBER), "rb") as file:
            beat = memoryview(file.read(_SIZE)).cast("Q")[_BEAT]
    except (OSError, TypeError, IndexError):
        return math.inf
    silent = time.monotonic() - beat / 1e9
    return silent if beat and silent >= 0 else math.inf  # it may be of a time before the machine was started


class Subscribed:
    """The mapper of announced nodes, in a worker.

    Args:
        rundir: the runtime directory.
        wake: starts the supervisor if it has gone.
    """

    name = "subscription"

    def __init__(self, rundir: str, wake: Callable[[], None] = lambda: None) -> None:
        self._wake, self._woken = wake, 0.0
        self._folder = os.path.join(rundir, FOLDER)
        self._groups: dict[str, Group] = {}
        self._number: memoryview | None = None
        self._inode = 0
        self._read = -1
        self._failure = ""
        self._map()

    def find(self, key: str) -> Group | None:
        """Return the nodes that announced themselves for a key."""
        return self._newest().get(key)

    def entries(self) -> Iterator[tuple[str, Group | None]]:
        """Yield each key and its nodes."""
        yield from list(self._newest().items())

    def _newest(self) -> dict[str, Group]:
        number = self._number
        if number is not None and number[_GENERATION] != self._read:
            self._load(number[_GENERATION])
        return self._groups

    def look(self) -> None:
        """Map the number if a supervisor has made it, or a new one; start a supervisor that has gone."""
        number, now = self._number, time.monotonic()
        if (not number or now - number[_BEAT] / 1e9 > LOST_AFTER) and now - self._woken > LOST_AFTER:
            self._woken = now
            self._wake()
        self._map()

    def _map(self) -> None:
        try:
            inode = os.stat(os.path.join(self._folder, NUMBER)).st_ino
            if inode == self._inode and self._number is not None:
                return
            file = os.open(os.path.join(self._folder, NUMBER), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if os.fstat(file).st_size < _SIZE:
                    return
                number = memoryview(mmap.mmap(file, _SIZE, prot=mmap.PROT_READ)).cast("Q")
            finally:
                os.close(file)
        except OSError:
            return  # no supervisor has run yet; what it has published is used while it is away
        self._number, self._inode, self._read = number, inode, -1

    def _load(self, number: int) -> None:
        """Read the pool; unchanged groups stay, with the health of their nodes."""
        known = self._groups
        try:
            with open(os.path.join(self._folder, POOL), encoding="utf-8") as file:
                document: dict[str, Any] = json.load(file)
            found = {}
            for key, algorithm, members in pool.read(document):
                old = known.get(key)
                if old and old.nodes == members and old.algorithm == algorithm:
                    found[key] = old
                elif members:
                    found[key] = Group(members, algorithm)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            if self._failure != str(error):
                _log.error("MS735 cannot read the announced nodes: %s", error)
            self._failure = str(error)
            return
        self._failure = ""
        self._groups, self._read = found, number
