"""Who takes the place of a server that is gone: the same program of the same user, and nobody who merely says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from multisite.control.serverprocess import command_line
from multisite.supervisor.loop import Loop
from multisite.supervisor.servers import Servers

from .harness import wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to become somebody else")
# Nobody else runs the same: tests of this machine are each other's neighbours.
WAITS = [sys.executable, "-c", "import sys; sys.stdin.read()", str(os.getpid())]
SLEEPS = ["/bin/sleep", str(100_000 + os.getpid())]


class Machine:
    """A loop, the servers it watches, and processes."""

    def __init__(self) -> None:
        self.loop, self.processes = Loop(), ExitStack()
        self.servers = Servers(self.loop)

    def start(self, argv: list[str], **keys: Any) -> subprocess.Popen[bytes]:
        started = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **keys)
        self.processes.callback(_end, started)
        wait_until(lambda: command_line(started.pid) == b"\0".join(map(os.fsencode, argv)) + b"\0")
        return started

    def lose(self, server: subprocess.Popen[bytes]) -> None:
        """The server ends, which is noticed."""
        _end(server)
        wait_until(lambda: self.loop.turn(0.05) or server.pid not in self.servers.pids)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    with made.processes:
        yield made
    made.servers.close()
    made.loop.close()


def test_the_same_command_is_a_successor(machine: Machine) -> None:
    old = machine.start(WAITS)
    machine.servers.register(old.pid)
    new = machine.start(WAITS)
    machine.lose(old)
    assert machine.servers.pids == [new.pid]


def test_a_gunicorn_that_names_its_predecessor_is_a_successor(machine: Machine) -> None:
    old = machine.start(WAITS)
    machine.servers.register(old.pid)
    new = machine.start([*WAITS, "-b :9000"], env={**os.environ, "GUNICORN_PID": str(old.pid)})
    machine.lose(old)
    assert machine.servers.pids == [new.pid]


def test_another_program_that_says_so_is_none(machine: Machine, tmp_path: Path) -> None:
    """Its command line and its environment are its own to write."""
    liar = tmp_path / "python"
    shutil.copy(os.path.realpath(sys.executable), liar)
    old = machine.start(WAITS)
    machine.servers.register(old.pid)
    machine.start(SLEEPS, env={"GUNICORN_PID": str(old.pid)})
    machine.start(WAITS, executable=str(liar))
    machine.lose(old)
    assert machine.servers.pids == []


@as_root
def test_another_users_is_none(machine: Machine) -> None:
    """Or anybody could keep the supervisor, and all its sites, from ever leaving."""
    old = machine.start(SLEEPS)
    machine.servers.register(old.pid)
    machine.start(SLEEPS, user="nobody", env={"GUNICORN_PID": str(old.pid)})
    machine.lose(old)
    assert machine.servers.pids == []
