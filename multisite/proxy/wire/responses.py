"""The answer of a backend as it comes in, and as it goes out to the client. No socket, no clock."""

from __future__ import annotations

from collections.abc import Iterable

from multisite.errors import NoAnswer, UpstreamProtocolError
from multisite.proxy.headers import SENDERS
from multisite.proxy.wire import http11
from multisite.proxy.wire.framing import LAST_CHUNK, Body, UntilClose, chunk
from multisite.proxy.wire.http11 import NO_CONTENT, Head

EARLY_HINTS = 103
SWITCHING = 101
PIECE = 65536  # bytes of a body that are collected before they are passed on
MOST_INTERIM = 100  # 1xx answers before the one that counts

Fields = list[tuple[str, str]]

#: what gunicorn adds to every answer, whether it is there or not
_GUNICORNS = frozenset({"date", "server"})
_DROPPED = {
    (dates, sends): http11.DROPPED | (frozenset() if dates else _GUNICORNS) | (frozenset() if sends else SENDERS)
    for dates in (True, False)
    for sends in (True, False)
}


class Incoming:
    """One answer. `feed` takes the bytes as they come and returns those of the content.

    Args:
        method: of the request.
        dates: whether the backend's ``Date`` and ``Server`` are passed on; gunicorn adds its own.
        forgive: whether a reset may end a body that is not framed (see `framing.UntilClose`).
        upgrade: whether the request asked for another protocol; without, a 101 is an error.
        sends: whether the answer may name a file for the front end to send.

    Attributes:
        head: of the answer, None before it is whole.
        done: all of the answer is there.
        failure: why the rest of the body cannot be read.
        hints: the fields of each 103, in order, for callers that can pass them on.
    """

    __slots__ = (
        *("_body", "_dropped", "_forgive", "_interim", "_method", "_rest", "_upgrade"),
        *("done", "failure", "head", "hints"),
    )

    def __init__(
        self, method: str, *, dates: bool = True, forgive: bool = False, upgrade: bool = False, sends: bool = False
    ) -> None:
        self.head: Head | None = None
        self.done = False
        self.failure: UpstreamProtocolError | None = None
        self.hints: list[Fields] = []
        self._method = method
        self._dropped = _DROPPED[dates, sends]
        self._forgive = forgive
        self._upgrade = upgrade
        self._interim = 0
        self._rest = b""
        self._body: Body | None = None

    def take_data(self, data: bytes, reset: bool) -> bytes:
        """Return the content that is in `data`, which is b"" at the end of the connection.

        What is wrong in the body is kept in `failure`: the head can be passed on, and be followed by a cut.

        Raises:
            UpstreamProtocolError: it is wrong from the beginning.
        """
        begun = self.head is not None
        try:
            if data:
                return self.feed(data)
            self.end(reset)
        except UpstreamProtocolError as error:
            if not begun:
                raise
            self.failure = error
        return b""

    @property
    def switches(self) -> bool:
        """Tell whether the connection speaks another protocol from here on."""
        return self.head is not None and self.head.code == SWITCHING

    def is_small(self, received: int) -> bool:
        """Tell whether the rest may come in a moment and fit into one piece with what was `received` of the body."""
        if self.done or self.failure or self.switches:
            return False
        return max(received, (self.head and self.head.length) or 0) < PIECE

    def feed(self, data: bytes) -> bytes:
        """Return the content that is in `data`.

        Raises:
            UpstreamProtocolError: this is not an answer.
        """
        if self._body is None:
            data = self._feed_head(data)
        body = self._body
        if body is None:
            return b""
        content = body.feed(data) if data else b""
        self.done = body.done
        return content

    def end(self, reset: bool) -> None:
        """Take note that the connection was closed, or reset.

        Raises:
            NoAnswer: there was not one byte of an answer.
            UpstreamProtocolError: that is not its end.
        """
        if self._body is not None:
            self._body.end(reset)
            self.done = True
            return
        if self._rest:
            raise UpstreamProtocolError("the answer ended in the middle of its head")
        raise NoAnswer(f"the connection was {'reset' if reset else 'closed'} without an answer")

    def _feed_head(self, data: bytes) -> bytes:
        """Return what comes after the head; before that is whole, nothing."""
        data = self._rest + data if self._rest else data
        while data:
            parsed = http11.parse_head(data, self._dropped)
            if parsed is None:
                break
            head, data = parsed
            if head.code >= 200 or (head.code == SWITCHING and self._upgrade):
                self._begin(head)
                self._rest = b""
                return data
            self._pass_over(head)
        self._rest = data
        return b""

    def _begin(self, head: Head) -> None:
        self.head = head
        if head.code == SWITCHING:
            self._body = UntilClose(forgive=True)
        else:
            self._body = http11.body_of(head, self._method, self._forgive)
        self.done = self._body.done

    def _pass_over(self, head: Head) -> None:
        self._interim += 1
        if head.code == SWITCHING or self._interim > MOST_INTERIM:
            raise UpstreamProtocolError(f"the answer is {head.status}, which was not asked for")
        if head.code == EARLY_HINTS:
            self.hints.append(head.fields)


