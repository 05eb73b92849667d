"""Closes a client's connection so that the answer is not lost with it.

Closing with unread data, or data that arrives afterwards, makes the kernel send a reset, and a client that gets one may
throw away the part of the answer that it has received. So the end of the answer is sent first, and what the client
still sends is discarded until it ends, too (RFC 9112 section 9.6), within limits.
"""

from __future__ import annotations

import select
import socket
import time

from multisite.proxy import downstream
from multisite.proxy.loop import RelayLoop, Watcher

SILENCE = 2.0  # seconds within which something has to arrive
LONGEST = 30.0  # seconds for all of it; nginx's lingering_time
MOST = 1 << 28  # bytes passed over
PIECE = 65536  # bytes received at once

_GONE = select.EPOLLHUP | select.EPOLLERR


def close(loop: RelayLoop, places: set[object], wire: socket.socket, expects_more: bool) -> None:
    """Close a client's connection, whose answer has been sent; at once if the client has nothing more to send.

    Args:
        loop: whose thread this is.
        places: of the site, which the connection still uses.
        wire: the connection, which its earlier owner must not use any more.
        expects_more: the client has not sent all of its request.
    """
    try:
        lingers = (expects_more or downstream.unread(wire.fileno())) and loop.in_flight < loop.room
        if lingers:
            wire.shutdown(socket.SHUT_WR)
    except OSError:  # it has gone
        lingers = False
    if lingers:
        Lingering(loop, places, socket.socket(wire.family, wire.type, wire.proto, fileno=wire.detach())).start()
    else:
        wire.close()


class Lingering(Watcher):
    """A connection on which the client is still sending."""

    def __init__(self, loop: RelayLoop, places: set[object], wire: socket.socket) -> None:
        self._loop = loop
        self._places = places
        self._wire = wire
        self._left = MOST
        self._until = time.monotonic() + LONGEST

    def __repr__(self) -> str:
        return f"<Lingering {MOST - self._left} bytes passed over>"

    def start(self) -> None:
        """Begin, in the loop's thread."""
        try:
            self._loop.watch(self, self._wire.fileno(), select.EPOLLIN, 0)
        except OSError:  # no more can be watched
            self._wire.close()
            return
        self._places.add(self)
        self._loop.add(self)
        self._wait()

    def ready(self, descriptor: int, events: int) -> None:
        """Discard what has arrived."""
        try:
            passed = 0 if events & _GONE else len(self._wire.recv(PIECE))
        except BlockingIOError:
            return
        except OSError:
            passed = 0
        self._left -= passed
        if passed and self._left > 0:
            self._wait()
        else:
            self.abort()

    def leave(self) -> None:
        """The process waits for it, but not for long."""
        self._until = time.monotonic() + SILENCE
        self._wait()

    def let_go(self) -> None:
        """Close our side: another process continues with it."""
        self._wire.close()

    def abort(self) -> None:
        """Close the connection."""
        self._loop.watch(self, self._wire.fileno(), 0, select.EPOLLIN)
        self._loop.remove(self)
        self._places.discard(self)
        self._wire.close()

    def _wait(self) -> None:
        self.deadline = min(self._until, time.monotonic() + SILENCE)
        self._loop.schedule(self)
