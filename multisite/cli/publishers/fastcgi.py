"""flup's FastCGI server, which forks processes as needed.

Its implementation of the protocol is right. Its process manager (flup 1.0.3) does not work with Python 3: it compares
bytes with text, so no process ever counts as busy, and it expects signals to interrupt system calls, which they no
longer do (PEP 475). This module mends both.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from flup.server.fcgi_fork import WSGIServer

GRACE = 30.0  # seconds for requests in flight after a signal to end


class _Ended(BaseException):
    """A signal ends the server."""


class _Channel:
    """The manager's end of its connection with one process, which reports its state in single bytes."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._connected.fileno()

    def recv(self, size: int) -> str:
        """Return what arrived as text, since flup compares it with text."""
        return self._connected.recv(size).decode("latin-1")

    def send(self, text: str) -> int:
        """Send text."""
        return self._connected.send(text.encode("latin-1"))

    def close(self) -> None:
        """Let the process end after its answer."""
        self._connected.close()


class Server(WSGIServer):  # type: ignore[misc]
    """A server with one process for each request in flight, within the limits in its settings."""

    def __init__(self, application: Callable[..., Iterable[bytes]], **settings: Any) -> None:
        super().__init__(application, **settings)
        self._manager = os.getpid()

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP; then finish the requests in flight."""
        try:
            super().run()
        except _Ended:
            self._cleanupChildren()

    def _spawnChild(self, listening: socket.socket) -> bool:
        before = {*self._children}
        if not super()._spawnChild(listening):
            return False
        for pid in {*self._children} - before:
            self._children[pid]["file"] = _Channel(self._children[pid]["file"])
        return True

    def _intHandler(self, number: int, frame: object) -> None:
        if os.getpid() == self._manager:  # else a process that has not yet restored the default handlers
            raise _Ended

    _hupHandler = _intHandler

    def _cleanupChildren(self) -> None:
        """Let all processes end, and kill those that do not within `GRACE`."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for known in self._children.values():
            if known["file"] is not None:
                known["file"].close()
                known["file"] = None
        until = time.monotonic() + GRACE
        while self._children and time.monotonic() < until:
            self._reapChildren()
            time.sleep(0.02)
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
