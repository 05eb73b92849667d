"""An answer for those who wait for a site that cannot be had, before its socket is closed.

A request that was handed over waits together with its client's connection (`multisite.handoff`). Nobody else has that
any more: when the queue is closed the client would be left without a word. Whoever is relayed finds the connection
closed and asks us.
"""

from __future__ import annotations

import contextlib
import select
import socket
from email.utils import formatdate
from typing import Any

from multisite import pages
from multisite.errors import MultisiteError
from multisite.runner import envelope
from multisite.runner.connection import ON_EXEC, ONE_DESCRIPTOR, descriptor_in
from multisite.wire.http11 import Head
from multisite.wire.outgoing import Outgoing

_RECEIVE = 1 << 18
_AT_ONCE = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def turn_away(listener: int, most: int, error: MultisiteError) -> int:
    """Empty the queue, and answer those in it whose connections came along; never waits.

    Args:
        listener: descriptor of a socket of which our own runner accepts, so that it does not wait.
        most: how many may be in the queue.
        error: what they are told.

    Returns:
        how many were answered.
    """
    queue = socket.socket(fileno=listener)
    try:
        return sum(_turn_away_one(queue, error) for _ in range(most) if _is_anybody_there(listener))
    finally:
        queue.detach()


def _is_anybody_there(listener: int) -> bool:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))


def _turn_away_one(queue: socket.socket, error: MultisiteError) -> bool:
    queue.settimeout(0)
    with contextlib.suppress(OSError), queue.accept()[0] as waiting:
        data, rights, _, _ = waiting.recvmsg(_RECEIVE, ONE_DESCRIPTOR, int(socket.MSG_DONTWAIT) | ON_EXEC)
        descriptor = descriptor_in(rights)
        if descriptor >= 0:
            with socket.socket(fileno=descriptor) as client:
                client.send(_answer(data, error), _AT_ONCE)
                client.shutdown(socket.SHUT_WR)
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
        return envelope.variables_of(data[:size]) if size and data.startswith(envelope.WITH_CLIENT) else {}
    except envelope.BadEnvelope:
        return {}
