"""A plain HTTP request to a port that speaks TLS gets an answer that explains it, as from nginx, instead of nothing."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from typing import Any

from multisite.config.domains import normalise
from multisite.errors import BadHost, pages

MOST = 65536  # bytes to read from such a request
PATIENCE = 1.0  # seconds for its head, and as many until the client has the answer

_METHOD = re.compile(rb"[A-Z]")  # a handshake begins with the byte 22 (RFC 8446 section 5.1)
_HOST = re.compile(rb"\r\nhost:[ \t]*([^\r\n]*)", re.IGNORECASE)


class TLSConnection(ssl.SSLSocket):
    """A server's end of a connection; it answers a plain HTTP request before the handshake with a page.

    The server then sees the end of the connection.
    """

    _is_looked_at = False

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands (see `ssl.SSLSocket`)."""
        self._look()
        super().do_handshake(block)

    def read(self, *arguments: Any) -> Any:
        """Read, after the handshake (see `ssl.SSLSocket`)."""
        if not self._is_looked_at:
            self._look()
        return super().read(*arguments)

    def _look(self) -> None:
        if self._is_looked_at or self.version():
            return
        try:
            first = socket.socket.recv(self, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return  # nothing has arrived yet
        self._is_looked_at = True
        if _METHOD.match(first):
            with contextlib.suppress(OSError):
                self._answer()
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "a plain HTTP request")

    def _answer(self) -> None:
        head = self._receive(b"\r\n\r\n")
        socket.socket.sendall(self, answer(head, self.getsockname()))
        socket.socket.shutdown(self, socket.SHUT_WR)
        self._receive(b"")  # read the rest; else the kernel would reset the connection and drop the answer

    def _receive(self, end: bytes) -> bytes:
        """Return the bytes up to `end` or the end of the connection, within limits of size and time."""
        data, until = b"", time.monotonic() + PATIENCE
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while len(data) < MOST and not (end and end in data):
                self.settimeout(max(0.001, until - time.monotonic()))
                more = socket.socket.recv(self, 8192)
                if not more or time.monotonic() > until:
                    return data + more
                data += more
        return data


def answer(head: bytes, address: Any) -> bytes:
    """Return the answer to a request with this head, for a server at this address (pure)."""
    port = address[1] if isinstance(address, tuple) else 443
    named = _HOST.search(head)
    where = ""
    with contextlib.suppress(BadHost):
        host = normalise(named[1].decode("latin-1")) if named else ""
        where = f" Use https://{host}{'' if port == 443 else f':{port}'}/ instead." if host else ""
    text = f"A plain HTTP request was sent to a port that speaks HTTPS.{where}"
    media_type, body = pages.error_page(400, "HTTPS is needed", text).render("")
    fields = [f"Content-Type: {media_type}; charset=utf-8", f"Content-Length: {len(body)}", "Connection: close"]
    begin = "\r\n".join(["HTTP/1.1 400 Bad Request", *fields, "Cache-Control: no-store", "", ""]).encode()
    return begin if head.startswith(b"HEAD ") else begin + body
