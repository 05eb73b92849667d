"""The client's side of a WebSocket (RFC 6455) on a socket, as small as it can be."""

from __future__ import annotations

import base64
import hashlib
import os
import socket

KEY = base64.b64encode(b"0123456789abcdef").decode()
ACCEPT = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
FIELDS = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}
VARIABLES = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in FIELDS.items()}


class WebSocket:
    """One after its handshake, which has been read to the end of its head."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data = b""
        self.head = self._until(b"\r\n\r\n").decode("latin-1")

    def send(self, text: str) -> None:
        """One masked frame of text, shorter than 126 bytes."""
        data, mask = text.encode(), os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        self._connection.sendall(bytes([0x81, 0x80 | len(data)]) + mask + masked)

    def receive(self) -> tuple[int, bytes]:
        """Opcode and content of one short frame."""
        first, length = self._exactly(2)
        return first & 15, self._exactly(length)

    def _until(self, end: bytes) -> bytes:
        while end not in self._data:
            self._receive()
        head, _, self._data = self._data.partition(end)
        return head + end

    def _exactly(self, count: int) -> bytes:
        while len(self._data) < count:
            self._receive()
        data, self._data = self._data[:count], self._data[count:]
        return data

    def _receive(self) -> None:
        data = self._connection.recv(4096)
        assert data, f"the connection ended after {self._data!r}"
        self._data += data
