"""One request to a backend and back, from the view of a worker's thread.

The thread sends the request and waits a moment for the answer: one of several threads as long as the site deserves it
(`limits.Pace`), the only one of its process until somebody else wants something (`syncrelay`). What takes longer, or
does not fit into one piece, continues in the relay loop of the process, if the server lets us have the client's
connection (`downstream`); else this thread waits, one of the site's share of the threads (`limits.Share`). So does a
request whose body has not all come: the loop takes it from the client as the backend takes it from us.

Where the site may have the client's connection itself, and nobody here needs to see the answer, it gets it (`handoff`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from multisite.config.endpoint import Endpoint
from multisite.errors import (
    BackendUnavailable,
    ConnectFailed,
    MultisiteError,
    NoUpgrade,
    RequestTooLarge,
    UpstreamError,
)
from multisite.logs import incidents, requests
from multisite.proxy import downstream, handoff, leave, loop, syncrelay
from multisite.proxy.body import Served, Unmeasured, Upload, length_of
from multisite.proxy.destination import Destination, NotNow
from multisite.proxy.downstream import Connection, Environ
from multisite.proxy.headers import upgrade_of
from multisite.proxy.request import Request
from multisite.proxy.upstream import Exchange
from multisite.proxy.wire.responses import Incoming

_log = logging.getLogger("multisite.relay")


def relay(destination: Destination, environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Relay one request (PEP 3333).

    Raises:
        MultisiteError: there is no answer; nothing of one was passed on, and the error knows its status.
        StopIteration: the client's connection has been handled (`downstream.end`).
    """
    connection = downstream.connection(environ)
    if connection is None:
        return _wait_here(destination, environ, start_response)
    body = connection.body(environ)
    if body is None:
        request = Request(destination, environ, connection)
        request.leave(lambda: _let_arrive(request))
    if destination.taker and connection.said_last and _is_given(destination.taker, environ, body, connection):
        downstream.end()
    return _hurry(Request(destination, environ, connection, Upload(body, length_of(environ))), start_response)


def _is_given(taker: Endpoint, environ: Environ, body: bytes, connection: Connection) -> bool:
    """Hand the request over with its connection, if that is possible; if not, nothing has happened.

    Raises:
        BackendUnavailable: as many requests wait as may.
    """
    if not handoff.fits(body) or connection.worker.logs_access:
        return False
    if ("HTTP_UPGRADE" in environ and upgrade_of(environ)) or not requests.let_go(environ):
        return False
    try:
        handoff.hand_over(environ, body, connection.fileno(), taker)
    except (ConnectFailed, RequestTooLarge):
        return False
    connection.close()
    return True


def _let_arrive(request: Request) -> None:
    """Begin a request whose body is not all there; nothing of it is gunicorn's any more.

    The page for an error goes the same way. gunicorn would wait for the rest of the body before it closes the
    connection, or take it for the next request.
    """
    try:
        request.arrive()
        _check(request.destination)
        request.exchange = request.destination.begin(request.environ, request.upload, True)
    except (NotNow, Unmeasured):
        leave.begin(request)
    except MultisiteError as error:
        leave.refuse(request, error)
    else:
        leave.hand_over(request)


def _check(destination: Destination) -> None:
    """Check whether the destination can take another request.

    Raises:
        SiteBusy: it has as many as it may.
    """
    destination.queue.check()
    loop.check_room(len(destination.places))


def _hurry(request: Request, start_response: Any) -> Iterable[bytes]:
    """Answer at once, or leave the rest to others."""
    destination = request.destination
    _check(destination)
    try:
        exchange = request.exchange = destination.begin(request.environ, request.upload, True)
    except NotNow:
        request.leave(lambda: leave.begin(request))
    try:
        if exchange.sending:
            request.leave(lambda: leave.hand_over(request))
        if request.connection.worker.is_single:
            request.leave(lambda: _leave_single(request))
        _await(request)
        if request.is_answered:
            return _answer(request, start_response)
        request.leave(lambda: leave.hand_over(request))
    except downstream.Ended:
        raise
    except BaseException as error:
        exchange.close()
        if isinstance(error, MultisiteError):
            _explain(destination, error)
        raise


def _leave_single(request: Request) -> None:
    """Let the only thread collect the answer, or the loop if the site is slow."""
    if request.destination.pace.patience(request.began):
        syncrelay.of(request.connection.worker).attend(request)
    else:
        leave.hand_over(request)


