"""The end of a request, as an ASGI app sees it (asgiref, "HTTP & WebSocket ASGI Message Format", version 2.4).

To send something when the client has left raises an OSError, and is no error of the app's. When the answer is
complete, `receive` says so as if the client had left.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ClientGone(ConnectionResetError):
    """The client left before it had all of the answer."""


def until_gone(app: Any, protocol: Any) -> Any:
    """`app` for the requests of one connection.

    Args:
        protocol: gunicorn's, of that connection.
    """

    async def called(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
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
        except Exception:  # what a framework makes of the error, and cleaning up may raise its own
            if not was_told:
                raise

    return called
