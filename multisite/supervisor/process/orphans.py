"""What a site leaves behind: helpers in separate sessions, identified by a mark in their environment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Mapping

from multisite.supervisor.process import kernel
from multisite.supervisor.process.spec import MARKER

PATIENCE = 5.0  # seconds for killed processes to be gone


def _mark(pid: int) -> str:
    return kernel.environment(pid).get(MARKER.encode(), b"").decode("utf-8", "replace")


def _kill(pid: int) -> None:
    assert pid > 1
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def strays(prefix: str, living: Mapping[str, int], known: Collection[int], ours: Collection[int] = ()) -> int:
    """Kill our own children that a vanished backend left to us; returns how many.

    Their own children become ours when they die, so this is done after each death. Helpers of a living site are not
    touched.

    A process can write anything into its environment. So a process without our mark goes with the last process of its
    user, and a mark counts only for its own user. If a site runs as root, unmarked processes may be its own: we spare
    them.

    Args:
        prefix: how all our marks begin, up to the first colon.
        living: the marks of all existing backends, and their pids; 0 if the pid is not known yet.
        known: pids of the backends.
        ours: further pids that need no look, but do not protect other processes of their users: preloaders.
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
    """Kill whatever still runs of a killed supervisor; its marks begin with `prefix` and a colon."""
    assert prefix, "everything begins with nothing"
    return sum(_kill_marked(pid, prefix + ":") for pid in kernel.pids() if pid not in (1, os.getpid()))


def _kill_marked(pid: int, beginning: str) -> bool:
    """Kill a process that need not be our child; its number cannot be reused between the look and the signal."""
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


def all_children(but: Collection[int] = ()) -> None:
    """Kill every child that we have, repeatedly, for a bounded time: the children of dead ones become ours."""
    deadline = time.monotonic() + PATIENCE
    while (left := set(kernel.child_pids()).difference(but)) and time.monotonic() < deadline:
        for pid in left:
            _kill(pid)
        for pid in kernel.ended_children():
            kernel.reap(pid)
        time.sleep(0.002)
