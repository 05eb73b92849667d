"""The supervisor's parent: it inherits what a killed supervisor leaves behind, and ends it.

Children of the supervisor die with it (PR_SET_PDEATHSIG). Their own children, in separate sessions, would live on;
the kernel gives them to this process, the nearest subreaper. It holds the lock meanwhile, so the next supervisor finds
nothing of the last one. It imports almost nothing, and only waits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from multisite.supervisor.process.prctl import PR_SET_CHILD_SUBREAPER, prctl, set_name

PATIENCE = 5.0  # seconds for killed processes to be gone
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def guard() -> int:
    """Fork: return in the child, with a descriptor to write to when all is ready; the parent never returns."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    reader, writer = os.pipe()
    os.set_inheritable(writer, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        os.close(reader)
        return writer
    os.close(writer)
    code = 1
    try:
        code = _watch(child, reader)
    finally:
        os._exit(code)


def _watch(child: int, reader: int) -> int:
    for number in _FORWARDED:
        signal.signal(number, lambda got, _frame: os.kill(child, got))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    set_name("multisite-guard")
    if os.read(reader, 1):
        _tell_ready()
    status = _wait_for(child)
    _end_orphans()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _tell_ready() -> None:
    """Notify the service manager, if there is one (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        import socket  # most guards never need it

        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.send(b"READY=1")


def _wait_for(child: int) -> int:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            return status


def _end_orphans() -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            for pid in _children():
                os.kill(pid, signal.SIGKILL)
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.001)
        except ChildProcessError:
            return
        except ProcessLookupError:
            continue


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]
