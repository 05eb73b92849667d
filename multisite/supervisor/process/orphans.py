"""What a site leaves behind: helpers in sessions of their own, known by a mark in their environment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Mapping

from multisite.supervisor.process import kernel
from multisite.supervisor.process.spec import MARKER

PATIENCE = 5.0  # seconds for what was killed to be gone


def _mark(pid: int) -> str:
    return kernel.environment(pid).get(MARKER.encode(), b"").decode("utf-8", "replace")


def _kill(pid: int) -> None:
    assert pid > 1
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def strays(prefix: str, living: Mapping[str, int], known: Collection[int], ours: Collection[int] = ()) -> int:
    """Kill those of our own children that a backend left to us which is gone; returns how many.

    What they have started themselves falls to us when they are dead, so this is done after each death. A helper
    of a site that lives is not touched.

    A process writes into its environment what it likes. So one that has no mark of ours goes with the last process of
    its user, and a mark counts only for the user whose it is; of what runs as root, root has been told.

    Args:
        prefix: how all our marks begin, up to the first colon.
        living: the marks of all backends that there are, and their pids; 0 where that is not known yet.
        known: pids of the backends.
        ours: pids that need no look either, but are no reason to leave anything to their users: preloaders.
    """
    others = [pid for pid in kernel.child_pids() if pid not in known and pid not in ours]
    users = {kernel.user(pid) for pid in known} if others else set()
    found = [pid for pid in others if _is_stray(pid, prefix, living, users)]
    for pid in found:
        _kill(pid)
    return len(found)


def _is_stray(pid: int, prefix: str, living: Mapping[str, int], users: set[int]) -> bool:
    mark, user = _mark(pid), kernel.user(pid)
    if mark in living:
        return kernel.user(living[mark]) not in (user, 0, kernel.NOBODY)
    return mark.startswith(prefix + ":") or not ({user, 0} & users or user in (os.geteuid(), kernel.NOBODY))


def of_another(prefix: str) -> int:
    """Kill whatever still runs of a supervisor that was killed; its marks begin with `prefix` and a colon."""
    assert prefix, "everything begins with nothing"
    return sum(_kill_marked(pid, prefix + ":") for pid in kernel.pids() if pid not in (1, os.getpid()))


def _kill_marked(pid: int, beginning: str) -> bool:
    """Kill a process that need not be our child; nobody gets its number between the look and the signal."""
    if not _mark(pid).startswith(beginning):
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _mark(pid).startswith(beginning):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)


def all_children() -> None:
    """Kill every child that we have, again and again, a bounded time: the children of what is dead fall to us."""
    deadline = time.monotonic() + PATIENCE
    while kernel.child_pids() and time.monotonic() < deadline:
        for pid in kernel.child_pids():
            _kill(pid)
        for pid in kernel.ended_children():
            kernel.reap(pid)
        time.sleep(0.002)
