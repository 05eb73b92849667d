"""Signals to processes and their groups."""

from __future__ import annotations

import contextlib
import os
import signal


def terminate(pid: int) -> None:
    """Ask a process to end."""
    _signal(pid, signal.SIGTERM)


def freeze(pid: int) -> None:
    """Keep a process and its group from taking another connection, until `thaw`."""
    _signal_group(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    """Let a process and its group go on."""
    _signal_group(pid, signal.SIGCONT)


def kill(pid: int) -> None:
    """End a process and its group at once."""
    _signal_group(pid, signal.SIGKILL)
    _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    """Send a signal; 0, 1 and -1 stand for whole groups of processes, or all there are, and get none."""
    if pid > 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _signal_group(pid: int, number: int) -> None:
    if pid > 1:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
