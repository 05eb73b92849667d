"""Bytes both ways between two connections that speak a protocol other than HTTP from now on: a WebSocket.

Nothing is changed or held back. We only follow where its frames end, to notify both ends when this process ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import time

from multisite.proxy import downstream, lingering
from multisite.proxy.loop import RelayLoop, Watcher
from multisite.proxy.wire import websocket
from multisite.proxy.wire.websocket import GOING_AWAY, Frames

PIECE = 65536  # bytes of each direction that are held at most
IDLE = 3600.0  # seconds without a byte in either direction; front ends have shorter limits, and clients send pings
PARTING = 1.0  # seconds in which a client answers that this process goes away

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


_log = logging.getLogger("multisite.tunnel")


class _End:
    """One connection: what is to be sent there, and what was said."""

    def __init__(self, wire: socket.socket) -> None:
        self.wire = wire
        self.out: bytes | memoryview = b""
        self.events = 0
        self.frames = Frames()  # of what it says
        self.said_all = False  # it will send no more
        self.told_all = False  # it has been told that no more comes, or takes no more
        self.parted = False  # it has been told that this process goes away, or is about to be

    def receive(self) -> bytes:
        """Return what it said, b"" for nothing or at its end."""
        try:
            data = self.wire.recv(PIECE)
        except BlockingIOError:
            return b""
        except OSError:  # it is gone, and takes nothing either
            data, self.out, self.told_all = b"", b"", True
        self.said_all = not data
        return data

    def send(self) -> None:
        """Send what it takes. What it said before it left can still be passed on."""
        try:
            self.out = downstream.flush(self.wire, self.out)
        except OSError:
            self.out, self.told_all = b"", True


class Tunnel(Watcher):
    """Runs until both ends have sent all, or nothing happens for `IDLE` seconds.

    Args:
        loop: whose thread does everything.
        places: of the site, among which it has one.
        client, site: the connections.
        begin: sent to the client first, the end of HTTP.
        content: and what the site has said behind that.
    """

    def __init__(
        self,
        loop: RelayLoop,
        places: set[object],
        client: socket.socket,
        site: socket.socket,
        begin: bytes,
        content: bytes = b"",
    ) -> None:
        self._loop = loop
        self._places = places
        places.add(self)
        self._ends = (_End(client), _End(site))
        self._ends[0].out = begin + content
        self._ends[1].frames.feed(content)
        self._leaving = False

    def __repr__(self) -> str:
        return f"<Tunnel {len(self._ends[0].out)} and {len(self._ends[1].out)} bytes under way>"

    def start(self) -> None:
        """Begin, in the loop's thread."""
        self._loop.vigil += 1
        self._loop.enter(self, self._move)

    def ready(self, descriptor: int, events: int) -> None:
        """Receive from an end, and send to it what is waiting."""
        one, other = self._ends if self._ends[0].wire.fileno() == descriptor else self._ends[::-1]
        if events & ~_OUT and not one.said_all and not other.out:
            data = one.receive()
            if not other.told_all:
                self._pass_on(data, one, other)
        self._move()

    def failed(self, error: Exception) -> None:
        """End, which is all that can be said here."""
        _log.error("MS474 a WebSocket has failed", exc_info=error)
        self.abort()

    def leave(self) -> None:
        """Notify both ends that this process goes away (RFC 6455 section 7.4.1), between two frames."""
        if self._leaving:
            return
        self._leaving = True
        self.deadline = time.monotonic() + PARTING
        client, site = self._ends
        for one, other in ((site, client), (client, site)):
            if one.frames.is_between:
                self._part(one, other)
        self._move()

    def abort(self) -> None:
        """Close both connections, whatever is lost."""
        self._close(lingers=False)

    def let_go(self) -> None:
        """Close both connections silently."""
        for end in self._ends:
            end.wire.close()

    def _close(self, lingers: bool) -> None:
        """Close both connections; if it `lingers`, what a client still sends does not cost it what it was sent."""
        client, site = self._ends
        if client.wire.fileno() < 0:
            return
        self._loop.vigil -= 1
        self._loop.remove(self)
        self._places.discard(self)
        for end in self._ends:
            self._watch(end, 0)
        site.wire.close()
        if lingers:
            lingering.close(self._loop, self._places, client.wire, False)
        else:
            client.wire.close()

    def _pass_on(self, data: bytes, one: _End, other: _End) -> None:
        assert not other.out, "data that the other end has not taken yet would be lost"
        if other.parted:
            one.frames.feed(data)
            return
        end = one.frames.feed(data, stops=self._leaving)
        other.out = data[:end]
        if self._leaving and one.frames.is_between:
            self._part(one, other)
            one.frames.feed(data[end:])

    def _part(self, one: _End, other: _End) -> None:
        """Send a closing frame to `other`, in place of `one`, unless that has done so."""
        other.parted = True
        if not one.frames.has_closed:
            mask = os.urandom(4) if other is self._ends[1] else b""
            other.out = bytes(other.out) + websocket.close(GOING_AWAY, mask)

    def _move(self) -> None:
        client, site = self._ends
        for one, other in ((site, client), (client, site)):
            other.send()
            if one.said_all and not other.out and not other.told_all:
                other.told_all = True
                with contextlib.suppress(OSError):
                    other.wire.shutdown(socket.SHUT_WR)
        if self._is_over():
            self._close(lingers=not self._leaving)
            return
        self._watch(client, self._wanted(client, site))
        self._watch(site, self._wanted(site, client))
        if not self._leaving:
            self.deadline = time.monotonic() + IDLE
        self._loop.schedule(self)

    def _is_over(self) -> bool:
        client, site = self._ends
        if client.told_all and site.told_all:
            return True
        heard = client.said_all or client.frames.has_closed
        return self._leaving and client.parted and heard and not client.out and not site.out

    def _wanted(self, end: _End, peer: _End) -> int:
        return (_OUT if end.out else 0) | (0 if end.said_all or peer.out else _IN)

    def _watch(self, end: _End, events: int) -> None:
        self._loop.watch(self, end.wire.fileno(), events, end.events)
        end.events = events