class Outgoing:
    """One answer, as bytes.

    Args:
        method: of the request.
        protocol: of the client, ``HTTP/1.0`` or ``HTTP/1.1``.
        server: what the Server field says.

    Attributes:
        begun: the head has been made, so that no other can be sent.
        chunked: the body is sent in chunks.
        bare: the body ends where the connection does; only a reset can tell that it is cut short.
        sent: bytes of the content so far.
    """

    __slots__ = ("_protocol", "_server", "_shows", "bare", "begun", "chunked", "sent")

    def __init__(self, method: str, protocol: str, server: str) -> None:
        self._protocol = protocol
        self._server = server
        self._shows = method != "HEAD"
        self.begun = self.chunked = self.bare = False
        self.sent = 0

    def hints(self, fields: Fields) -> bytes:
        """Return an answer 103 (RFC 8297); HTTP/1.0 has none."""
        if self._protocol == "HTTP/1.0":
            return b""
        return f"HTTP/1.1 103 Early Hints\r\n{_lines(fields)}\r\n".encode("latin-1")

    def head(self, head: Head, date: str) -> bytes:
        """Return the head, and decide how the body is framed (RFC 9112 section 6)."""
        self.begun = True
        self._shows = self._shows and head.code not in NO_CONTENT
        if head.length is None and self._shows:
            self.chunked = self._protocol != "HTTP/1.0"
            self.bare = not self.chunked
        framing = "Transfer-Encoding: chunked\r\n" if self.chunked else ""
        return self._head(head, date, framing)

    def whole(self, head: Head, content: bytes, date: str) -> bytes:
        """Return the complete answer."""
        self.begun = True
        self._shows = self._shows and head.code not in NO_CONTENT
        framing = f"Content-Length: {len(content)}\r\n" if head.length is None and self._shows else ""
        self.sent = len(content)
        return self._head(head, date, framing) + content

    def switch(self, head: Head, protocol: str) -> bytes:
        """Return the head that ends HTTP on this connection (RFC 9110 section 15.2.2)."""
        self.begun = True
        upgrade = f"Upgrade: {protocol}\r\nConnection: Upgrade\r\n"
        return f"HTTP/1.1 {head.status}\r\n{upgrade}{_lines(head.fields)}\r\n".encode("latin-1")

    def content(self, data: bytes) -> bytes:
        """Return a piece of the body, framed."""
        if not data:
            return b""
        self.sent += len(data)
        return chunk(data) if self.chunked else data

    def end(self) -> bytes:
        """Return the bytes that mark the end of the body."""
        return LAST_CHUNK if self.chunked else b""

    def _head(self, head: Head, date: str, framing: str) -> bytes:
        return (
            f"{self._protocol} {head.status}\r\nServer: {self._server}\r\nDate: {date}\r\nConnection: close\r\n"
            f"{framing}{_lines(head.fields)}\r\n"
        ).encode("latin-1")


def _lines(fields: Iterable[tuple[str, str]]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in fields])
