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


def orphans(mark: str, known: Container[int] = ()) -> int:
    """Kill those of our own children that a backend marked `mark` left to us; returns how many.

    A helper of another site is not touched, and `known` processes need no look.
    """
    found = [pid for pid in process.children() if pid not in known and _mark(pid) == mark]
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
    """Kill every child that we still have, and wait until they are gone, a bounded time."""
    for pid in process.children():
        _kill(pid)
    deadline = time.monotonic() + PATIENCE
    while process.children() and time.monotonic() < deadline:
        list(process.reap())
        time.sleep(0.002)
