"""The connection in the hands of the site: ``gunicorn.socket`` of a request that asks for a WebSocket.

simple-websocket (flask-sock, Flask-SocketIO) takes it from there, answers the handshake itself, and speaks its own
protocol for as long as it likes. From the first byte that the site sends, the connection is the site's: it has no
limit of time, and nothing of ours is sent on it.
"""

from __future__ import annotations

import os
import socket

from .connection import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_kinds: dict[type, type] = {}


def is_wanted(environ: dict[str, Any]) -> bool:
    """Whether the client wants to go on with a WebSocket (RFC 6455, section 4.1)."""
    wanted: str = environ.get("HTTP_UPGRADE", "")
    return wanted.lower() == "websocket" and "upgrade" in environ.get("HTTP_CONNECTION", "").lower()


def offered(connection: Connection) -> Any:
    """The connection as a socket of the kind that the site has: gevent puts another one in place."""
    kind = socket.socket
    if kind not in _kinds:
        _kinds[kind] = type("ClientSocket", (_Taking, kind), {})
    connection.forget_limits()
    copy = os.dup(connection.fileno())
    offered: Any = _kinds[kind](connection.family, connection.type, connection.proto, fileno=copy)
    offered.connection = connection
    return offered


class _Taking:
    """What such a socket does besides: the first that is sent takes the connection, whose end is its own."""

    connection: Any = None

    def send(self, *args: Any) -> int:
        self.connection.be_taken()
        sent: int = super().send(*args)  # type: ignore[misc]
        self.connection.sent += sent
        return sent

    def sendall(self, data: Any, *args: Any) -> None:
        self.connection.be_taken()
        super().sendall(data, *args)  # type: ignore[misc]
        self.connection.sent += len(data)

    def _real_close(self, *args: Any, **kwargs: Any) -> None:
        super()._real_close(*args, **kwargs)  # type: ignore[misc]
        if self.connection and self.connection.is_taken:
            self.connection.close()
