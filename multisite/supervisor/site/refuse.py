"""An answer for those who wait for a site that cannot be had, before its socket is closed.

A request that was handed over waits together with its client's connection (`proxy.handoff`). Nobody else has that
any more: when the queue is closed the client would be left without a word. Whoever is relayed finds the connection
closed and asks us; where a site has only been stopped we would have nothing to say then, so he is answered as well.
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


def turn_away(listener: int, most: int, error: MultisiteError, everybody: bool = False) -> int:
    """Empty the queue, and answer those in it whose connections came along, or all; never waits for long.

    Args:
        listener: descriptor of a socket of which our own runner accepts, or nobody any more, so that it does not wait.
        most: how many may be in the queue.
        error: what they are told.
        everybody: also those who are relayed, in HTTP, which is the answer of every server.

    Returns:
        how many were answered.
    """
    turned = 0
    with _emptied(listener) as queue:
        for _ in range(most):
            turned += _is_anybody_there(listener) and _turn_away_one(queue, error, everybody)
    return turned


def move(listener: int, path: str, error: MultisiteError) -> None:
    """Have the requests of a queue wait at `path` whose clients' connections came along; all others have gone.

    Args:
        listener: descriptor of a socket on which nobody accepts any more, and whose connections are all closed.
        path: of another socket.
        error: what a client is told that finds no room there.
    """
    with _emptied(listener) as queue:
        while _is_anybody_there(listener):
            with contextlib.suppress(OSError), queue.accept()[0] as waiting:
                data, client = _received(waiting)
                if client:
                    _move_one(data, client, path, error)


@contextlib.contextmanager
def _emptied(listener: int) -> Iterator[socket.socket]:
    """Yield a socket to accept from, for a while, which leaves the listener open."""
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
    """Return what has come, and the client's connection if that came along."""
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
    """Nobody else is to catch it."""


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise `_TooLong` in here after a while; for the main thread.

    What a site has left running has the same listening socket. It may take who waits there between two looks, and
    have accept(2) wait again, whatever we have said.
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


def _turn_away_one(queue: socket.socket, error: MultisiteError, everybody: bool) -> bool:
    with contextlib.suppress(OSError), queue.accept()[0] as waiting:
        data, client = _received(waiting)
        if client:
            with client:
                _answer_client(client, data, error)
            return True
        if everybody and data:  # without, he has gone
            waiting.send(_answer(data, error), _AT_ONCE)
            return True
    return False


def _answer(data: bytes, error: MultisiteError) -> bytes:
    environ = _variables(data)
    method = environ.get("REQUEST_METHOD", "GET")
    told: Any = []
    # Without Accept: choosing by it would load what a supervisor never needs otherwise.
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
