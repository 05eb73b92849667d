"""Slow clients for which the threads of gunicorn's own workers would wait, and need not.

A thread that reads the head of a request waits as long as the client likes, and the thread that accepts others waits
two seconds for the end of a connection. Here an incomplete head goes back to gunicorn's poller until more of it has
arrived, and a client that does not see the end of its connection at once is left to the relay loop.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from multisite.errors import BackendUnavailable
from multisite.proxy import downstream, lingering, loop
from multisite.proxy.lingering import Lingering
from multisite.sites.server import Worker

MOMENT = 0.1  # seconds in which the head of a new connection may come while its thread waits
LONGEST = 60.0  # seconds from the first bytes of a head to its end; nginx's client_header_timeout
SILENCE = 10.0  # seconds between two pieces of it
LARGEST = 16384  # bytes of a head that are looked at; gunicorn has its own limits for what is larger
AT_ONCE = 5  # milliseconds in which most clients see the end of their connection

_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
_END = b"\r\n\r\n"


def spare(worker: Worker | None) -> None:
    """Keep the threads of `worker` from waiting in this way, as far as we know how."""
    global _spared
    if worker is None or worker is _spared or not worker.usable:
        return
    _spared = worker
    from gunicorn import util

    close = getattr(util, "close_graceful", None)
    if close and not isinstance(close, partial):
        util.close_graceful = partial(_close, close)
    deferred = worker.deferred
    if not worker.is_single and deferred is not None:
        worker.wrap("handle", partial(_handle, deferred))
        worker.wrap("finish_request", _finish)


_spared: Worker | None = None


def _handle(deferred: object, handle: Callable[[Any], Any], conn: Any) -> Any:
    """Let gunicorn handle a connection, and close it ourselves: gunicorn would count one that fails then twice."""
    outcome = _begun(deferred, handle, conn)
    if not outcome and type(conn.sock).__module__ == "socket":
        conn.sock = _taken_from(conn.sock) or downstream.nobody()
    return outcome


def _begun(deferred: object, handle: Callable[[Any], Any], conn: Any) -> Any:
    """Have gunicorn handle a connection on which a whole head has come; else, have it wait without a thread."""
    sock = conn.sock
    if type(sock).__module__ != "socket" or (conn.parser and conn.parser.unreader.buf.getvalue()):
        return handle(conn)
    now = time.monotonic()
    until = getattr(conn, "head_until", 0.0)
    is_first = not until
    if is_first:
        until = conn.head_until = now + LONGEST
    came = _whole(sock, MOMENT if is_first and not conn.initialized else 0.0)
    if came < 0:
        conn.head_until, conn.data_ready = 0.0, True  # nobody has to wait for that
        if not is_first:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        return handle(conn)
    if now >= until or (not is_first and came <= conn.head_came):  # readable without more: it has left
        return False
    conn.head_came = came
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, came + 1)
    return deferred


def _finish(finish: Callable[[Any, Any], None], conn: Any, future: Any) -> None:
    """Have one that waits do so for longer than for another request."""
    finish(conn, future)
    if getattr(conn, "head_until", 0.0):
        conn.timeout = time.monotonic() + SILENCE


def _whole(sock: socket.socket, seconds: float) -> int:
    """Wait so long for a whole head; return -1 for that and for all that is gunicorn's to judge, else what has come."""
    deadline = time.monotonic() + seconds
    came = 0
    while True:
        try:
            data = sock.recv(LARGEST, _PEEK)
        except BlockingIOError:
            data = None
        except OSError:
            return -1
        if data is not None:
            if not data or _END in data or b"\n\n" in data or len(data) >= LARGEST:
                return -1
            came = len(data)
        left = deadline - time.monotonic()
        if left <= 0:
            return came
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, came + 1)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        ready = poll.poll(left * 1000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        if not ready:
            return came


def _close(close: Callable[..., None], sock: Any, *bounds: Any) -> None:
    """Close a connection as gunicorn does, without waiting for a client that is slow to notice.

    Whatever fails then costs the connection only: a sync worker would end.
    """
    if type(sock).__module__ != "socket":
        close(sock, *bounds)
        return
    ours = _taken_from(sock)
    if ours is None:
        return
    try:
        if _is_seen(ours):
            ours.close()
            return
        ours.setblocking(False)
        relay_loop = loop.current()
        watcher = Lingering(relay_loop, set(), ours)
        relay_loop.enter(watcher, watcher.start)
    except (OSError, BackendUnavailable):
        ours.close()


def _taken_from(sock: socket.socket) -> socket.socket | None:
    """Return the connection that `sock` has, which has none from here on; None if it has been closed.

    A site that has taken its client's connection may close `sock` at any moment, in another thread.
    """
    descriptor = sock.detach()
    return socket.socket(sock.family, sock.type, sock.proto, fileno=descriptor) if descriptor >= 0 else None


def _is_seen(sock: socket.socket) -> bool:
    """Tell a client that this was all; tell whether it has noticed, and closed its side, too."""
    sock.shutdown(socket.SHUT_WR)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(AT_ONCE)) and sock.recv(lingering.PIECE, socket.MSG_DONTWAIT) == b""
