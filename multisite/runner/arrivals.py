"""Connections to an ASGI site, from their being accepted to their first bytes, which tell what they are for.

asyncio's own servers would set the length of the queue anew and remove the socket's path, and its transports lose a
descriptor that comes with the first bytes.
"""

from __future__ import annotations

import asyncio
import os
import socket

from .connection import HEAD_LIMIT, ON_EXEC, ONE_DESCRIPTOR, RECEIVE, descriptor_in
from .envelope import BUFFER, LARGEST, WITH_CLIENT
from .report import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PAUSE = 0.5  # seconds, when nothing can be accepted
AT_ONCE = 100


class Arrivals:
    """Accepts connections and gives each to a protocol of its own.

    Args:
        listen: descriptor of the listening socket.
        new_protocol: makes a protocol, told the first bytes and whether they came with the client's connection.
    """

    def __init__(self, listen: int, new_protocol: Callable[[bytes, bool], asyncio.BaseProtocol]) -> None:
        self._listener = socket.socket(fileno=listen)
        self._listener.setblocking(False)
        self._new_protocol = new_protocol
        self._arriving: set[asyncio.Task[None]] = set()
        self._loop: Any = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Accept from now on."""
        self._loop = loop
        self._resume()

    async def stop(self) -> None:
        """Accept nothing more; returns when each connection has its protocol."""
        loop, self._loop = self._loop, None
        loop.remove_reader(self._listener)
        if self._arriving:
            await asyncio.wait(self._arriving)

    def _resume(self) -> None:
        if self._loop:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Take what has arrived."""
        loop = self._loop
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                say(f"A connection cannot be accepted: {error}")
                loop.remove_reader(self._listener)
                loop.call_later(PAUSE, self._resume)
                return
            connection.setblocking(False)
            task = loop.create_task(self._arrive(connection, loop))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _arrive(self, connection: socket.socket, loop: Any) -> None:
        """See what has come; a connection that brings nothing (a probe) ends here."""
        try:
            data, client = await _first(connection, loop)
        except (OSError, asyncio.TimeoutError):
            connection.close()
            return
        if not data.startswith(WITH_CLIENT):
            await loop.connect_accepted_socket(lambda: self._new_protocol(data, False), connection)
            return
        connection.close()
        if client:
            await loop.connect_accepted_socket(lambda: self._new_protocol(data, True), client)


async def _first(connection: socket.socket, loop: Any) -> tuple[bytes, socket.socket | None]:
    """The first bytes, all of them where a client is handed over, and that client."""
    try:
        message = connection.recvmsg(RECEIVE, ONE_DESCRIPTOR, ON_EXEC)
    except BlockingIOError:
        await _readable(connection, loop)
        message = connection.recvmsg(RECEIVE, ONE_DESCRIPTOR, ON_EXEC)
    data, client = message[0], descriptor_in(message[1])
    if not data:
        raise ConnectionResetError
    if client < 0:
        return data, None
    if not data.startswith(WITH_CLIENT):
        os.close(client)  # nobody asked for it
        return data, None
    handed = socket.socket(fileno=client)
    handed.setblocking(False)
    try:
        return await _rest(data, connection, loop), handed
    except BaseException:
        handed.close()
        raise


async def _rest(data: bytes, connection: socket.socket, loop: Any) -> bytes:
    """All that the dispatcher sends, up to its leaving."""
    while len(data) <= 2 * LARGEST:
        try:
            more = connection.recv(BUFFER)
        except BlockingIOError:
            await _readable(connection, loop)
            continue
        if not more:
            return data
        data += more
    raise ConnectionResetError


async def _readable(connection: socket.socket, loop: Any) -> None:
    """Wait until there is something to read.

    Raises:
        asyncio.TimeoutError: nothing came for `HEAD_LIMIT` seconds.
    """
    ready = loop.create_future()
    loop.add_reader(connection, _wake, ready)
    try:
        await asyncio.wait_for(ready, HEAD_LIMIT)
    finally:
        loop.remove_reader(connection)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
