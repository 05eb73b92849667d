"""What the kernel tells of processes (proc(5))."""

from __future__ import annotations

import errno
import os
import resource

NOBODY = -1  # the user of a process that is no more
_TICKS = os.sysconf("SC_CLK_TCK")


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


def user(pid: int) -> int:
    """Return the effective user of a process, -1 if it is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as lines:
            return next(int(line.split()[2]) for line in lines if line.startswith(b"Uid:"))
    except (OSError, StopIteration):
        return NOBODY


def cpu(pid: int) -> float:
    """Return the seconds of processor time of a process and the children that it waited for; 0.0 if it is gone."""
    fields = stat(pid)
    return sum(map(int, fields[11:15])) / _TICKS if fields else 0.0


def session(pid: int) -> int:
    """Return the session that a process belongs to, 0 if it is gone; a backend's is its own pid."""
    fields = stat(pid)
    return int(fields[3]) if fields else 0


def environment(pid: int) -> dict[bytes, bytes]:
    """Return the environment that a process was started with; empty where we may not look."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = file.read(1 << 20).split(b"\0")
    except OSError:
        return {}
    return dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)


def memory(pid: int) -> int:
    """Return the proportional set size of a process in bytes; its resident size where that is not told, else 0."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resident(pid)


def resident(pid: int) -> int:
    """Return the resident set size of a process in bytes, 0 if it is gone."""
    fields = stat(pid)
    return int(fields[21]) * resource.getpagesize() if len(fields) > 21 else 0


def has_children(pid: int) -> bool:
    """Tell whether a process has any, as far as the kernel says (CONFIG_PROC_CHILDREN)."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False
