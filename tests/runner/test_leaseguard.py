"""The guard of a site that must not run twice: everything ends with the lease, by itself."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.runner import leaseguard
from tests.processes import is_running
from tests.supervisor.harness import wait_until

FAR = 600.0  # seconds: no test waits for it
# Notes its own number and that of a helper in a session of its own, whose parent has ended; it is deaf to SIGTERM.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = subprocess.check_output(["sh", "-c", "sleep 600 >/dev/null & echo $!"], start_new_session=True, text=True)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getpid()} {helper.strip()} {os.environ.get('LISTEN_PID')}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""


class Lease:
    """The file that a guard has mapped."""

    def __init__(self, seconds: float) -> None:
        self.file = os.memfd_create("fence")
        os.ftruncate(self.file, leaseguard.SIZE)
        self._cells = memoryview(mmap.mmap(self.file, leaseguard.SIZE)).cast("q")
        self.ends_in(seconds)

    def ends_in(self, seconds: float) -> None:
        self._cells[0] = leaseguard.now() + int(seconds * 1e9)

    def guard(self, *argv: str, warning: float = 0.0) -> subprocess.Popen[bytes]:
        """Start a command under a guard."""
        guard = [sys.executable, "-I", "-S", leaseguard.__file__, str(warning), "--", *argv]

        def place() -> None:
            os.dup2(self.file, leaseguard.FENCE)

        return subprocess.Popen(guard, preexec_fn=place, close_fds=False, stderr=subprocess.DEVNULL)  # noqa: PLW1509


@pytest.fixture
def lease() -> Iterator[Lease]:
    made = Lease(FAR)
    yield made
    made.ends_in(-1)


def started(path: Path) -> list[int]:
    """Wait for the stubborn command; returns its number, that of its helper, and what LISTEN_PID names."""
    wait_until(path.exists)
    return list(map(int, path.read_text().split()))


def test_all_that_a_site_has_started_ends_with_its_lease(lease: Lease, tmp_path: Path) -> None:
    """Even a helper in a session of its own whose parent has ended, and a command that does not listen to SIGTERM."""
    lease.ends_in(5)
    guard = lease.guard(sys.executable, "-c", STUBBORN, str(tmp_path / "pids"), warning=1)
    command, helper, named = started(tmp_path / "pids")
    assert named == command
    assert guard.wait(60) == leaseguard.LOST
    assert not is_running(command)
    assert not is_running(helper)


def test_a_renewed_lease_keeps_it_running(lease: Lease, tmp_path: Path) -> None:
    """The guard looks again when the first moment has come."""
    lease.ends_in(3)
    first = leaseguard.now() + 3 * 10**9
    guard = lease.guard(sys.executable, "-c", STUBBORN, str(tmp_path / "pids"))
    command, *_ = started(tmp_path / "pids")
    lease.ends_in(FAR)
    wait_until(lambda: leaseguard.now() > first + 10**9)
    assert is_running(command)
    assert guard.poll() is None
    guard.kill()
    wait_until(lambda: not is_running(command))


# Killing at once what has been started would not do: it may have run for a moment.
STARTS_ONE = """
import mmap
from multisite.runner.leaseguard import LeaseGuard
print(LeaseGuard(["true"], mmap.mmap(-1, 8), 0, False).pid)
"""


def test_nothing_starts_under_a_lease_that_is_over(lease: Lease, tmp_path: Path) -> None:
    lease.ends_in(-1)
    assert lease.guard("touch", str(tmp_path / "ran")).wait(60) == leaseguard.LOST
    assert not (tmp_path / "ran").exists()
    assert subprocess.check_output([sys.executable, "-c", STARTS_ONE]) == b"0\n"


def test_a_site_may_end_by_itself_before_its_lease_does(lease: Lease) -> None:
    """It is asked to, even if that is as soon as it has been started, and that is no failure of the site."""
    for _ in range(5):
        assert lease.guard("sleep", "600", warning=2 * FAR).wait(60) == leaseguard.LOST


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -SEGV $$", -signal.SIGSEGV), ("exit 0", 0)])
def test_it_ends_as_its_command_ends(lease: Lease, script: str, status: int) -> None:
    assert lease.guard("sh", "-c", script).wait(60) == status


def test_it_passes_signals_on(lease: Lease) -> None:
    guard = lease.guard("sleep", "600")
    wait_until(lambda: Path(f"/proc/{guard.pid}/task/{guard.pid}/children").read_text().strip())
    guard.terminate()
    assert guard.wait(60) == -signal.SIGTERM


def test_a_program_that_is_missing_is_reported_as_a_shell_would(lease: Lease) -> None:
    assert lease.guard("/nowhere/at/all").wait(60) == 127


def test_all_ends_with_the_supervisor(lease: Lease, tmp_path: Path) -> None:
    """The kernel tells the guard that its parent has died."""
    parent = os.fork()
    if parent == 0:
        with contextlib.suppress(BaseException):
            lease.guard(sys.executable, "-c", STUBBORN, str(tmp_path / "pids"))
            signal.pause()
        os._exit(1)
    command, helper, _ = started(tmp_path / "pids")
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    wait_until(lambda: not is_running(command) and not is_running(helper))
