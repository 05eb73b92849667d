"""The supervisor makes room for a newer program: itself, executed again in the same process.

The process stays, so its children stay its children, and what it holds open stays open. Whatever could go wrong is
tried first, in a separate process: if that fails, the old program keeps running.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys

from multisite import __version__
from multisite.control import program
from multisite.supervisor import reexec
from multisite.supervisor.control import Caller
from multisite.supervisor.loop import Loop
from multisite.supervisor.process import descriptors
from multisite.supervisor.process.kernel import describe_end
from multisite.supervisor.reexec import Keeper, State

PATIENCE = 30.0  # seconds for the new program to show that it starts
LONGEST_OUTPUT = 65536
# The old program's handlers are lost with it; these signals wait until the new one has installed its own.
HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)

_log = logging.getLogger("multisite.supervisor")


class Upgrade:
    """Tries the new program; `is_due` once that has shown that it starts, at `due_since` in monotonic seconds."""

    def __init__(self, loop: Loop, home: str) -> None:
        self.is_due, self.due_since = False, 0.0
        self.deadline: float | None = None
        self._loop, self._home = loop, home
        self._trial: subprocess.Popen[bytes] | None = None
        self._output = b""
        self._waiting: list[Caller] = []

    def begin(self, connection: Caller | None = None) -> None:
        """Try the new program; `connection` gets the outcome.

        Raises:
            OSError: there are no descriptors or processes left.
        """
        if not self._trial:
            self._start_trial()
        if connection:
            connection.waits = True
            self._waiting.append(connection)

    def _start_trial(self) -> None:
        argv = program.command(self._home, check=str(reexec.FORMAT))
        env = program.environment(os.environ)
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        self._trial = subprocess.Popen(argv, cwd="/", env=env, stdin=null, stdout=pipe, stderr=subprocess.STDOUT)
        self._output = b""
        self.deadline = self._loop.now() + PATIENCE
        assert self._trial.stdout
        os.set_blocking(self._trial.stdout.fileno(), False)
        self._loop.watch(self._trial.stdout.fileno(), lambda _events: self._read())

    def _read(self) -> None:
        assert self._trial
        assert self._trial.stdout
        descriptor = self._trial.stdout.fileno()
        data = descriptors.read(descriptor, LONGEST_OUTPUT)
        if data is None:
            return
        self._output = (self._output + data)[-LONGEST_OUTPUT:]
        if not data:
            self._loop.forget(descriptor)

    def tick(self, now: float) -> None:
        """End a trial that takes too long."""
        if self._trial and self.deadline is not None and now >= self.deadline:
            self.deadline = None
            os.kill(self._trial.pid, signal.SIGKILL)

    def ended(self, pid: int, status: int) -> bool:
        """Handle the end of a process; False if it is not the trial."""
        if not self._trial or self._trial.pid != pid:
            return False
        self._read()
        assert self._trial.stdout
        self._loop.forget(self._trial.stdout.fileno())
        self._trial.stdout.close()
        self._trial.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
        timed_out, self._trial, self.deadline = self.deadline is None, None, None
        if status == 0:
            self.is_due, self.due_since = True, self._loop.now()
        else:
            lines = self._output.decode("utf-8", "replace").strip().splitlines() or [f"it {describe_end(status)}"]
            self.failed(f"it did not start within {PATIENCE:g} s" if timed_out else lines[-1])
        return True

    def failed(self, reason: str) -> None:
        """Report that the old program keeps running."""
        self.is_due = False
        _log.error("MS560 the new program cannot take over, the old one stays: %s", reason)
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.waits = False
            with contextlib.suppress(OSError):
                connection.send({"error": f"the new program cannot take over, the old one stays: {reason}"})

    def execute(self, state: State, keep: Keeper) -> None:
        """Become the new program, which takes over `state`; returns only if that fails."""
        _log.info("the program on disk replaces version %s", __version__)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        folder, sealed = os.getcwd(), -1
        try:
            sealed = reexec.seal(state, keep)
            argv = program.command(self._home, adopt=str(sealed))
            os.chdir("/")
            os.execve(argv[0], argv, program.environment(os.environ))
        except OSError as error:
            os.chdir(folder)
            keep.release()
            if sealed >= 0:
                os.close(sealed)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
            self.failed(f"{error.filename or 'it cannot be executed'}: {error.strerror}")


def arrived(connections: list[Caller]) -> None:
    """Answer the clients that asked for the new program: it runs."""
    for connection in connections:
        if connection.waits:
            connection.waits = False
            connection.send({"done": "the new program is running", "version": __version__})
