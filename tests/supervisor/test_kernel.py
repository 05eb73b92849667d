"""A process number is believed once, held by one, and used for nothing when its process is gone."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from multisite.supervisor.process import kernel
from multisite.supervisor.process.kernel import Child
from multisite.supervisor.process.preloader import BORN, ForkChannel
from tests.descriptors import all_open
from tests.processes import is_running

from .harness import wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to choose the number of a process")
BY_THE_LAST_SIGNAL = 7  # exit status
CLONE3 = 435  # the system call, on all machines


def forked(what: Callable[[], object] = signal.pause, fork: Callable[[], int] = os.fork) -> int:
    pid = fork()
    if pid == 0:
        try:
            what()
        finally:
            os._exit(0)
    return pid


def in_a_group_with_another() -> None:
    os.setsid()
    os.fork()
    signal.pause()


def members(session: int) -> list[int]:
    return [pid for pid in kernel.pids() if kernel.session(pid) == session]


def reap(pid: int) -> int:
    wait_until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    return kernel.reap(pid)[0]


@pytest.fixture
def held() -> Iterator[Child]:
    child = Child(forked())
    yield child
    if child.end is None:
        child.kill()
        reap(child.pid)


def test_a_number_has_one_holder(held: Child) -> None:
    with pytest.raises(OSError) as caught:
        Child(held.pid)
    assert caught.value.errno == errno.EBUSY


@pytest.mark.parametrize(
    "who", [lambda: 0, lambda: 1, lambda: -1, os.getpid, os.getppid], ids=["0", "1", "-1", "we", "parent"]
)
def test_who_is_no_child_of_ours_is_not_held(who: Callable[[], int]) -> None:
    """0 is what the kernel says of a process in a world that we cannot see."""
    before = all_open()
    with pytest.raises(OSError):
        Child(who())
    assert all_open() <= before


def test_a_childs_child_is_not_held() -> None:
    between = subprocess.Popen(
        [sys.executable, "-c", "import os, sys; pid = os.fork(); pid and print(pid, flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert between.stdout
    grandchild = int(between.stdout.readline())
    with pytest.raises(OSError) as caught:
        Child(grandchild)
    assert caught.value.errno == errno.ECHILD
    between.communicate()


def test_its_holder_hears_of_the_end_and_what_is_left_of_its_group_is_killed_before() -> None:
    child = Child(forked(in_a_group_with_another))
    group = wait_until(lambda: len(found := members(child.pid)) == 2 and found)
    os.kill(child.pid, signal.SIGTERM)
    reap(child.pid)
    assert child.end is not None and os.WTERMSIG(child.end[0]) == signal.SIGTERM
    wait_until(lambda: not any(map(is_running, group)))


@as_root
def test_a_signal_never_reaches_the_next_one_of_that_number(held: Child) -> None:
    """The number of a process that was waited for is given away again; our own holder must not use it."""
    held.kill()
    reap(held.pid)
    other = _with_number(held.pid)
    for send in (held.terminate, held.kill, held.freeze, held.thaw):
        send()
    os.kill(other, signal.SIGRTMAX)  # which comes after all others that have been sent
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == BY_THE_LAST_SIGNAL


def _with_number(pid: int) -> int:
    """Return a child of that number. Setting ns_last_pid would give it away as well, and those after it to anybody."""
    wanted = (ctypes.c_int * 1)(pid)
    # flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size: clone(2)
    how = struct.pack("=10Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), len(wanted))
    system = ctypes.PyDLL(None, use_errno=True)  # it keeps the interpreter's lock, which the child needs, too
    other = forked(in_a_session_of_its_own, lambda: system.syscall(CLONE3, how, len(how)))
    if other < 0 and ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):
        pytest.skip("NOT TESTED: the kernel lets nobody choose a number")
    assert other == pid, os.strerror(ctypes.get_errno())
    wait_until(lambda: kernel.session(other) == other)
    return other


def in_a_session_of_its_own() -> None:
    signal.signal(signal.SIGRTMAX, lambda *_: os._exit(BY_THE_LAST_SIGNAL))
    os.setsid()
    signal.pause()


def test_a_process_that_is_announced_twice_is_believed_once() -> None:
    """A hostile preloader has one process stand for two: the second is refused, and makes a plain start necessary."""
    first, second = ForkChannel(os.geteuid(), 0), ForkChannel(os.geteuid(), 0)

    def announce() -> None:
        for channel in (first, second):
            channel.theirs.send(BORN)
        signal.pause()

    pid = forked(announce)
    try:
        wait_until(lambda: [channel.read_messages() for channel in (first, second)] and first.child)
        wait_until(lambda: second.read_messages() or second.refused)
        assert first.child and first.child.pid == pid
        assert second.child is None
        assert "somebody else holds" in second.refused
    finally:
        os.kill(pid, signal.SIGKILL)
        reap(pid)
        for channel in (first, second):
            channel.close()
    assert first.child and first.child.end


@pytest.mark.parametrize("which", ["another user's", "the preloader"])
def test_another_users_process_and_the_preloader_itself_are_not_believed(which: str) -> None:
    channel = ForkChannel(os.geteuid() + (which == "another user's"), 0)
    pid = forked(lambda: channel.theirs.send(BORN) and signal.pause())
    channel._preloader = pid if which == "the preloader" else 0
    channel.theirs.close()
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    channel.read_messages()
    assert channel.child is None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    channel.close()
