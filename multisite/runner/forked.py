"""How a process forked by the preloader becomes the backend that a plain start would have made.

The kernel gives an orphan to the nearest subreaper. So the preloader forks twice, the process in between ends, and
the supervisor is the parent of the backend: it learns of its end, and the backend dies with it and not with the
preloader. Everything that differs between two sites is set here; if something cannot be set in a running process, the
supervisor makes a plain start.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

LISTENER, JOB, NOTIFY, BOARD = 3, 4, 5, 6
ASIDE = 64  # descriptors are put aside up there first, so that none is overwritten before it is in its place
SET_PDEATHSIG, SET_NAME = 1, 15
PAUSE = 0.00005  # seconds between two looks whether the process in between is gone
BORN = b"born"
FAILED = 127
_ENV_START, _ENV_END = 47, 48  # of /proc/self/stat, after the name (proc(5) counts from 1 and the pid)

_libc = ctypes.CDLL(None, use_errno=True)


class ForkRequest:
    """One order for a fork, with the descriptors that came along.

    Attributes:
        places: the number of each descriptor in the new process.
        channel: where the new process announces itself and reports failures; it is closed when the process is set up.
        env: as a plain start would get it; the variable `mark` holds the mark of the site's processes.
        location: the directory whose modules are imported first.
    """

    def __init__(self, orders: dict[str, Any], places: dict[int, int], channel: socket.socket) -> None:
        self.places, self.channel = places, channel
        self.location: str = orders["location"]
        self.env: dict[str, str] = orders["env"]
        self.mark: str = orders["mark"]
        self.cwd: str = orders["cwd"]
        self.umask: int = orders["umask"]
        self.nice: int = orders["nice"]
        self.nofile: list[int] = orders["nofile"]

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in set(self.places.values()):
            os.close(descriptor)
        self.channel.close()


def fork(request: ForkRequest, supervisor: int, name: bytes) -> bool:
    """Fork; False in the preloader, True in the new process once it is set up.

    Args:
        request: what the new process should become.
        supervisor: the process that has to be its parent.
        name: its name in ps(1).
    """
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return False
    try:
        between = os.getpid()
        if os.fork():
            os._exit(0)
        _belong(request, between, supervisor)
        _become(request, name)
    except BaseException:
        os._exit(FAILED)
    return True


def _belong(request: ForkRequest, between: int, supervisor: int) -> None:
    """Become a child of the supervisor, which dies with it, and announce that."""
    os.setsid()
    while os.getppid() == between:
        time.sleep(PAUSE)
    prctl(SET_PDEATHSIG, signal.SIGKILL)  # only now: it reports the death of the present parent
    if os.getppid() != supervisor:
        os._exit(FAILED)
    request.channel.send(BORN)  # fails where nobody waits for it any more


def _become(request: ForkRequest, name: bytes) -> None:
    """Set all that is the site's own."""
    step = "prepare"
    try:
        set_name(name)
        _arrange(request)
        step = "limits"
        resource.setrlimit(resource.RLIMIT_NOFILE, (request.nofile[0], request.nofile[1]))
        if request.nice:
            os.nice(request.nice)
        step = f"location {request.cwd}"
        os.chdir(request.cwd)
        step = "environment"
        os.umask(request.umask)
        env = {**request.env, "LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
        os.environ.clear()
        mark(env, request.mark)
        os.environ.update(env)
        time.tzset()
        multiprocessing = sys.modules.get("multiprocessing.process")
        if multiprocessing is not None:  # it made a secret at its import, and each site needs its own
            multiprocessing.current_process().authkey = os.urandom(32)
    except BaseException as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        request.channel.send(f"{step}: {reason}".encode("utf-8", "replace")[:4000])
        raise
    request.channel.close()


def _arrange(request: ForkRequest) -> None:
    """Put each descriptor in its place, and close all others but the channel."""
    channel = request.channel.fileno()
    far = channel + ASIDE
    aside = {place: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, far) for place, source in request.places.items()}
    for place, source in aside.items():
        os.dup2(source, place)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > BOARD and descriptor != channel:
            try:
                os.close(descriptor)
            except OSError:
                pass  # that of the listing


def prctl(option: int, value: int) -> None:
    """Call prctl(2).

    Raises:
        OSError: the kernel refuses.
    """
    if _libc.prctl(option, ctypes.c_ulong(value), *(ctypes.c_ulong(0),) * 3):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def get_name() -> bytes:
    """Return the name of this process in ps(1)."""
    with open("/proc/self/comm", "rb") as file:
        return file.read().rstrip(b"\n")


def set_name(name: bytes) -> None:
    """Set the name of this process in ps(1), to 15 bytes at most."""
    _libc.prctl(SET_NAME, ctypes.c_char_p(name[:15]))


def mark(env: dict[str, str], first: str) -> None:
    """Make /proc/PID/environ show `env`, as far as there is room: by the variable `first` leftovers are recognised.

    That memory holds the variables that the preloader was started with. Remove them from the environment before, since
    the C library still reads them there.

    Raises:
        OSError: the kernel does not report where it is, or there is no room.
    """
    start, end = _region()
    pairs = [f"{name}={env[name]}" for name in sorted(env, key=lambda name: name != first)]
    data = b"\0".join(os.fsencode(pair) for pair in pairs) + b"\0"
    if len(data) > end - start:
        data = data[: data.rfind(b"\0", 0, end - start) + 1]
    if not data:
        raise OSError("there is no room for its mark")
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, data, len(data))


def _region() -> tuple[int, int]:
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[_ENV_START]), int(fields[_ENV_END])
    if not 0 < start < end:
        raise OSError("the kernel does not report where the environment is")
    return start, end
