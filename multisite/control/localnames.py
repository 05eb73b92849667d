"""Whether a server is running that answers NAME.localhost by itself: it holds a lock for life.

``multisite serve`` does so on loopback addresses, and ``multisite explain`` asks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from multisite.config.model import Home
from multisite.control.rundir import RuntimeDir, RuntimeDirError

LOCK = "localhost.lock"


def hold(home: Home) -> None:
    """Hold the lock until this process and its forks have ended; an error is ignored, and then nobody knows."""
    rundir = RuntimeDir(home)
    with contextlib.suppress(OSError, RuntimeDirError):
        rundir.make()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fcntl.flock(os.open(os.path.join(rundir.path, LOCK), flags, 0o600), fcntl.LOCK_SH)


def is_held(home: Home) -> bool:
    """Tell whether one is running."""
    try:
        descriptor = os.open(os.path.join(home.runtime_dir, LOCK), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holders(home: Home) -> list[int]:
    """Return the processes that have taken the lock, as far as the kernel tells (proc(5), /proc/locks)."""
    try:
        inode = os.stat(os.path.join(home.runtime_dir, LOCK)).st_ino
        with open("/proc/locks", encoding="ascii") as file:
            rows = [line.split() for line in file.read().splitlines()]
    except OSError:
        return []
    return sorted({int(row[4]) for row in rows if row[1] == "FLOCK" and row[5].rpartition(":")[2] == str(inode)})
