"""A WSGI callable that relays each request to an endpoint, and the answer back.

One connection for one request, so that no answer can be taken for another's. A request is sent at most once:
another attempt is made only while not one byte of it was sent.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from multisite import headers, upstream
from multisite.endpoint import Endpoint
from multisite.errors import ConnectFailed, NoAnswer, UpstreamError, UpstreamProtocolError
from multisite.upload import Upload
from multisite.upstream import Exchange
from multisite.wire import envelope, http11, uwsgi
from multisite.wire.framing import Body
from multisite.wire.http11 import Head

Environ = dict[str, Any]

SPEAKS = ("envelope", "http", "uwsgi")
EARLY_HINTS = 103
MOST_INTERIM = 100  # 1xx answers before the one that counts

#: what gunicorn adds to every answer, whether it is there or not
_BEHIND_GUNICORN = http11.DROPPED | {"date", "server"}

_log = logging.getLogger("multisite.proxy")


class Proxy:
    """Relays to `endpoint`.

    Args:
        endpoint: whom requests are relayed to.
        speaks: "envelope" (our own runner), "http" or "uwsgi"; by default what the endpoint says.
        connect_timeout: seconds to reach the endpoint.
        request_timeout: seconds from the end of the request to the head of the answer, and between two signs that
            the request is being taken; 0 for no limit.
        stall_timeout: seconds between two parts of the answer; 0 for no limit.
        reconnect: called when the endpoint cannot be reached, before the only other attempt, and when a connection
            ends without an answer. It may raise what the visitor is told instead, `BackendUnavailable` for one.
        trusts: tells whether what the peer with this address (REMOTE_ADDR, "" for a unix socket) says about its
            client is believed.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        speaks: str = "",
        connect_timeout: float = 5.0,
        request_timeout: float = 60.0,
        stall_timeout: float = 300.0,
        reconnect: Callable[[], None] | None = None,
        trusts: Callable[[str], bool] = lambda address: False,
    ) -> None:
        self.endpoint = endpoint
        self.speaks = speaks or endpoint.protocol
        if self.speaks not in SPEAKS:
            raise ValueError(f"{self.speaks} is not spoken; {', '.join(SPEAKS)} are")
        self._connect_timeout = connect_timeout
        self._request_timeout = request_timeout
        self._stall_timeout = stall_timeout
        self._reconnect = reconnect
        self._trusts = trusts

    def __repr__(self) -> str:
        return f"<Proxy {self.speaks} to {self.endpoint}>"

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Relay one request (PEP 3333).

        Raises:
            MultisiteError: there is no answer; nothing of one was passed on, and the error knows its status.
        """
        upload = Upload(environ)
        try:
            return self.relay(environ, start_response, upload)
        except BaseException:
            upload.close()
            raise

    def relay(self, environ: Environ, start_response: Any, upload: Upload) -> Iterable[bytes]:
        """Relay a request whose body has been begun; after `ConnectFailed` and `BackendUnavailable` it is unused."""
        try:
            exchange = self._begin(self._encode(environ, upload), upload)
        except UpstreamError as error:
            _log.warning("%s", error)
            raise
        try:
            head, rest = self._head(exchange, environ)
            body = http11.body_of(head, environ["REQUEST_METHOD"], forgive=bool(upload.first))
            first = body.feed(rest) if rest else b""
        except BaseException as error:
            exchange.close()
            self._explain(error)
            raise
        answer = Answer(exchange, body, first, self._stall_timeout)
        try:
            start_response(head.status, head.fields)
        except BaseException:
            answer.close()
            raise
        if not body.done:
            return answer
        answer.close()  # the usual case: all of it came at once
        return [first] if first else []

    def _encode(self, environ: Environ, upload: Upload) -> bytes:
        if self.speaks == "envelope":
            return envelope.encode(environ, upload.chunked)
        trusted = self._trusts(environ.get("REMOTE_ADDR", ""))
        if self.speaks == "uwsgi":
            upload.measure()
            return uwsgi.encode(environ, headers.relayed(environ, trusted), upload.length)
        return http11.encode(environ, headers.to_upstream(environ, trusted), upload.length, upload.chunked)

    def _begin(self, head: bytes, upload: Upload) -> Exchange:
        try:
            return self._exchange(head, upload)
        except ConnectFailed:
            if not self._reconnect:
                raise
        self._reconnect()
        return self._exchange(head, upload)

    def _exchange(self, head: bytes, upload: Upload) -> Exchange:
        sock: socket.socket = upstream.connect(self.endpoint, self._connect_timeout)
        try:
            return Exchange(sock, head, upload, upload.chunked, self._request_timeout)
        except BaseException:
            sock.close()
            raise

    def _head(self, exchange: Exchange, environ: Environ) -> tuple[Head, bytes]:
        """Return the head of the answer and what came with it; interim answers are passed over."""
        gunicorn = environ.get("SERVER_SOFTWARE", "")[:8] == "gunicorn"
        dropped = _BEHIND_GUNICORN if gunicorn else http11.DROPPED
        data, interim = b"", 0
        while True:
            parsed = http11.parse_head(data, dropped) if data else None
            if parsed is None:
                data = self._more(exchange, data)
                continue
            head, data = parsed
            if head.code >= 200:
                return parsed
            interim += 1
            if head.code == 101 or interim > MOST_INTERIM:
                raise UpstreamProtocolError(f"the answer is {head.status}, which was not asked for")
            if head.code == EARLY_HINTS and "wsgi.early_hints" in environ:
                environ["wsgi.early_hints"](head.fields)

    def _more(self, exchange: Exchange, data: bytes) -> bytes:
        more = exchange.receive()
        if more:
            return data + more
        if data:
            raise UpstreamProtocolError("the answer ended in the middle of its head")
        how = "reset" if exchange.was_reset else "closed"
        raise NoAnswer(f"{self.endpoint}: the connection was {how} without an answer")

    def _explain(self, error: BaseException) -> None:
        """Log what went wrong, unless somebody knows better what to tell the visitor."""
        if isinstance(error, NoAnswer) and self._reconnect:
            self._reconnect()
        if isinstance(error, UpstreamError):
            _log.warning("%s: %s", self.endpoint, error)


class Answer:
    """The body of an answer on its way. Whoever iterates closes it (PEP 3333), which frees the endpoint.

    A body that ends too early raises, so that the server ends its own answer short too rather than well.
    """

    __slots__ = ("_body", "_exchange", "_first", "_timeout")

    def __init__(self, exchange: Exchange, body: Body, first: bytes, timeout: float) -> None:
        self._exchange = exchange
        self._body = body
        self._first = first
        self._timeout = timeout

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
                _log.warning("an answer was cut short: %s", error)
            self.close()
            raise

    def _next(self) -> bytes:
        exchange, body = self._exchange, self._body
        while not body.done:
            exchange.allow(self._timeout)
            data = exchange.receive()
            if not data:
                body.end(exchange.was_reset)
            content = body.feed(data)
            if content:
                return content
        raise StopIteration

    def close(self) -> None:
        """Let go of the endpoint; once or more often."""
        self._exchange.close()
