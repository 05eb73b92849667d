"""What the kernel reports of processes (proc(5)) and of connections to unix sockets; our children, and their ends."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

from multisite.supervisor.process.prctl import PR_SET_CHILD_SUBREAPER, prctl

MOST_DESCENDANTS = 1000  # of a process, that we look at
NOBODY = -1  # the user of a process that has ended
_TICKS = os.sysconf("SC_CLK_TCK")
_CLOCK = 2  # CPUCLOCK_SCHED: of a whole process, to the nanosecond


def pids() -> list[int]:
    """Return all pids of this machine that we can see."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on (proc(5)); empty if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode("ascii", "replace").split()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EACCES):
            raise
        return []


def parent(pid: int) -> int:
    """Return the pid of the parent, 0 if the process is gone."""
    fields = stat(pid)
    return int(fields[1]) if fields else 0


def read(pid: int, name: str) -> bytes:
    """Return the content of /proc/PID/NAME, a megabyte at most; empty if we may not look or the process is gone."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""


def user(pid: int) -> int:
    """Return the effective user of a process, -1 if it is gone."""
    lines = read(pid, "status").split(b"\n")  # a name may hold any other kind of line end
    return next((int(line.split()[2]) for line in lines if line.startswith(b"Uid:")), NOBODY)


def cpu(pid: int) -> float:
    """Return the seconds of processor time of a process and the children that it waited for; 0.0 if it is gone."""
    fields = stat(pid)
    if not fields:
        return 0.0
    own, children = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
    # Its clock (clock_getcpuclockid(3)) has no ticks, of which a starved process gets few.
    with contextlib.suppress(OSError):
        return time.clock_gettime(~pid << 3 | _CLOCK) + children / _TICKS
    return (own + children) / _TICKS


def family(pid: int) -> list[int]:
    """Return a process, its children and theirs, as far as they are its own still; a thousand at most."""
    waiting, seen, found = [pid], {pid}, []
    while waiting and len(seen) <= MOST_DESCENDANTS:
        one = waiting.pop()
        found.append(one)
        children = {int(child) for child in b" ".join(_children(one)).split()} - seen
        seen |= children
        waiting += children
    return found


def cpu_of_all(pid: int) -> float:
    """Return the seconds of processor time of a process, its children and theirs, as far as they are its own still."""
    return sum(map(cpu, family(pid)))


def processor_share() -> float:
    """Return how much of a processor one process can have on this machine, 1.0 at most, if all get the same."""
    try:
        with open("/proc/loadavg") as file:
            mean, _, _, now = file.read().split()[:4]
    except OSError:
        return 1.0
    wanting = max(float(mean), float(now.partition("/")[0]))
    return min(1.0, len(os.sched_getaffinity(0)) / max(wanting, 1.0))


def _children(pid: int) -> Iterator[bytes]:
    """Yield the children of each thread of a process, if the kernel lists them (CONFIG_PROC_CHILDREN)."""
    with contextlib.suppress(OSError):
        yield from (read(pid, f"task/{thread}/children") for thread in os.listdir(f"/proc/{pid}/task"))


def session(pid: int) -> int:
    """Return the session that a process belongs to, 0 if it is gone; a backend's is its own pid."""
    try:
        return os.getsid(pid)
    except OSError:  # or, where a security module hides it, it is none of ours
        return 0


def environment(pid: int) -> dict[bytes, bytes]:
    """Return the environment that a process was started with; empty if we may not look."""
    pairs = read(pid, "environ").split(b"\0")
    return dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)


def memory(pid: int) -> int:
    """Return the proportional set size of a process in bytes; its resident size if that is not known, else 0."""
    lines = read(pid, "smaps_rollup").split(b"\n")
    pss = next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:")), None)
    return resident(pid) if pss is None else pss


def resident(pid: int) -> int:
    """Return the resident set size of a process in bytes, 0 if it is gone."""
    fields = stat(pid)
    return int(fields[21]) * resource.getpagesize() if len(fields) > 21 else 0


def has_children(pid: int) -> bool:
    """Tell whether a process has any, if the kernel lists them (CONFIG_PROC_CHILDREN)."""
    return bool(read(pid, f"task/{pid}/children"))


def become_subreaper() -> None:
    """Make orphans of our children our own children, not init's."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


class Child:
    """A child with one holder, held by a descriptor (pidfd_open(2)): a signal reaches this process or none.

    A number alone is not enough. Any process may announce any number, and once a process has been waited for, the
    kernel gives its number to another. So each number has one holder, who learns of the end from `end`.

    Raises:
        OSError: the process is not our child, another object holds it (EBUSY), or there are no descriptors left.

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
        if parent(pid) != os.getpid():
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
        """Keep it and its group from accepting another connection, until `thaw`."""
        self._signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it and its group continue."""
        self._signal_group(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.end is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def _signal_group(self, number: int) -> None:
        """While it has not been waited for, no other group can have its number."""
        if self.end is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def ended(self, status: int, spent: float) -> None:
        """Note that it has been waited for."""
        self.end = status, spent
        os.close(self._descriptor)


_held: dict[int, Child] = {}


def child_pids() -> list[int]:
    """Return the pids of all of them."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return [pid for pid in pids() if parent(pid) == os.getpid()]


def ended_children() -> Iterator[int]:
    """Yield every child that has ended, adopted orphans included; reap each one before the next.

    Until then nothing else can get its pid.
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
    """Return wait status and seconds of processor time of a child that has ended, and release its pid.

    The time is that of the process and of the children that it waited for. If the child is held, the rest of its group
    is killed first: afterwards the group's number may belong to another.
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
    """Describe how a process ended: ``exited with code 3`` or ``was killed by SIGKILL``."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


_TABLE = "/proc/self/net/unix"  # available with systemd's ProcSubset=pid, too
_LISTENS = 0x10000  # __SO_ACCEPTCON
#: address: references protocol flags type state inode path (net/unix/af_unix.c, unix_seq_show)
_LINE = re.compile(rb"[^ ]+: [0-9A-F]{8} [0-9A-F]{8} ([0-9A-F]{8}) [0-9A-F]{4} ([0-9A-F]{2}) +([0-9]+) (/.*)\n")


@dataclass
class Connections:
    """How many connections to one socket wait to be accepted, and how many are open."""

    waiting: int = 0
    open: int = 0


def connections(folder: str) -> dict[str, Connections]:
    """Return the connections to each bound socket in `folder`, by path, without asking the server.

    The table has the names of all sockets of the machine as their owners wrote them, line ends included. So any line
    may be forged. One that could not be the kernel's is skipped, and a good forgery can only make a site look busier
    than it is. A connection that has not been accepted yet has no inode (net/unix/af_unix.c).
    """
    prefix = os.fsencode(folder.rstrip("/")) + b"/"
    found: dict[str, Connections] = {}
    with open(_TABLE, "rb") as table:
        for line in table:
            told = prefix in line and _LINE.fullmatch(line)
            if not told or not told[4].startswith(prefix) or int(told[1], 16) & _LISTENS:
                continue
            counts = found.setdefault(os.fsdecode(told[4]), Connections())
            if told[3] == b"0":
                counts.waiting += 1
            elif told[2] == b"03":
                counts.open += 1
    return found
