"""The processes of a WSGI server: which of them starts the others, since when it runs, and whether it still does."""

from __future__ import annotations

import os

TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds, to which the kernel rounds down when a process began


def boot() -> str:
    """Return the id of this boot of the machine (random(4)), "" if it is not known."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def started(pid: int) -> float:
    """Return when a process began, in seconds since the boot (proc(5)); 0.0 if it has ended or is hidden from us."""
    fields = _stat(pid)
    return int(fields[19]) * TICK if len(fields) > 19 and fields[0] not in "ZX" else 0.0


def server_of(pid: int) -> int:
    """Return the topmost ancestor of `pid` that is the same program, forked and not executed again.

    The kernel gives every execution another auxiliary vector (it holds the address of random bytes);
    where we may not read that, we compare the command lines.
    """
    while True:
        parent = _parent(pid)
        if parent <= 1 or not _same_program(pid, parent):
            return pid
        pid = parent


def command_line(pid: int) -> bytes:
    """Return the command line of a process, empty if it has exited."""
    return _read(pid, "cmdline")


def _same_program(child: int, parent: int) -> bool:
    vectors = _read(child, "auxv"), _read(parent, "auxv")
    if all(vectors):
        return vectors[0] == vectors[1]
    command = command_line(child)
    return bool(command) and command == command_line(parent)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on; empty if there is no such process."""
    return _read(pid, "stat").rpartition(b")")[2].decode("ascii", "replace").split()


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""
