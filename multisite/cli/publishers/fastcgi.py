"""flup's FastCGI server, in processes that are forked as they are needed.

Its protocol is as it should be. Its process manager (flup 1.0.3) has not got over Python 3: it compares bytes with
text, so that no process ever counts as busy, and waits for signals to interrupt system calls, which they do no more
(PEP 475). What depends on either is done here.
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

GRACE = 30.0  # seconds for requests in flight when it is told to end


class _Told(BaseException):
    """A signal has come that ends the server."""


class _Channel:
    """The manager's end of its connection with one process, which says one byte about itself at a time."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._connected.fileno()

    def recv(self, size: int) -> str:
        """Return what came, as the text that it is compared with."""
        return self._connected.recv(size).decode("latin-1")

    def send(self, text: str) -> int:
        """Send what is written as text."""
        return self._connected.send(text.encode("latin-1"))

    def close(self) -> None:
        """Let the process go when it has answered."""
        self._connected.close()


class Server(WSGIServer):  # type: ignore[misc]
    """As many processes as there are requests, between the bounds that it is given."""

    def __init__(self, application: Callable[..., Iterable[bytes]], **settings: Any) -> None:
        super().__init__(application, **settings)
        self._manager = os.getpid()

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP; requests in flight are answered first."""
        try:
            super().run()
        except _Told:
            self._cleanupChildren()

    def _spawnChild(self, listening: socket.socket) -> bool:
        before = {*self._children}
        if not super()._spawnChild(listening):
            return False
        for pid in {*self._children} - before:
            self._children[pid]["file"] = _Channel(self._children[pid]["file"])
        return True

    def _intHandler(self, number: int, frame: object) -> None:
        if os.getpid() == self._manager:  # else: a process that has not yet put back the usual handlers
            raise _Told

    _hupHandler = _intHandler

    def _cleanupChildren(self) -> None:
        """Let all processes go, and end those that cannot within `GRACE`."""
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
