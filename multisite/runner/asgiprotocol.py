"""One connection of an ASGI site: plain HTTP as gunicorn's protocol reads it, or the dispatcher's envelope.

An envelope is turned back into the HTTP head that it was made from, so that gunicorn's protocol does the rest; what
the head cannot express (the client, the scheme, the mount) is put into the scope. Nothing that a client can write is
believed.

What an ASGI app may send, and how it sees the end of a request, follow asgiref, version 2.4. Sending after the client
has left raises an OSError, which is not an error of the app. When the answer is complete, `receive` returns as if the
client had left. If the client is slow, gunicorn makes the app wait. With a client that takes everything at once, or
has just left, the app would never wait, and an app that only sends would keep the event loop to itself: we make it
share.
"""

from __future__ import annotations

import asyncio
import os
import select
from itertools import compress
from time import monotonic, monotonic_ns
from urllib.parse import quote, unquote_to_bytes

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.http.errors import InvalidHeader

from .board import Board
from .body import LONGEST_LENGTH
from .envelope import (
    APART,
    CAPTURES,
    FIRST,
    TIMED,
    TIMES,
    UWSGI,
    WITH_CLIENT,
    BadEnvelope,
    is_quiet,
    size_of,
    tell_apart,
    variables_of,
)
from .forks import leave_if_child
from .report import SLOW, say
from .requesthead import CLAIMS, END, FAMILY, PROXY, TRUSTED_PEER, split_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .smoke import Smoke


WITH_REQUEST = 0.5  # seconds within which the end of a client's data counts as sent together with its request
NOT_HEADERS = ("HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE")
_CONTENT = ("CONTENT_TYPE", "CONTENT_LENGTH")
TURN = 0.01  # seconds for which one call may send without a pause


