"""The supervisor's side of the process that talks to the registry's engine (`multisite.cluster.agent`).

The supervisor has no threads, because it forks, and never waits for an engine. So a process of its own does; lines of
JSON go both ways through a socket that never blocks us.
"""

from __future__ import annotations

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

MODULE = "multisite.cluster.agent"
MOST_WAITING = 64 << 20  # bytes that wait for it; one that reads nothing for so long is replaced
_PASSED = ("SSL_CERT_FILE", "SSL_CERT_DIR")

Message = dict[str, Any]


class AgentProcess:
    """One such process.

    Args:
        first: what it has to know.
        heard: is called with each of its messages.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, first: Message, loop: Loop, heard: Callable[[Message], None]) -> None:
        self._loop, self._heard = loop, heard
        self._to_send = self._received = b""
        self.is_open = True
        descriptors.claim(4)
        own = base_environment(os.environ, privilege.of_this_process())
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
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
            self._socket.close()
            raise
        self._socket.setblocking(False)
        loop.watch(self._socket, self._ready)
        self.write(first)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

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
            self._heard(json.loads(line))
        return self.is_open

    def close(self) -> None:
        """Let it end; what it announced lives on for a while."""
        if self.is_open:
            self.is_open = False
            self._loop.forget(self._socket)
            self._socket.close()

    def leave(self, within: float) -> None:
        """Let it do what it was asked for, withdraw what it announced, and end; wait so many seconds for that."""
        self.write({"leave": True})
        if not within:
            self.close()
            self._process.returncode = 0  # the supervisor waits for all its children
            return
        try:
            self._send_rest(within)
            self._process.wait(within)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        finally:
            self.close()  # not earlier: it would end at the first answer that it cannot give

    def _send_rest(self, within: float) -> None:
        """Raises OSError: it does not read."""
        if self.is_open:
            self._socket.settimeout(within)
            self._socket.sendall(self._to_send)

    def ended(self, status: int) -> None:
        """It has ended, and has been waited for."""
        self._process.returncode = os.waitstatus_to_exitcode(status)
        while self.is_open and self._read():  # what it said last
            pass
        self.close()  # its socket may live on in a process that a registry of another package has started
