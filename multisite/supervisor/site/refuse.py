"""An answer for requests that wait for an unavailable site, before its socket is closed.

A request that was handed over waits together with its client's connection (`proxy.handoff`). Nothing else holds that
connection any more: if we closed the queue, the client would get no answer. A relayed request finds the connection
closed and asks us. If the site was only stopped, we could report nothing then, so we answer relayed requests as well.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

from multisite.errors import MultisiteError, pages
from multisite.proxy.wire.http11 import Head
from multisite.proxy.wire.responses import Outgoing
from multisite.runner import envelope
from multisite.runner.connection import ON_EXEC, ONE_DESCRIPTOR, descriptor_in

LONGEST = 2.0  # seconds for all of them
_RECEIVE = 1 << 18
_NEVER_WAITS = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
_AT_ONCE = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def turn_away(listener: int, most: int, error: MultisiteError, everybody: bool = False) -> tuple[int, int]:
    """Empty the queue, and answer the requests in it whose connections came along, or all; never waits for long.

    Args:
        listener: descriptor of a socket on which our own runner or nothing accepts, so that it does not wait.
        most: how many may be in the queue.
        error: what the clients get.
        everybody: also answer relayed requests, in HTTP, which is the answer of every server.

    Returns:
        how many were answered, and how many of them no worker waits for.
    """
    turned = clients = 0
    with _emptied(listener) as queue:
        for _ in range(most):
            if _is_anybody_there(listener):
                is_answered, is_client = _turn_away_one(queue, error, everybody)
                turned, clients = turned + is_answered, clients + is_client
    return turned, clients


def move(listener: int, path: str, error: MultisiteError) -> None:
    """Move the requests of a queue whose clients' connections came along to `path`; all others have gone.

    Args:
        listener: descriptor of a socket on which nothing accepts any more, and whose connections are all closed.
        path: of another socket.
        error: what a client gets if there is no room.
    """
    with _emptied(listener) as queue:
        while _is_anybody_there(listener):
            with contextlib.suppress(OSError), queue.accept()[0] as waiting:
                data, client = _received(waiting)
                if client:
                    _move_one(data, client, path, error)


@contextlib.contextmanager
def _emptied(listener: int) -> Iterator[socket.socket]:
    """Yield a socket to accept from, for a while; the listener stays open."""
    queue = socket.socket(fileno=listener)
    try:
        queue.settimeout(0)
        with _at_most(LONGEST):
            yield queue
    except _TooLong:
        pass
    finally:
        queue.detach()


def _received(waiting: socket.socket) -> tuple[bytes, socket.socket | None]:
    """Return the data, and the client's connection if it came along."""
    data, rights, _, _ = waiting.recvmsg(_RECEIVE, ONE_DESCRIPTOR, int(socket.MSG_DONTWAIT) | ON_EXEC)
    descriptor = descriptor_in(rights)
    return data, socket.socket(fileno=descriptor) if descriptor >= 0 else None


def _answer_client(client: socket.socket, data: bytes, error: MultisiteError) -> None:
    client.send(_answer(data, error), _AT_ONCE)
    client.shutdown(socket.SHUT_WR)


def _move_one(data: bytes, client: socket.socket, path: str, error: MultisiteError) -> None:
    with client, socket.socket(socket.AF_UNIX, _NEVER_WAITS) as moved:
        try:
            moved.connect(path)
            socket.send_fds(moved, [data], [client.fileno()])
        except OSError:
            _answer_client(client, data, error)


class _TooLong(BaseException):
    """Nothing else should catch it."""


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise `_TooLong` in here after a while; for the main thread.

    A process that the site has left running has the same listening socket. It may accept between two of our looks and
    make accept(2) wait again, whatever flags we have set.
    """

    def ring(_number: int, _frame: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _is_anybody_there(listener: int) -> bool:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))


def _turn_away_one(queue: socket.socket, error: MultisiteError, everybody: bool) -> tuple[bool, bool]:
    """Return whether a client was answered, and whether its connection came along."""
    with contextlib.suppress(OSError), queue.accept()[0] as waiting:
        data, client = _received(waiting)
        if client:
            with client:
                _answer_client(client, data, error)
            return True, True
        if everybody and data:  # without data, the client has gone
            waiting.send(_answer(data, error), _AT_ONCE)
            return True, not data.startswith(envelope.FIRST)
    return False, False


def _answer(data: bytes, error: MultisiteError) -> bytes:
    environ = _variables(data)
    method = environ.get("REQUEST_METHOD", "GET")
    told: Any = []
    # Without Accept: choosing by it would load code that a supervisor never needs otherwise.
    body = b"".join(pages.for_error(error)({"REQUEST_METHOD": method}, lambda *answer: told.extend(answer[:2])))
    outgoing = Outgoing(method, environ.get("SERVER_PROTOCOL", "HTTP/1.0"), "gunicorn")
    return outgoing.whole(Head(error.status, told[0], told[1], len(body), False), body, formatdate(usegmt=True))


def _variables(data: bytes) -> dict[str, Any]:
    try:
        size = envelope.size_of(data)
        if size and data.startswith(envelope.WITH_CLIENT):
            return envelope.variables_of(data[:size])
    except envelope.BadEnvelope:
        pass
    return {"REQUEST_METHOD": "HEAD"} if data.startswith(b"HEAD ") else {}
