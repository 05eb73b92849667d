"""Leaves a request to the relay loop, from any thread."""

from __future__ import annotations

from collections.abc import Callable

from multisite.errors import MultisiteError
from multisite.proxy import downstream, loop
from multisite.proxy.looprelay import LoopRelay
from multisite.proxy.request import Request


def begin(request: Request) -> None:
    """Let the loop send `request`."""
    _pass(request, lambda relay: relay.begin())


def hand_over(request: Request) -> None:
    """Let the loop wait for the answer."""
    exchange, content = request.exchange, request.content
    assert exchange
    if request.incoming.head is None:
        request.destination.queue.enter(exchange)
    else:
        exchange.allow(request.destination.stall_timeout)
    _pass(request, lambda relay: relay.go_on(exchange, content))


def refuse(request: Request, error: MultisiteError) -> None:
    """Let the loop answer with the page for `error`."""
    _pass(request, lambda relay: relay.refuse(error))


def finish(request: Request, rest: bytes) -> None:
    """Let the loop send the rest of the answer."""
    _pass(request, lambda relay: relay.finish(rest))


def _pass(request: Request, first: Callable[[LoopRelay], None]) -> None:
    """Make a `LoopRelay` of it, which owns the client's connection from now on.

    Raises:
        OSError, BackendUnavailable: there can be no loop; the connection is still the request's.
    """
    relay_loop = loop.current()
    relay_loop.start()
    descriptor, request.wire = request.wire, -1
    wire = request.connection.opened(descriptor)
    relay = LoopRelay(relay_loop, request, wire, downstream.has_left(wire))
    relay_loop.enter(relay, lambda: first(relay))
