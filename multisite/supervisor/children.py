"""The children of this process, the orphans that are given to it included, and their ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from multisite.supervisor import proc
from multisite.supervisor.prctl import PR_SET_CHILD_SUBREAPER, prctl


def become_subreaper() -> None:
    """Have orphans of our children given to us, not to init."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def pids() -> list[int]:
    """Return the pids of all of them."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return [pid for pid in proc.pids() if proc.parent(pid) == os.getpid()]


def ended() -> Iterator[int]:
    """Yield every child that has ended, orphans given to us included; each is to be reaped before the next one.

    Until then nobody else can get its pid.
    """
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        yield found.si_pid


def reap(pid: int) -> tuple[int, float]:
    """Return wait status and seconds of processor time of a child that has ended, and let its pid go.

    The time is that of the process and of the children that it waited for.
    """
    _pid, status, usage = os.wait4(pid, 0)
    return status, usage.ru_utime + usage.ru_stime


def describe_end(status: int) -> str:
    """Say how a process ended: ``exited with code 3`` or ``was killed by SIGKILL``."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
