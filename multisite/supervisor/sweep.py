"""What a site leaves behind: helpers in sessions of their own, known by a mark in their environment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Container

from multisite.supervisor import process
from multisite.supervisor.environment import MARKER

PATIENCE = 5.0  # seconds for what was killed to be gone


def _mark(pid: int) -> str:
    return process.environment(pid).get(MARKER.encode(), b"").decode("utf-8", "replace")


def _kill(pid: int) -> None:
    assert pid > 1
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def strays(prefix: str, living: Container[str], known: Container[int]) -> int:
    """Kill those of our own children that a backend left to us which is gone; returns how many.

    What they have started themselves falls to us when they are dead, so this is done after each death. A helper
    of a site that lives is not touched.

    Args:
        prefix: how all our marks begin, up to the first colon.
        living: the marks of all backends that there are.
        known: pids that need no look.
    """
    marks = {pid: _mark(pid) for pid in process.children() if pid not in known}
    found = [pid for pid, mark in marks.items() if mark.startswith(prefix + ":") and mark not in living]
    for pid in found:
        _kill(pid)
    return len(found)


def of_another(prefix: str) -> int:
    """Kill whatever still runs of a supervisor that was killed; its marks begin with `prefix` and a colon."""
    assert prefix, "everything begins with nothing"
    found = [pid for pid in process.processes() if pid != os.getpid() and _mark(pid).startswith(prefix + ":")]
    for pid in found:
        _kill(pid)
    return len(found)


def all_children() -> None:
    """Kill every child that we have, again and again, a bounded time: the children of what is dead fall to us."""
    deadline = time.monotonic() + PATIENCE
    while process.children() and time.monotonic() < deadline:
        for pid in process.children():
            _kill(pid)
        for pid in process.ended():
            process.reap(pid)
        time.sleep(0.002)
