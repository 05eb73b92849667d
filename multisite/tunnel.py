"""Bytes both ways between two connections that speak something else than HTTP from now on (a WebSocket)."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time

from multisite.relayloop import RelayLoop

PIECE = 65536  # bytes of each direction that are held at most
IDLE = 3600.0  # seconds without a byte in either direction; front ends have shorter limits, and clients send pings

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class _End:
    """One connection: what is to be sent there, and what was said."""

    def __init__(self, wire: socket.socket) -> None:
        self.wire = wire
        self.out: bytes | memoryview = b""
        self.events = 0
        self.said_all = False  # it will send no more
        self.told_all = False  # it has been told that no more comes

    def receive(self) -> bytes | None:
        """Return what it said, b"" at its end, None for nothing."""
        try:
            data = self.wire.recv(PIECE)
        except BlockingIOError:
            return None
        self.said_all = not data
        return data

    def send(self) -> None:
        """Send what it takes."""
        while self.out:
            try:
                sent = self.wire.send(self.out, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            self.out = memoryview(self.out)[sent:] if sent < len(self.out) else b""


class Tunnel:
    """Until both ends have said all, one breaks, or nothing happens for `IDLE` seconds."""

    def __init__(
        self, loop: RelayLoop, places: set[object], one: socket.socket, other: socket.socket, begin: bytes
    ) -> None:
        self._loop = loop
        self._places = places
        places.add(self)
        self._ends = (_End(one), _End(other))
        self._ends[0].out = begin
        self.deadline = self.due = math.inf

    def __repr__(self) -> str:
        return f"<Tunnel {len(self._ends[0].out)} and {len(self._ends[1].out)} bytes under way>"

    def start(self) -> None:
        """Begin, in the loop's thread."""
        self._loop.add(self)
        self._move()

    def sockets(self) -> list[socket.socket]:
        """Return both connections."""
        return [end.wire for end in self._ends]

    def ready(self, descriptor: int, events: int) -> None:
        """Take what an end says, and give it what there is."""
        one, other = self._ends if self._ends[0].wire.fileno() == descriptor else self._ends[::-1]
        try:
            if events & ~_OUT and not one.said_all and not other.out:
                other.out = one.receive() or b""
        except OSError:
            self.abort()
            return
        self._move()

    def expired(self, now: float) -> None:
        """Nothing has happened for long."""
        self.abort()

    def abort(self) -> None:
        """Close both connections."""
        for end in self._ends:
            self._watch(end, 0)
            end.wire.close()
        self._loop.remove(self)
        self._places.discard(self)

    def _move(self) -> None:
        one, other = self._ends
        try:
            for end, peer in ((one, other), (other, one)):
                end.send()
                if peer.said_all and not end.out and not end.told_all:
                    end.told_all = True
                    with contextlib.suppress(OSError):
                        end.wire.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()
            return
        if one.told_all and other.told_all:
            self.abort()
            return
        self._watch(one, self._wanted(one, other))
        self._watch(other, self._wanted(other, one))
        self.deadline = time.monotonic() + IDLE
        self._loop.schedule(self)

    def _wanted(self, end: _End, peer: _End) -> int:
        return (_OUT if end.out else 0) | (0 if end.said_all or peer.out else _IN)

    def _watch(self, end: _End, events: int) -> None:
        self._loop.watch(self, end.wire.fileno(), events, end.events)
        end.events = events