class Protocol(ASGIProtocol):  # type: ignore[misc]
    """gunicorn's protocol, with a second way for a request to come in, and a count of the requests.

    Args:
        worker: the `AsgiServer`.
        start: what has already been received.
        is_client: whether this is a client's connection, and `start` all that the dispatcher sent about it.
    """

    def __init__(self, worker: Any, start: bytes, is_client: bool) -> None:
        super().__init__(worker)
        if start.startswith((FIRST, WITH_CLIENT)):
            self.cfg = worker.cfg_relayed
        self.app = _until_gone(worker.asgi, self)
        self._board = worker.board
        self._believes = worker.trusts_front_end
        self._start: bytes | None = b""
        self._first = start
        self._is_client = is_client
        self._variables: dict[str, Any] = {}
        self._failed = self._quiet = False
        self._is_relayed = start.startswith(FIRST)
        self._status = self._received = self._sent = self._taken_at = self._begun_at = 0
        self._asked_at, self.incident = 0.0, ""
        self._hangup: select.epoll | None = None
        self._unanswered: set[asyncio.Task[Any]] = set()  # calls of the application that have not finished

    @classmethod
    def of_smoke(cls, worker: Any, smoke: Smoke) -> Protocol:
        """Return the protocol of a request that is not counted."""
        protocol = cls(worker, smoke.head() + END, False)
        protocol._board = Board(-1, 0, os.getpid())
        protocol._variables = smoke.variables()
        return protocol

    def connection_made(self, transport: Any) -> None:
        """As asyncio says; what came first is taken now."""
        super().connection_made(_Counting(transport, self))
        self.data_received(self._first)
        self._first = b""

    def data_received(self, data: bytes) -> None:
        """As asyncio says; the first byte shows which protocol it is."""
        if self._start is not None:
            self._start += data
            try:
                data = self._opened(self._start)
            except BadEnvelope as error:
                say(f"MS615 Cannot read a request from the dispatcher: {error}")
                self._close_transport()
                return
            if not data:
                return
            self._start = None
        super().data_received(data)

    def eof_received(self) -> bool:
        """As asyncio says; a client that only stops sending still gets its answer (RFC 9112, section 9.6)."""
        if not self._is_half_closed():
            return False
        self._hangup = poll = select.epoll()  # which the loop cannot tell: it looks no more at what it cannot read
        poll.register(self.transport.get_extra_info("socket").fileno(), 0)  # EPOLLHUP and EPOLLERR
        self.worker.loop.add_reader(poll.fileno(), self.transport.abort)
        return True

    def _is_half_closed(self) -> bool:
        """Whether a whole request still waits for its answer, and the client does."""
        receiver = self._body_receiver
        if self._websocket or (self._variables and not self._is_client) or not (receiver and receiver._complete):
            return False
        wire = self.transport.get_extra_info("socket")
        poll = select.poll()
        poll.register(wire.fileno(), 0)
        if poll.poll(0):
            return False
        return type(wire.getsockname()) is str or monotonic() < self._asked_at + WITH_REQUEST

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio says; an app stops waiting for the client, and one that has answered may finish."""
        if self._hangup:
            self.worker.loop.remove_reader(self._hangup.fileno())
            self._hangup.close()
            self._hangup = None
        super().connection_lost(exc)
        if self._flow_control:
            self._flow_control.resume_writing()
        self._request_ready.set()  # there will be no other one

    def _arm_keepalive_timer(self) -> None:
        if self._hangup:
            self._keepalive_timeout()  # no other request can come
        else:
            super()._arm_keepalive_timer()

    def _opened(self, start: bytes) -> bytes:
        """What gunicorn is to read; nothing, as long as an envelope is not whole."""
        if not start.startswith(WITH_CLIENT if self._is_client else (FIRST, UWSGI)):
            return start
        size = size_of(start)
        if self._is_client:
            _check_whole(start, size)
        if not size or len(start) < size:
            return b""
        self._variables = variables = variables_of(start[:size])
        apart = variables.get(APART, {})
        is_chunked = tell_apart(variables)
        self._quiet = is_quiet(start)
        self._keepalive = 0  # one request on each connection
        self._forwarded_trust: Any = ({}, [])
        self._secure_names: Any = frozenset()
        if start.startswith(UWSGI):  # an answer in that protocol ends with the connection
            variables["SERVER_PROTOCOL"] = "HTTP/1.0"
        return head_of(variables, is_chunked, self._is_client or start.startswith(UWSGI), apart) + start[size:]

    def _feed_callback_parser(self, data: bytes) -> Any:
        try:
            return super()._feed_callback_parser(data)
        except ValueError as error:  # Python itself reads no number of thousands of digits
            self._send_error_response(400, str(error))
            self._close_transport()
            return False

    def _on_headers_complete(self) -> Any:
        parser = self._callback_parser
        if (parser.content_length or 0) >= 10**LONGEST_LENGTH:
            raise InvalidHeader("CONTENT-LENGTH")
        needs_host = not self._variables and parser.http_version == (1, 1)  # RFC 9112, section 3.2
        if needs_host and not any(name.lower() == b"host" and value for name, value in parser.headers):
            raise InvalidHeader("HOST")
        skip = super()._on_headers_complete()
        request = self._current_request
        if self._variables:
            request.scheme = self._variables.get("wsgi.url_scheme", "http")
        elif not request.raw_path.startswith(b"/"):
            _resolve(request)
        kept = [not self._is_dropped(name) for name, _ in request.headers_bytes]
        if not all(kept):
            request.headers_bytes = [*compress(request.headers_bytes, kept)]
            request.headers = [*compress(request.headers, kept)]
        return skip

    def _is_dropped(self, name: bytes) -> bool:
        """Whether nobody may send this field, or this peer may not."""
        if name == _PROXY:
            return True
        is_claim = name in _CLAIMS or name.startswith(_FAMILY) or name in self.worker.claims
        return is_claim and not (self._believes or self._variables)

    def _on_body(self, chunk: bytes) -> None:
        self._received += len(chunk)
        super()._on_body(chunk)

    def _on_message_complete(self) -> None:
        self._asked_at = monotonic()
        super()._on_message_complete()

    def _build_http_scope(self, request: Any, sockname: Any, peername: Any) -> dict[str, Any]:
        return self._as_sent(super()._build_http_scope(request, sockname, peername), sockname)

    def _build_websocket_scope(self, request: Any, sockname: Any, peername: Any) -> dict[str, Any]:
        return self._as_sent(super()._build_websocket_scope(request, sockname, peername), sockname)

    def _as_sent(self, scope: dict[str, Any], sockname: Any) -> dict[str, Any]:
        """Return the scope with the variables of an envelope; a unix socket has a path, and no port."""
        variables = self._variables
        if variables:
            address, name = variables.get("REMOTE_ADDR", ""), variables.get("SERVER_NAME", "")
            scope["client"] = (address, _number(variables.get("REMOTE_PORT", "")) or 0) if address else None
            scope["server"] = (name, _number(variables.get("SERVER_PORT", ""))) if name else None
            # a path of WSGI (bytes as latin-1) as ASGI has it (UTF-8)
            scope["root_path"] = variables.get("SCRIPT_NAME", "").encode("latin-1").decode("utf-8", "replace")
            scope["http_version"] = variables.get("SERVER_PROTOCOL", "HTTP/1.1")[5:]
            if CAPTURES in variables:
                scope[CAPTURES] = variables[CAPTURES]
            return scope
        if type(sockname) is str:
            scope["server"] = (sockname, None)
        if self._believes:
            scope["client"] = (TRUSTED_PEER, 0)
        return scope

    def _cancel_task_if_pending(self) -> None:
        """Cancel these calls: their client has gone, and they have had their time."""
        for task in self._unanswered:
            task.cancel()

    async def _handle_http_request(self, request: Any, sockname: Any, peername: Any, complete: Any = None) -> Any:
        if complete is not None:
            complete.add_done_callback(self._answered)
        handling = super()._handle_http_request(request, sockname, peername, complete)
        return await self._counted(handling, request, complete)

    def _answered(self, complete: asyncio.Future[bool]) -> None:
        """End the connection, which tells some clients that the answer is complete: they do not wait for the call."""
        receiver = self._body_receiver
        is_last = not complete.cancelled() and not complete.exception() and not complete.result()
        if is_last and (receiver is None or receiver._complete):
            self._close_transport()

    async def _handle_websocket(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        return await self._counted(super()._handle_websocket(request, *args, **kwargs), request)

    async def _counted(self, handling: Any, request: Any, complete: Any = None) -> Any:
        """Handle a request, which is in flight as long as the call of the application lasts."""
        task: Any = asyncio.current_task()
        self._unanswered.add(task)
        if complete is not None:
            complete.add_done_callback(lambda _: self._unanswered.discard(task))
        self.worker.nr_conns += 1  # what the worker waits for at its end; the connection may end before
        began = self._taken_at = self._board.begin(self._quiet, self._is_relayed)
        self._failed, self._status, self._sent, self._begun_at, self.incident = False, 0, 0, 0, ""
        place = -1 if self._is_relayed else self._board.enter(began, request.method, request.uri or "")
        try:
            return await handling
        finally:
            leave_if_child()
            self._unanswered.discard(task)
            self.worker.nr_conns -= 1
            self._board.leave(place)
            sizes, about = (self._received, self._sent), (self._quiet, self._is_relayed, self._status)
            ended = self._board.end(began, self._failed, *sizes, *about)
            self._received = 0
            if ended - began >= SLOW and not (self._is_relayed or self._websocket):
                self.worker.tell_slow(request, self._status, (self._begun_at or ended) - began)

    def _send_response_start(self, status: int, headers: Any, *args: Any, **kwargs: Any) -> None:
        self._status, self._failed = status, status >= 500
        if TIMED in self._variables:
            headers = [*headers, (TIMES.encode(), b"%d %d" % (self._taken_at, monotonic_ns()))]
        super()._send_response_start(status, headers, *args, **kwargs)

    def _send_body(self, body: bytes, chunked: bool = False, last: bool = False, size: int | None = None) -> None:
        if not last and not self._begun_at:
            self._begun_at = monotonic_ns()
        self._sent += len(body) if size is None else size
        super()._send_body(body, chunked, last, size)

    def _send_error_response(self, status: int, message: str, *args: Any, **kwargs: Any) -> None:
        self._failed = status >= 500 and not self._closed
        self._status = 0 if self._closed else status
        message += f"\nIncident {self.incident}\n" if status == 500 and self.incident else ""
        self._sent = len(message.encode())
        super()._send_error_response(status, message, *args, **kwargs)

    def count_sent(self, size: int) -> None:
        """Note how many bytes are given to the transport, which all belong to the WebSocket where there is one."""
        leave_if_child()
        if self._websocket:
            self._sent, self._status = self._sent + size, 101


class _Counting:
    """A transport that tells its protocol what it sends."""

    def __init__(self, transport: Any, protocol: Protocol) -> None:
        self._transport, self._protocol = transport, protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._protocol.count_sent(len(data))
        self._transport.write(data)

    def writelines(self, parts: Sequence[bytes]) -> None:
        self._protocol.count_sent(sum(map(len, parts)))
        self._transport.writelines(parts)


def _resolve(request: Any) -> None:
    """Put a target in absolute form into origin form, and its authority in the place of Host (`split_target`)."""
    found = split_target(request.uri)
    if found:
        authority, request.uri = found
        request.raw_path = request.uri.partition("?")[0].encode("latin-1")
        request.path = unquote_to_bytes(request.raw_path).decode("utf-8", "replace")
        others = [field for field in request.headers_bytes if field[0] != b"host"]
        request.headers_bytes = [(b"host", authority.encode("latin-1")), *others]
        request.headers = [(name.decode().upper(), value.decode("latin-1")) for name, value in request.headers_bytes]


def _field_name(key: str) -> str:
    return (key[5:] if key[:5] == "HTTP_" else key).replace("_", "-").lower()


_CLAIMS = frozenset(_field_name(key).encode() for key in CLAIMS)
_FAMILY = _field_name(FAMILY).encode()
_PROXY = _field_name(PROXY).encode()


def _check_whole(start: bytes, size: int) -> None:
    """No more will come of a request that was handed over."""
    if not size or len(start) < size:
        raise BadEnvelope("half of one, with a client")
    length = str(variables_of(start[:size]).get("CONTENT_LENGTH") or 0)
    if not (length.isascii() and length.isdigit()) or len(start) - size != int(length):
        raise BadEnvelope(f"a body of {len(start) - size} bytes for {length}, with a client")


def head_of(variables: dict[str, Any], is_chunked: bool, is_client: bool, apart: dict[str, Any]) -> bytes:
    """The head of a request in HTTP/1, and the body where that has already been found to be empty.

    For the dispatcher it is HTTP/1.1 whatever the client speaks, so that the answer is framed; without a Host that is
    not possible.

    Args:
        apart: names and values of the fields that one variable joins.
    """
    version = "1.1" if "HTTP_HOST" in variables else "1.0"
    if is_client and variables.get("SERVER_PROTOCOL") == "HTTP/1.0":
        version = "1.0"
    lines = [f"{variables['REQUEST_METHOD']} {_target(variables)} HTTP/{version}"]
    for key, value in variables.items():
        if key in apart:
            lines += [f"{name}: {each}" for name, each in apart[key]]
        elif (key[:5] == "HTTP_" and key not in NOT_HEADERS) or (key in _CONTENT and value):
            lines.append(f"{_field_name(key)}: {value}")
    coding = variables.get("HTTP_TRANSFER_ENCODING", "")
    if is_chunked or (coding and not variables.get("CONTENT_LENGTH")):
        lines.append(f"transfer-encoding: {coding if coding.lower().endswith('chunked') else 'chunked'}")
        return "\r\n".join([*lines, "\r\n" if is_chunked else "\r\n0\r\n\r\n"]).encode("latin-1")
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


def _target(variables: dict[str, Any]) -> str:
    """Return the target as the client wrote it, without a host; if it is not known, put it together from its parts."""
    raw: str = variables.get("RAW_URI") or variables.get("REQUEST_URI", "")
    if raw.startswith("/") or raw == "*":
        return raw
    found = split_target(raw)
    if found:
        return found[1]
    path = variables.get("SCRIPT_NAME", "") + variables.get("PATH_INFO", "")
    query = variables.get("QUERY_STRING", "")
    return (quote(path.encode("latin-1"), safe="/;:@&=+$,!*'()~") or "/") + (f"?{query}" if query else "")


def _number(port: str) -> int | None:
    return int(port) if port.isdigit() else None


class ClientGone(ConnectionResetError):
    """The client left before it had all of the answer."""


def _until_gone(app: Any, protocol: Any) -> Any:
    """Return `app` for the requests of one connection, which is gunicorn's `protocol`."""

    async def called(scope: dict[str, Any], receive: Any, send: Any) -> None:
        send = _in_turns(send, protocol.transport)
        if scope["type"] != "http":
            await protocol.worker.serve_socket(app, scope, receive, send)
            return
        receiver = protocol._body_receiver
        was_told = False

        async def send_or_raise(message: dict[str, Any]) -> None:
            nonlocal was_told
            if protocol._closed:
                was_told = True
                raise ClientGone("the client has left")
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                receiver.signal_disconnect()

        try:
            await app(scope, receive, send_or_raise)
        except Exception as error:
            if not was_told:  # else it is what a framework makes of that error, and cleaning up may raise its own
                protocol.incident = protocol.worker.tell_raised(error, scope)  # gunicorn answers 500, or cuts

    return called


def _in_turns(send: Any, transport: Any) -> Any:
    """`send` for one call of an app, which lets the event loop do something else now and then.

    After a write has failed it does so at once: only then does anything learn that the client has left.
    """
    until = monotonic() + TURN

    async def sent(message: dict[str, Any]) -> None:
        nonlocal until
        await send(message)
        if monotonic() >= until or transport.is_closing():
            await asyncio.sleep(0)
            until = monotonic() + TURN

    return sent