def _await(request: Request) -> None:
    """Collect the part of the answer that arrives in time; about 64 KiB at most."""
    exchange, pace = request.exchange, request.destination.pace
    assert exchange
    patience = left = pace.patience(time.monotonic())
    while left > 0 and exchange.wait(left):
        if not request.collect():
            return
        left = exchange.sent_at + patience - time.monotonic()
    if patience:
        pace.was_slow(time.monotonic())


def _answer(request: Request, start_response: Any) -> Iterable[bytes]:
    """Pass on an answer that is complete."""
    assert request.exchange
    request.exchange.close()
    head = request.incoming.head
    assert head
    if head.times:
        requests.answered(request.environ, request.exchange.sent_at, time.monotonic(), head.times)
    connection = request.connection
    if not connection.ends or connection.worker.logs_access:
        start_response(head.status, head.fields)
        return [request.content] if request.content else []
    data = request.whole()
    sent = connection.send(data)
    whole = sent == len(data)
    if not whole or connection.has_more:
        with contextlib.suppress(BackendUnavailable):  # then it ends here: a page must not follow what was sent
            request.leave(lambda: leave.finish(request, data[sent:]))
    connection.close()
    requests.ended(request.environ, request.code, len(request.content), cut=not whole)
    downstream.end()


def _explain(destination: Destination, error: MultisiteError) -> None:
    """Log what went wrong, unless the destination has a better reason for the visitor."""
    destination.explain(error)
    if isinstance(error, UpstreamError):
        incidents.note(_log, error, destination)


# Where the thread waits


def _wait_here(destination: Destination, environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Relay a request in this thread, from the first byte of its body to the end of the answer."""
    if "HTTP_UPGRADE" in environ and upgrade_of(environ):
        raise NoUpgrade("this server does not pass WebSockets on")
    release = destination.share.take_thread()
    try:
        exchange = _sent(destination, environ)
        try:
            return _answer_of(destination, exchange, environ, start_response, release)
        except BaseException as error:
            exchange.close()
            if isinstance(error, MultisiteError):
                told = exchange.explain(error)
                _explain(destination, told)
                if told is not error:
                    raise told from error
            raise
    except BaseException:
        release()
        raise


def _sent(destination: Destination, environ: Environ) -> Exchange:
    """Read the first piece of the body, and send it with the request."""
    upload = Served(environ)
    try:
        return destination.begin(environ, upload, False)
    except BaseException:
        upload.close()
        raise


def _answer_of(
    destination: Destination, exchange: Exchange, environ: Environ, start_response: Any, release: Callable[[], None]
) -> Iterable[bytes]:
    """Wait for the head of the answer; the body is passed on as the server asks for it."""
    gunicorn = environ.get("SERVER_SOFTWARE", "")[:8] == "gunicorn"
    method, forgive = environ["REQUEST_METHOD"], exchange.has_body
    incoming = Incoming(method, dates=not gunicorn, forgive=forgive, sends=destination.sends)
    content = b""
    while incoming.head is None:
        content = exchange.receive(incoming)
        for fields in incoming.hints:
            if "wsgi.early_hints" in environ:
                environ["wsgi.early_hints"](fields)
        incoming.hints.clear()
    requests.answered(environ, exchange.sent_at, time.monotonic(), incoming.head.times)
    start_response(incoming.head.status, incoming.head.fields)
    answer = Answer(exchange, incoming, content, destination.stall_timeout, release)
    return list(answer) if incoming.done else answer  # the usual case: all of it came at once


class Answer:
    """The body of an answer on its way. The caller closes it (PEP 3333), which frees the endpoint.

    A body that ends too early raises, so that the server cuts its own answer short, too, and does not complete it.
    """

    __slots__ = ("_exchange", "_first", "_incoming", "_release", "_timeout")

    def __init__(
        self, exchange: Exchange, incoming: Incoming, first: bytes, timeout: float, release: Callable[[], None]
    ) -> None:
        self._exchange = exchange
        self._incoming = incoming
        self._first = first
        self._timeout = timeout
        self._release = release

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        first, self._first = self._first, b""
        if first:
            return first
        try:
            return self._next()
        except BaseException as error:
            if not isinstance(error, StopIteration):
                _log.warning("MS475 an answer was cut short: %s", error)
            self.close()
            raise

    def _next(self) -> bytes:
        exchange, incoming = self._exchange, self._incoming
        while not incoming.done:
            exchange.allow(self._timeout)
            content = exchange.receive(incoming)
            if content:
                return content
            if incoming.failure:
                raise incoming.failure
        raise StopIteration

    def close(self) -> None:
        """Let go of the endpoint; once or more often."""
        self._exchange.close()
        self._release()
