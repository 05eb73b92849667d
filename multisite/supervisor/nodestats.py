"""The statistics of nodes as uWSGI's Fastrouter serves them: each connection receives one JSON document."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from multisite.router.server import clear, host_and_port
from multisite.supervisor.loop import Loop

MOST_READERS = 16
READ_WITHIN = 5.0  # seconds

_log = logging.getLogger("multisite.router")


class NodeStats:
    """Listens at the configured address.

    Args:
        document: returns the document to send.
    """

    def __init__(self, loop: Loop, document: Callable[[], dict[str, Any]]) -> None:
        self._loop, self._document = loop, document
        self._address = ""
        self._failure = ""
        self._listener: socket.socket | None = None
        self._readers: dict[socket.socket, tuple[float, memoryview]] = {}

    def tick(self, now: float, address: str) -> None:
        """Listen at `address` ("" for nowhere), and drop clients that do not read."""
        if address != self._address:
            self.close()
            self._address = address
        if address and not self._listener:
            self._open(address)
        for reader in [reader for reader, (until, _rest) in self._readers.items() if now > until]:
            self._leave(reader)

    def _open(self, address: str) -> None:
        try:
            self._listener = _bound(address)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if reason != self._failure:
                _log.error("MS736 [router] stats = %s: %s", address, reason)
            self._failure = reason
            return
        self._failure = ""
        self._loop.watch(self._listener, self._accept)

    def _accept(self, _events: int) -> None:
        assert self._listener
        try:
            reader, _ = self._listener.accept()
        except OSError:
            return
        reader.setblocking(False)
        if len(self._readers) >= MOST_READERS:
            reader.close()
            return
        try:
            document = json.dumps(self._document()).encode()
        except BaseException:
            reader.close()
            raise
        self._readers[reader] = self._loop.now() + READ_WITHIN, memoryview(document)
        self._send(reader)

    def _send(self, reader: socket.socket) -> None:
        until, rest = self._readers[reader]
        try:
            rest = rest[reader.send(rest, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            pass
        except OSError:
            rest = memoryview(b"")
        if not rest:
            self._leave(reader)
            return
        self._readers[reader] = until, rest
        if not self._loop.watches(reader):
            self._loop.watch(reader, lambda _events: self._send(reader), write=True)

    def _leave(self, reader: socket.socket) -> None:
        self._loop.forget(reader)
        del self._readers[reader]
        reader.close()

    def close(self) -> None:
        """Stop listening."""
        for reader in list(self._readers):
            self._leave(reader)
        if self._listener:
            self._loop.forget(self._listener)
            self._listener.close()
            self._listener = None
            if self._address.startswith("/"):
                with contextlib.suppress(OSError):
                    os.unlink(self._address)


def _bound(address: str) -> socket.socket:
    """Return a socket that listens at ``HOST:PORT``, a path or ``@NAME``.

    Raises:
        OSError, ValueError: it cannot listen there.
    """
    if address.startswith(("/", "@")):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        where: object = address if address.startswith("/") else "\0" + address[1:]
    else:
        host, port = host_and_port(address)
        found = socket.getaddrinfo(host or "127.0.0.1", port, type=socket.SOCK_STREAM)
        family, _, _, _, where = found[0]
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if address.startswith("/"):
            clear(address, socket.SOCK_STREAM)
        old = os.umask(0o177)
        try:
            listener.bind(where)  # type: ignore[arg-type]
        finally:
            os.umask(old)
        listener.listen(MOST_READERS)
    except BaseException:
        listener.close()
        raise
    return listener
