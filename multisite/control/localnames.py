"""Whether a server runs that answers NAME.localhost without being told to: it holds a lock for life.

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
    """Have everybody know, until this process and those that it forks have ended; where that cannot be, nobody does."""
    rundir = RuntimeDir(home)
    with contextlib.suppress(OSError, RuntimeDirError):
        rundir.make()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fcntl.flock(os.open(os.path.join(rundir.path, LOCK), flags, 0o600), fcntl.LOCK_SH)


def is_held(home: Home) -> bool:
    """Tell whether one runs."""
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
