"""An answer for the client of a server whose connection we have: head, framing, end. No socket, no clock.

The connection ends with the answer, whatever the client or the backend wish: nobody's next request may
meet this site's backend.
"""

from __future__ import annotations

from collections.abc import Iterable

from multisite.proxy.wire.framing import LAST_CHUNK, chunk
from multisite.proxy.wire.http11 import NO_CONTENT, Head
from multisite.proxy.wire.incoming import Fields


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
        """Return what says that the body is whole."""
        return LAST_CHUNK if self.chunked else b""

    def _head(self, head: Head, date: str, framing: str) -> bytes:
        return (
            f"{self._protocol} {head.status}\r\nServer: {self._server}\r\nDate: {date}\r\nConnection: close\r\n"
            f"{framing}{_lines(head.fields)}\r\n"
        ).encode("latin-1")


def _lines(fields: Iterable[tuple[str, str]]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in fields])
