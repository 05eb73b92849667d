"""What an ASGI app may send, and the end of a request as it sees it (asgiref, version 2.4).

To send something when the client has left raises an OSError, and is no error of the app's. When the answer is
complete, `receive` says so as if the client had left.

gunicorn has the app wait where the client is slow. A client that takes all at once, or that has just left, would never
have it wait, and an app that does nothing but send would keep the event loop to itself: it is made to share.
"""

from __future__ import annotations

from asyncio import sleep
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TURN = 0.01  # seconds for which one call may send without a pause


class ClientGone(ConnectionResetError):
    """The client left before it had all of the answer."""


def until_gone(app: Any, protocol: Any) -> Any:
    """`app` for the requests of one connection.

    Args:
        protocol: gunicorn's, of that connection.
    """

    async def called(scope: dict[str, Any], receive: Any, send: Any) -> None:
        send = in_turns(send, protocol.transport)
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


def in_turns(send: Any, transport: Any) -> Any:
    """`send` for one call of an app, which lets the event loop do something else now and then.

    Where a write has just failed, it does so at once: only then does anybody learn that the client has left.
    """
    until = monotonic() + TURN

    async def sent(message: dict[str, Any]) -> None:
        nonlocal until
        await send(message)
        if monotonic() >= until or transport.is_closing():
            await sleep(0)
            until = monotonic() + TURN

    return sent
