"""The supervisor's side of the process that talks to the registry's engine (`multisite.cluster.agent`).

The supervisor has no threads, because it forks, and never waits for an engine. So a process of its own does; lines of
JSON go both ways through a socket that never blocks us. It outlives the program that has started it, so that the next
one can ask at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

from multisite.control import program
from multisite.supervisor.loop import Loop
from multisite.supervisor.process import descriptors, privilege
from multisite.supervisor.process.launch import base_environment
from multisite.supervisor.process.prctl import PR_SET_PDEATHSIG, prctl
from multisite.supervisor.reexec import BYTES, GIVEN, Handed, given, kept, taken_socket
from multisite.supervisor.reexec import State as Packed

MODULE = "multisite.cluster.agent"
MOST_WAITING = 64 << 20  # bytes that wait for it; one that reads nothing for so long is replaced
BEATS_WITHIN = 2.0  # seconds that it has to say that it is there
STARTS_WITHIN = 30.0  # the same, for the first time
_PASSED = ("SSL_CERT_FILE", "SSL_CERT_DIR")

Message = dict[str, Any]


class AgentProcess(Handed):
    """One such process.

    Attributes:
        pid: its number.
        alive_since: monotonic seconds at which it first said anything; None: not yet.
    """

    KEPT = kept(
        pid=GIVEN,
        _socket=given(lambda connected, keep: keep(connected.fileno())),
        _to_send=BYTES,
        _received=BYTES,
    )
    ANEW = ("is_open", "alive_since", "_beat_at", "_loop", "_heard")

    def __init__(self, pid: int, connected: socket.socket, loop: Loop, heard: Callable[[Message], None]) -> None:
        self.pid, self._socket, self._loop, self._heard = pid, connected, loop, heard
        self._to_send = self._received = b""
        self.is_open = True
        self.alive_since: float | None = None
        self._beat_at: float | None = None  # when it was asked whether it is there, if it has not answered
        self._socket.setblocking(False)
        loop.watch(self._socket, self._ready)

    @classmethod
    def started(cls, first: Message, loop: Loop, heard: Callable[[Message], None]) -> AgentProcess:
        """Start one.

        Args:
            first: what it has to know.
            heard: is called with each of its messages.

        Raises:
            OSError: it cannot be started.
        """
        descriptors.claim(4)
        own = base_environment(os.environ, privilege.of_this_process())
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = subprocess.Popen(
                    [program.own_interpreter(), "-m", MODULE],
                    cwd="/",  # Python looks for modules in the working directory
                    env=program.environment({**own, **passed}),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    preexec_fn=partial(prctl, PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - we have no threads
                )
        except BaseException:
            ours.close()
            raise
        process.returncode = 0  # the supervisor waits for all its children
        made = cls(process.pid, ours, loop, heard)
        made.write(first)
        return made

    @classmethod
    def taken_over(cls, state: Packed, loop: Loop, heard: Callable[[Message], None]) -> AgentProcess:
        """Return the one that another program packed."""
        made = cls(state["pid"], taken_socket(state["socket"]), loop, heard)
        made.take_over(state)
        made._flush()
        return made

    def write(self, message: Message) -> None:
        """Send it a message, now or later."""
        if not self.is_open:
            return
        self._to_send += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        if len(self._to_send) > MOST_WAITING:
            return self.close()
        self._flush()

    def _flush(self) -> None:
        try:
            while self._to_send:
                self._to_send = self._to_send[self._socket.send(self._to_send) :]
        except BlockingIOError:
            pass
        except OSError:
            return self.close()
        self._loop.watch(self._socket, self._ready, write=bool(self._to_send))

    def _ready(self, _events: int) -> None:
        self._read()
        if self._to_send and self.is_open:
            self._flush()

    def _read(self) -> bool:
        """Hear what it says; tell whether there may be more."""
        data = descriptors.read(self._socket.fileno())
        if not data:
            if data is not None:
                self.close()
            return False
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        return self.is_open

    def _take(self, message: Message) -> None:
        if self.alive_since is None:
            self.alive_since = self._loop.now()
        if "beat" in message:
            self._beat_at = None
        else:
            self._heard(message)

    # Whether it lives

    def beats(self, now: float) -> bool:
        """Ask it whether it is there; False: it has not answered in time, so it is stuck."""
        if self._beat_at is None:
            self._beat_at = now
            self.write({"beat": True})
        return now - self._beat_at < (STARTS_WITHIN if self.alive_since is None else BEATS_WITHIN)

    def close(self) -> None:
        """Let it end; what it announced lives on for a while."""
        if self.is_open:
            self.is_open = False
            self._loop.forget(self._socket)
            self._socket.close()

    def kill(self) -> None:
        """End it, whatever it does. It must not have been waited for: its number may be another's then."""
        self.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def leave(self, within: float) -> None:
        """Let it do what it was asked for, withdraw what it announced, and end; wait so many seconds for that."""
        self.write({"leave": True})
        if not within or not self.is_open:
            return self.close()
        try:
            self._socket.settimeout(within)
            self._socket.sendall(self._to_send)
            while self._socket.recv(65536):  # not closed earlier: it would end at the first answer that it cannot give
                pass
        except OSError:
            self.kill()
        self.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        return None

    def ended(self) -> None:
        """It has ended: read what it said last."""
        while self.is_open and self._read():
            pass
        self.close()  # its socket may live on in a process that a registry of another package has started
