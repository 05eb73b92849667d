"""The children of this process, the orphans that are given to it included: held, told something, and their ends."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator

from multisite.supervisor.process import proc
from multisite.supervisor.process.prctl import PR_SET_CHILD_SUBREAPER, prctl


def become_subreaper() -> None:
    """Have orphans of our children given to us, not to init."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


class Child:
    """A child that somebody answers for, held by a descriptor (pidfd_open(2)): a signal reaches it, or nobody.

    A number alone is not enough. It may be announced by whoever likes to, and once a process has been waited for, the
    kernel gives it to another. So each number has one holder, who learns of the end from `end`.

    Raises:
        OSError: the process is no child of ours, somebody holds it already (EBUSY), or there are no descriptors left.

    Attributes:
        end: wait status and seconds of processor time, once it has been waited for.
    """

    def __init__(self, pid: int) -> None:
        if pid in _held:
            raise OSError(errno.EBUSY, "somebody else holds the process")
        if pid <= 1:
            raise OSError(errno.ECHILD, os.strerror(errno.ECHILD))
        self.pid = pid
        self.end: tuple[int, float] | None = None
        self._descriptor = os.pidfd_open(pid)
        if proc.parent(pid) != os.getpid():
            os.close(self._descriptor)
            raise OSError(errno.ECHILD, os.strerror(errno.ECHILD))
        _held[pid] = self

    def __repr__(self) -> str:
        return f"<Child {self.pid}{'' if self.end is None else ' ended'}>"

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and its group at once."""
        self._signal_group(signal.SIGKILL)
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Keep it and its group from taking another connection, until `thaw`."""
        self._signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it and its group go on."""
        self._signal_group(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.end is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def _signal_group(self, number: int) -> None:
        """As long as nobody has waited for it, no other group can have its number."""
        if self.end is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def ended(self, status: int, spent: float) -> None:
        """Note that it has been waited for."""
        self.end = status, spent
        os.close(self._descriptor)


_held: dict[int, Child] = {}


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

    The time is that of the process and of the children that it waited for. What is left of the group of one that is
    held is killed before: afterwards its number may be another's.
    """
    child = _held.get(pid)
    if child:
        child.kill()
    _pid, status, usage = os.wait4(pid, 0)
    spent = usage.ru_utime + usage.ru_stime
    if child:
        del _held[pid]
        child.ended(status, spent)
    return status, spent


def describe_end(status: int) -> str:
    """Say how a process ended: ``exited with code 3`` or ``was killed by SIGKILL``."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
