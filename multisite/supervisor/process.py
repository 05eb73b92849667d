"""The one place that makes processes, ends them and learns of their end.

Only the main thread may spawn: PR_SET_PDEATHSIG is bound to the *thread* that forked, so a child of
any other would be killed when that thread ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

from multisite.supervisor import descriptors
from multisite.supervisor.prctl import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    prctl,
)

LISTENER = 3  # the first descriptor after standard error, as sd_listen_fds(3) has it
JOB = 4
_TICKS = os.sysconf("SC_CLK_TCK")
_ASIDE = 16  # descriptors are put aside up here first, so that none is overwritten before it is in its place


@dataclass(frozen=True)
class Identity:
    """Who a process runs as; `change` is False where the supervisor's own user is meant."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    name: str = ""
    home: str = "/"
    change: bool = False


@dataclass(frozen=True)
class Pair:
    """An interpreter and who runs it: what sites must have in common to be forked from one process."""

    python: str
    identity: Identity

    def __str__(self) -> str:
        groups = "+".join(map(str, (self.identity.gid, *self.identity.groups)))
        return f"{self.python} {self.identity.name or self.identity.uid} {self.identity.uid}:{groups}"


@dataclass(frozen=True)
class Launch:
    """All that is needed to start one process.

    Attributes:
        argv: its first item is an absolute path or is looked up in PATH of `env`.
        socket_as_stdin: the listening socket becomes descriptor 0 (uWSGI's way) rather than 3 (systemd's).
        job: what a runner of ours is told on descriptor 4, JSON.
        told: it says READY=1 itself; otherwise its first accepted connection counts.
        graceful: SIGTERM lets requests in flight end.
        tried: it is another program first, which says TRIED=1 when it becomes the server.
        shared_env: the part of `env` that all sites of its pair have.
        location: whose modules are imported first.
        gunicorn: the folder of our own.
        preload: "" if a preloader may make it, else why not.
        examine: the version of the site's code that is to be examined, "" for none.
        once: it leaves after each request, and the next one starts another.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    identity: Identity
    chroot: str = ""
    umask: int = 0o022
    nice: int = 0
    nofile: int | None = None
    socket_as_stdin: bool = False
    job: bytes = b""
    told: bool = False
    graceful: bool = False
    tried: bool = False
    shared_env: dict[str, str] = field(default_factory=dict)
    location: str = ""
    gunicorn: str = ""
    preload: str = ""
    examine: str = ""
    once: bool = False
    notes: tuple[str, ...] = ()

    @property
    def pair(self) -> Pair:
        """Whose preloader may make it."""
        return Pair(self.argv[0], self.identity)


@dataclass(frozen=True)
class Spawned:
    """A process just made: `failure` is a pipe that ends when it has become its program, or says why it could not."""

    pid: int
    output: int
    failure: int


@dataclass
class Limits:
    """Limits of the machine as they were before the supervisor raised its own."""

    nofile: tuple[int, int] = field(default_factory=lambda: resource.getrlimit(resource.RLIMIT_NOFILE))

    def raise_own(self) -> None:
        """Let this process have as many descriptors as it may: a listening socket for each site."""
        soft, hard = self.nofile
        if soft != hard:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def become_subreaper() -> None:
    """Have orphans of our children given to us, not to init."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def spawn(launch: Launch, listener: int, limits: Limits) -> Spawned:
    """Start a process; what goes wrong before it is its program is told on the pipe `failure`.

    Raises:
        OSError: there are no descriptors or processes left.
    """
    descriptors.claim(6)
    with contextlib.ExitStack() as undo:
        output, output_end = _pipe(undo)
        failure, failure_end = _pipe(undo)
        job = memory_file(launch.job, undo) if launch.job else -1
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(launch, listener, job, output_end, failure_end, limits, supervisor)
        os.close(output_end)
        os.close(failure_end)
        if job >= 0:
            os.close(job)
        undo.pop_all()
    os.set_blocking(output, False)
    os.set_blocking(failure, False)
    return Spawned(pid, output, failure)


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        undo.callback(os.close, end)
    return ends


def memory_file(data: bytes, undo: contextlib.ExitStack) -> int:
    """Return the descriptor of a file in memory that holds `data`; it is closed with `undo`."""
    job = os.memfd_create("job", os.MFD_CLOEXEC)
    undo.callback(os.close, job)
    os.write(job, data)
    os.lseek(job, 0, os.SEEK_SET)
    return job


def _become(
    launch: Launch, listener: int, job: int, output: int, failure: int, limits: Limits, supervisor: int
) -> None:
    """Become the program; never returns.  The order matters, see the comments."""
    step = "prepare"
    try:
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # the two that Python ignores
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        failure = _arrange(launch, listener, job, output, failure)
        step = "limits"
        _limit(launch, limits)
        if launch.chroot:
            step = f"chroot {launch.chroot}"
            os.chroot(launch.chroot)
            os.chdir("/")
        if launch.identity.change:
            step = f"user {launch.identity.name or launch.identity.uid}"
            os.setgroups(launch.identity.groups)
            os.setgid(launch.identity.gid)
            os.setuid(launch.identity.uid)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after setuid, which clears it
        if os.getppid() != supervisor:  # the supervisor died before the line above
            os._exit(1)
        step = f"location {launch.cwd}"
        os.chdir(launch.cwd)
        step = f"run {launch.argv[0]}"
        os.umask(launch.umask)
        env = dict(launch.env)
        if not launch.socket_as_stdin:
            env.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        os.execvpe(launch.argv[0], launch.argv, env)
    except BaseException as error:  # nothing may escape into a second supervisor
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        with contextlib.suppress(OSError):
            os.write(failure, f"{step}: {reason}".encode("utf-8", "replace")[:4000])
    finally:
        os._exit(127)


def _arrange(launch: Launch, listener: int, job: int, output: int, failure: int) -> int:
    """Put each descriptor in its place and close all others; returns where `failure` is now."""
    null = os.open(os.devnull, os.O_RDWR)
    wanted = {0: null, 1: output, 2: output, LISTENER: listener}
    if launch.socket_as_stdin:
        wanted[0] = listener
        del wanted[LISTENER]
    if job >= 0:
        wanted[JOB] = job
    aside = {place: _put_aside(source) for place, source in wanted.items()}
    kept = _put_aside(failure)  # closes by itself when the program runs
    for place, source in aside.items():
        os.dup2(source, place, inheritable=True)
    for descriptor in list(_open_descriptors()):
        if descriptor not in wanted and descriptor != kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    return kept


def _put_aside(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ASIDE)


def _open_descriptors() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc/self/fd"))


def nofile(launch: Launch, limits: Limits) -> tuple[int, int]:
    """Return how many descriptors a process may have, now and at most; what its file says it cannot raise itself."""
    soft, hard = limits.nofile
    if launch.nofile is None:
        return min(soft, hard), hard
    most = launch.nofile if os.geteuid() == 0 else min(launch.nofile, hard)
    return most, most


def _limit(launch: Launch, limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, nofile(launch, limits))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump could hold a neighbour's secrets on a shared disk
    if launch.nice:
        os.nice(launch.nice)


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


def children() -> list[int]:
    """Return the pids of this process's children, those given to us as a subreaper included."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return [pid for pid in processes() if parent(pid) == os.getpid()]


def processes() -> list[int]:
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
