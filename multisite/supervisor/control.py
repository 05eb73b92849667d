"""The control sockets: one for the supervisor's own user and root, and one for the workers of socket_group.

A request is one line with a JSON object, and so is its answer.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from multisite.control.peers import peer_of
from multisite.control.rundir import RuntimeDir, bind
from multisite.supervisor.loop import Loop
from multisite.supervisor.process import descriptors
from multisite.supervisor.reexec import BYTES, Handed, Keeper, given, kept, taken_socket
from multisite.supervisor.reexec import State as Packed

FOR_WORKERS = ("ping", "meet", "ensure", "trouble", "hung", "provision")  # what workers of another user may ask for
LONGEST_REQUEST = 65536
LONGEST_ANSWER_KEPT = 16 << 20  # bytes that may wait for a slow reader
_TURNED_AWAY = {"error": descriptors.EXHAUSTED, "status": 503, "retry_after": 5}

Answer = dict[str, Any]
Handler = Callable[[Answer, "Caller"], Answer | None]

_log = logging.getLogger("multisite.supervisor")


class Caller(Handed):
    """One client.

    Attributes:
        pid, uid: of the connected process.
        follows: the site whose output it receives as it is printed.
        waits: its answer comes later.
    """

    KEPT = kept(
        "follows waits",
        _socket=given(lambda connected, keep: keep(connected.fileno())),
        _received=BYTES,
        _to_send=BYTES,
    )
    ANEW = ("pid", "uid", "on_close", "_loop", "_handler")

    def __init__(self, connected: socket.socket, loop: Loop, handler: Handler) -> None:
        self.pid, self.uid, _ = peer_of(connected)
        self.on_close: list[Callable[[], None]] = []
        self.follows = ""
        self.waits = False
        self._socket, self._loop, self._handler = connected, loop, handler
        self._received = b""
        self._to_send = b""
        self._socket.setblocking(False)
        loop.watch(self._socket, self._ready)

    def _ready(self, _events: int) -> None:
        try:
            if self._to_send:
                self._flush()
            data = self._socket.recv(LONGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            return self.close()
        self._received += data
        if not data or len(self._received) > LONGEST_REQUEST:
            return self.close()
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            self._answer_line(line)

    def _answer_line(self, line: bytes) -> None:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError
        except (ValueError, RecursionError):
            return self.send({"error": "this is not a JSON object", "status": 400})
        try:
            answer = self._handler(request, self)
        except Exception:
            self.send({"error": "the supervisor failed; its log says why", "status": 500})
            raise
        if answer is not None:
            self.send(answer)

    def send(self, answer: Answer) -> None:
        """Send one line; drop a reader that does not keep up."""
        self._to_send += json.dumps(answer, separators=(",", ":")).encode() + b"\n"
        if len(self._to_send) > LONGEST_ANSWER_KEPT:
            return self.close()
        with contextlib.suppress(BlockingIOError):
            try:
                self._flush()
            except BlockingIOError:
                raise
            except OSError:
                return self.close()
        if self._socket.fileno() >= 0:
            self._loop.watch(self._socket, self._ready, write=bool(self._to_send))

    def _flush(self) -> None:
        while self._to_send:
            sent = self._socket.send(self._to_send)
            self._to_send = self._to_send[sent:]
        self._loop.watch(self._socket, self._ready)

    def close(self) -> None:
        """End it."""
        self._loop.forget(self._socket)
        self._socket.close()
        for call in self.on_close:
            call()
        self.on_close.clear()

    @classmethod
    def taken_over(cls, state: Packed, loop: Loop, handler: Handler) -> Caller:
        """Return the connection that another program packed."""
        made = cls(taken_socket(state["socket"]), loop, handler)
        made.take_over(state)
        if made._to_send:
            loop.watch(made._socket, made._ready, write=True)
        return made


class Control:
    """The listening socket and all its connections; `state` comes from another program.

    `own`: it is for our own user and root only. Only its mode protects the workers' socket from others.
    """

    def __init__(
        self, path: str, loop: Loop, handler: Handler, state: Packed | None = None, *, own: bool = True
    ) -> None:
        self.path, self._own = path, own
        self.connections: list[Caller] = []
        self._loop, self._handler = loop, handler
        self._reserve = -1
        if state:
            self._socket = taken_socket(state["socket"])
            self._socket.setblocking(False)
            for packed in state["connections"]:
                self._add(Caller.taken_over(packed, loop, handler))
        else:
            self._socket = _bind(path)
        self._keep_one()
        loop.watch(self._socket, self._accept)

    def _keep_one(self) -> None:
        """Reserve one descriptor, if there is any."""
        with contextlib.suppress(OSError):
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _give_it_up(self) -> None:
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def pack(self, keep: Keeper) -> Packed:
        """Return what a successor needs."""
        connections = [connection.pack(keep) for connection in self.connections]
        return {"socket": keep(self._socket.fileno()), "connections": connections}

    def _add(self, connection: Caller) -> None:
        self.connections.append(connection)
        connection.on_close.append(lambda: self.connections.remove(connection))

    def _accept(self, _events: int) -> None:
        while True:
            try:
                descriptors.claim(1, share=2)  # people and workers get answers even when sites do not
                connected, _ = self._socket.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._turn_away()
                return
            connection = Caller(connected, self._loop, self._handler)
            self._add(connection)
            if self._own and connection.uid not in (os.geteuid(), 0):
                _log.warning("MS557 refused user %s at %s", connection.uid, self.path)
                connection.close()

    def _turn_away(self) -> None:
        """Tell one client that there are no descriptors left, using the reserved one."""
        self._give_it_up()
        with contextlib.suppress(OSError):
            connected, _ = self._socket.accept()
            with connected:
                connected.setblocking(False)
                connected.recv(LONGEST_REQUEST)  # unread data would destroy the answer when the socket is closed
                connected.send(json.dumps(_TURNED_AWAY).encode() + b"\n")
        self._keep_one()

    def close(self) -> None:
        """Accept no more connections."""
        self._loop.forget(self._socket)
        self._socket.close()
        self._give_it_up()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


def _bind(path: str) -> socket.socket:
    temporary = os.path.join(os.path.dirname(path), f".{os.getpid()}")  # shorter than any path that is checked
    bound = bind(temporary)
    try:
        bound.listen(128)
        bound.setblocking(False)
        os.replace(temporary, path)  # so nobody ever finds a socket that does not listen yet
    except OSError:
        bound.close()
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return bound


class ControlSockets:
    """The control socket, which is always open, and the workers' socket, which is open if they are allowed in."""

    def __init__(self, rundir: RuntimeDir, loop: Loop, handler: Handler, state: list[Any] | None = None) -> None:
        self._rundir, self._loop, self._handler = rundir, loop, handler
        control, workers = state or (None, None)
        self._workers: Control | None = None
        self._failure = ""
        if not workers:
            with contextlib.suppress(OSError):
                os.unlink(rundir.workers)  # left by a supervisor that was killed
        else:
            self._workers = Control(rundir.workers, loop, self._answer_worker, workers, own=False)
        self.let_in()
        try:
            self._control = Control(rundir.control, loop, handler, control)
        except OSError as error:
            raise rundir.error(f"{rundir.control}: {(error.strerror or 'it failed').lower()}") from None

    @property
    def connections(self) -> list[Caller]:
        """All open connections."""
        return [*self._control.connections, *(self._workers.connections if self._workers else ())]

    def let_in(self) -> None:
        """Open or close the workers' socket, according to who may access the runtime directory now."""
        access, path = self._rundir.access, self._rundir.workers
        try:
            if access.group is None:
                if self._workers:
                    self._workers.close()
                    self._workers = None
                return
            if not self._workers:
                self._workers = Control(path, self._loop, self._answer_worker, own=False)
            access.admit_to_socket(path)
        except OSError as error:
            if self._failure != str(error):
                _log.error("MS558 %s: %s", path, error.strerror)
            self._failure = str(error)

    def _answer_worker(self, request: Answer, connection: Caller) -> Answer | None:
        if request.get("do") not in FOR_WORKERS and connection.uid not in (os.geteuid(), 0):
            return {"error": "only the supervisor's own user and root may send this command", "status": 403}
        return self._handler(request, connection)

    def pack(self, keep: Keeper) -> list[Any]:
        """Return what successors need."""
        return [self._control.pack(keep), self._workers.pack(keep) if self._workers else None]

    def close(self) -> None:
        """Accept no more connections."""
        self._control.close()
        if self._workers:
            self._workers.close()
