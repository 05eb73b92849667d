"""WSGI: one request from the dispatcher to the app and back.

The app sees the environ that it would see in the dispatcher's own process under gunicorn, except for
``gunicorn.socket``: the connection is the dispatcher's and not the client's, so it is there only for who asks for a
WebSocket, whose answer the dispatcher passes on as it is (`takeover`). A request that was handed over brings the
client's own connection; it is answered there, whole, and closed.
"""

from __future__ import annotations

import io
import os

from .answer import Answer, Whole
from .call import Caller
from .connection import Connection
from .envelope import BadEnvelope, body_of, receive, tell_apart
from .report import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Relayed:
    """Serves envelopes with a WSGI app."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def serve(self, connection: Connection, start: bytes) -> None:
        """Answer the request that begins with `start`; the caller closes the connection."""
        read = self._read(connection, start)
        if not read:
            return
        environ, body = read
        answer = Answer(connection, environ["REQUEST_METHOD"], environ.get("SERVER_PROTOCOL", ""))
        self._caller.serve(environ, body, answer, connection)

    def serve_client(self, connection: Connection, start: bytes, client: int) -> None:
        """Answer on the connection `client`, as which `connection` goes on."""
        read = self._read(connection, start)
        if not read:
            os.close(client)
            return
        environ, body = read
        try:
            body = io.BytesIO(body.read())  # before it is the client that is read from
        except OSError:
            os.close(client)
            return
        connection.become(client)
        answer = Whole(connection, environ["REQUEST_METHOD"], environ.get("SERVER_PROTOCOL", ""))
        self._caller.serve(environ, body, answer, connection)
        if connection.has_more:  # closing now would reset the connection, and the answer might be lost with it
            connection.linger()

    def _read(self, connection: Connection, start: bytes) -> tuple[dict[str, Any], Any] | None:
        try:
            environ, rest = receive(connection, start)
            is_chunked = tell_apart(environ)
            body = body_of(environ, is_chunked, rest, connection)
        except BadEnvelope as error:
            say(f"A request of the dispatcher cannot be read: {error}")
            return None
        except OSError:
            return None
        return environ, body
