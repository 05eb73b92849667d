"""Where the frames of a WebSocket end, and the frame that ends it (RFC 6455). No socket, no clock."""

from __future__ import annotations

GOING_AWAY = 1001  # the status of a server that ends (section 7.4.1)

_CLOSE = 0x88  # the first byte of a closing frame that is whole (section 5.2)
_MASKED = 0x80


class Frames:
    """What one end has sent, as far as needed to send something between two of its frames.

    Attributes:
        has_closed: a closing frame has begun, after which nothing of use comes.
    """

    def __init__(self) -> None:
        self._header = b""
        self._left = 0  # bytes of a payload that are to come
        self.has_closed = False

    @property
    def is_between(self) -> bool:
        """Tell whether the next byte begins a frame."""
        return not self._left and not self._header

    def feed(self, data: bytes, stops: bool = False) -> int:
        """Take note of bytes; return how many, all of them unless it `stops` at the end of the frame that has begun."""
        at = 0
        while at < len(data) and not (stops and self.is_between):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
            else:
                at = self._feed_header(data, at)
        return at

    def _feed_header(self, data: bytes, at: int) -> int:
        header = self._header
        wanted = 2 if len(header) < 2 else _header_size(header)
        step = min(wanted - len(header), len(data) - at)
        self._header = header = header + data[at : at + step]
        if len(header) >= 2 and len(header) == _header_size(header):
            self._left = _payload_size(header)
            self._header = b""
            self.has_closed = self.has_closed or header[0] & 0x0F == _CLOSE & 0x0F
        return at + step


def _header_size(header: bytes) -> int:
    length = header[1] & 0x7F
    return 2 + (8 if length == 127 else 2 if length == 126 else 0) + (4 if header[1] & _MASKED else 0)


def _payload_size(header: bytes) -> int:
    length = header[1] & 0x7F
    if length < 126:
        return length
    return int.from_bytes(header[2 : 4 if length == 126 else 10], "big")


def close(status: int, mask: bytes = b"") -> bytes:
    """Return a closing frame; a client's has a mask of four bytes (section 5.3), a server's none."""
    payload = status.to_bytes(2, "big")
    if mask:
        payload = bytes(byte ^ key for byte, key in zip(payload, mask, strict=False))
    return bytes([_CLOSE, len(payload) | (_MASKED if mask else 0)]) + mask + payload
