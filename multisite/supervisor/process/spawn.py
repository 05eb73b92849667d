"""The one place that makes processes.

Only the main thread may spawn: PR_SET_PDEATHSIG is bound to the *thread* that forked, so a child of
any other would be killed when that thread ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from multisite.runner.leaseguard import FENCE
from multisite.supervisor.process import descriptors, reach
from multisite.supervisor.process.descriptors import DescriptorLimits
from multisite.supervisor.process.kernel import Child
from multisite.supervisor.process.prctl import PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, prctl
from multisite.supervisor.process.spec import BOARD, JOB, LISTENER, NOTIFY, Given, Launch

_ASIDE = 16  # descriptors are first moved up here, so that none is overwritten before it is in its place


@dataclass(frozen=True)
class Spawned:
    """A new process: `failure` is a pipe that ends when it has become its program, or reports why it could not."""

    child: Child
    output: int
    failure: int


def spawn(launch: Launch, given: Given, limits: DescriptorLimits) -> Spawned:
    """Start a process; failures before it has become its program are reported on the pipe `failure`.

    Raises:
        OSError: there are no descriptors or processes left.
    """
    descriptors.claim(7)
    with contextlib.ExitStack() as undo:
        output, output_end = _pipe(undo)
        failure, failure_end = _pipe(undo)
        job = memory_file(launch.job, undo) if launch.job else -1
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(launch, given, job, output_end, failure_end, limits, supervisor)
        child = _held(pid)
        os.close(output_end)
        os.close(failure_end)
        if job >= 0:
            os.close(job)
        undo.pop_all()
    os.set_blocking(output, False)
    os.set_blocking(failure, False)
    return Spawned(child, output, failure)


def _held(pid: int) -> Child:
    try:
        return Child(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)  # it has not been waited for yet
        os.waitpid(pid, 0)
        raise


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        undo.callback(os.close, end)
    return ends


def memory_file(data: bytes, undo: contextlib.ExitStack) -> int:
    """Return the descriptor of a memory file that holds `data`; it is closed with `undo`."""
    job = os.memfd_create("job", os.MFD_CLOEXEC)
    undo.callback(os.close, job)
    os.write(job, data)
    os.lseek(job, 0, os.SEEK_SET)
    return job


def _become(
    launch: Launch, given: Given, job: int, output: int, failure: int, limits: DescriptorLimits, supervisor: int
) -> None:
    """Become the program; never returns. The order matters, see the comments."""
    step = "prepare"
    try:
        os.setsid()
        for number in range(1, 32):  # Python ignores two, nohup(1) another; a signal stays ignored across the exec
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        failure = _arrange(launch, given, job, output, failure)
        for step in confine(launch, limits):  # noqa: B007 - the name of the step is for the report
            pass
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
        if isinstance(error, PermissionError):
            with contextlib.suppress(Exception):
                reason += denied(launch, step)
        with contextlib.suppress(OSError):
            os.write(failure, f"{step}: {reason}".encode("utf-8", "replace")[:4000])
    finally:
        os._exit(127)


def confine(launch: Launch, limits: DescriptorLimits) -> Iterator[str]:
    """Give this process the limits, the root directory and the user of `launch`; yields each step before doing it."""
    yield "limits"
    _limit(launch, limits)
    if launch.chroot:
        yield f"chroot {launch.chroot}"
        os.chroot(launch.chroot)
        os.chdir("/")
    if launch.identity.change:
        yield f"user {launch.identity.name or launch.identity.uid}"
        os.setgroups(launch.identity.groups)
        os.setgid(launch.identity.gid)
        os.setuid(launch.identity.uid)
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def denied(launch: Launch, step: str) -> str:
    """Add which user was denied access, and where: this process already runs as that user."""
    wanted = [launch.cwd]
    if step.startswith("run "):
        program = shutil.which(launch.argv[0], path=launch.env.get("PATH")) or os.path.abspath(launch.argv[0])
        wanted = list(reach.executed(program, launch.env.get("PATH", os.defpath)))
    place = next(filter(None, map(reach.closed, wanted)), "")
    user = launch.identity.name or str(launch.identity.uid)
    return f" for the user '{user}'{f' at {place}' if place else ''}"


def _arrange(launch: Launch, given: Given, job: int, output: int, failure: int) -> int:
    """Put each descriptor in its place and close all others; returns where `failure` is now."""
    null = os.open(os.devnull, os.O_RDWR)
    wanted = {0: null, 1: output, 2: output, LISTENER: given.listener}
    if launch.socket_as_stdin:
        wanted[0] = given.listener
        del wanted[LISTENER]
    ours = {JOB: job, NOTIFY: given.notify, BOARD: given.board, FENCE: given.fence}
    wanted |= {place: source for place, source in ours.items() if source >= 0}
    aside = {place: _put_aside(source) for place, source in wanted.items()}
    kept = _put_aside(failure)  # it closes by itself when the program runs
    for place, source in aside.items():
        os.dup2(source, place, inheritable=True)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in wanted and descriptor != kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    return kept


def _put_aside(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ASIDE)


def _limit(launch: Launch, limits: DescriptorLimits) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, limits.of(launch.nofile))
    # The supervisor may be protected from being killed for want of memory (proc(5)); this process is not.
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        if int(file.read()) < 0:
            file.seek(0)
            file.write("0")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump could hold a neighbour's secrets on a shared disk
    if launch.nice:
        os.nice(launch.nice)
