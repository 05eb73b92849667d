"""The request as the dispatcher sends it: the byte 1, a length, a JSON object of the variables, then the body.

The first byte of HTTP is that of a method, and a front end writes it, so no client can send an envelope. The body is
exactly ``CONTENT_LENGTH`` bytes, or in chunks (RFC 9112, section 7.1) where ``multisite.body`` says "chunked". With
the byte 2 instead of 1 comes a descriptor, the client's own connection, which is to be answered (unix(7), SCM_RIGHTS).
Where ``multisite.timed`` is set, the answer says when the application had the request (`TIMES`).

A front end or a router may send the same as a packet of the uwsgi protocol, which begins with the byte 0.
"""

from __future__ import annotations

import io
import json

from .body import CUT, LONGEST_LENGTH, Gone
from .requesthead import PROXY, is_claim

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

FIRST = b"\x01"
WITH_CLIENT = b"\x02"
UWSGI = b"\x00"  # modifier1 of a WSGI request
BODY = "multisite.body"
CAPTURES = "multisite.captures"
APART = "multisite.apart"
TIMED = "multisite.timed"
TIMES = "Multisite-Times"  # the field of an answer with when the request was taken, and when the answer was begun
ROUTING = "wsgiorg.routing_args"
LARGEST = 1 << 20
IS_QUIET = 0x80000000  # in the length, which is never so large: the request does not count as use of the site
RECEIVE = 16384
LONGEST_LINE = 4096
BUFFER = 65536

_decode = json.JSONDecoder().raw_decode


class BadEnvelope(Exception):
    """The other side does not speak our protocol."""


def size_of(start: bytes) -> int:
    """Return the length of the envelope, without the body, from its first five bytes; 0 with fewer.

    Raises:
        BadEnvelope: it would be longer than any server lets a request be.
    """
    if len(start) < 5:
        return 0
    if start[:1] == UWSGI:
        return 4 + int.from_bytes(start[1:3], "little")
    length = int.from_bytes(start[1:5], "big") & ~IS_QUIET
    if length > LARGEST:
        raise BadEnvelope(f"an envelope of {length} bytes")
    return 5 + length


def is_quiet(start: bytes) -> bool:
    """Return whether this begins an envelope with a request that does not count as use of the site."""
    return start[:1] in (FIRST, WITH_CLIENT) and bool(int.from_bytes(start[1:5], "big") & IS_QUIET) and len(start) > 4


def variables_of(envelope: bytes) -> dict[str, Any]:
    """Return the variables of a whole envelope.

    Raises:
        BadEnvelope: it is not a JSON object of variables.
    """
    if envelope[:1] == UWSGI:
        return _uwsgi_variables(envelope)
    try:
        text = envelope[5:].decode()
        variables, end = _decode(text)
    except (ValueError, RecursionError) as error:
        raise BadEnvelope(str(error)) from None
    if end != len(text) or type(variables) is not dict or "REQUEST_METHOD" not in variables:
        raise BadEnvelope("no JSON object of a request's variables")
    return variables


def _uwsgi_variables(packet: bytes) -> dict[str, Any]:
    """The variables of a uwsgi packet (https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html), as a WSGI environ.

    The sender names the client in REMOTE_ADDR; what the client claims about others is dropped.

    Raises:
        BadEnvelope: a length exceeds it, or it is not a request.
    """
    found: dict[str, Any] = {}
    at, end = 4, len(packet)
    while at < end:
        pair = []
        for _ in "kv":
            size = int.from_bytes(packet[at : at + 2], "little")
            at += 2 + size
            if at > end:
                raise BadEnvelope("a uwsgi packet that is cut off")
            pair.append(packet[at - size : at].decode("latin-1"))
        key, value = pair
        if not (key[:10] == "multisite." or key == PROXY or is_claim(key)):
            found[key] = value
    if not found.get("REQUEST_METHOD"):
        raise BadEnvelope("a uwsgi packet without a request's method")
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if not found.get(key):
            found.pop(key, None)
    is_secure = found.get("HTTPS", "").lower() in ("on", "1") or found.get("REQUEST_SCHEME") == "https"
    found["wsgi.url_scheme"] = "https" if is_secure else "http"
    for key in ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"):
        found.setdefault(key, "")
    return found


def receive(connection: socket.socket, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the variables of the envelope that begins with `data`, and the part of the body that has arrived.

    Raises:
        BadEnvelope: this is no envelope.
        Gone: the peer left.
    """
    size = size_of(data)
    while not size or len(data) < size:
        more = connection.recv(BUFFER)
        if not more:
            raise Gone("the dispatcher left in the middle of a request")
        data += more
        size = size or size_of(data)
    return variables_of(data[:size]), data[size:]


def tell_apart(variables: dict[str, Any]) -> bool:
    """Take out of the variables what only the dispatcher, and no client, can say about the request.

    Returns:
        Whether the body is in chunks. What the host's pattern captured is put where the dispatcher puts it for sites
        in its own process.

    Raises:
        BadEnvelope: the captures are invalid.
    """
    if CAPTURES in variables:
        captures = variables[CAPTURES]
        if type(captures) is not dict:
            raise BadEnvelope("captures that are not a JSON object")
        variables[ROUTING] = ((), dict(captures))
    variables.pop(APART, None)
    return bool(variables.pop(BODY, "") == "chunked")


def body_of(variables: dict[str, Any], is_chunked: bool, start: bytes, connection: socket.socket) -> Any:
    """Return ``wsgi.input``, which ends where the body ends.

    Raises:
        BadEnvelope: the length is invalid.
    """
    if is_chunked:
        return io.BufferedReader(ChunkedBody(start, connection), BUFFER)
    return sized_body(str(variables.get("CONTENT_LENGTH") or 0), start, connection)


def sized_body(length: str, start: bytes, connection: socket.socket) -> Any:
    """Return ``wsgi.input`` of `length` bytes, the first of which are in `start`.

    Raises:
        BadEnvelope: the length is invalid.
    """
    if not (length.isascii() and length.isdigit()) or len(length) > LONGEST_LENGTH:
        raise BadEnvelope(f"a body of {length[:20]!r} bytes")
    if len(start) >= int(length):
        return io.BytesIO(start[: int(length)])
    return io.BufferedReader(SizedBody(start, connection, int(length)), BUFFER)


def size_of_body(environ: dict[str, Any], body: Any) -> int:
    """Return how long the body of a request is, or how much of one in chunks has been read."""
    length = str(environ.get("CONTENT_LENGTH") or "")
    if length.isascii() and length.isdigit() and len(length) <= LONGEST_LENGTH:
        return int(length)
    return int(getattr(getattr(body, "raw", None), "taken", 0))


class _Body(io.RawIOBase):
    """A body that is still arriving: `_start` has the bytes received but not yet read, `_left` counts those to be read.

    Attributes:
        is_cut: no more of it will come.
        taken: how many bytes have been read.
    """

    def __init__(self, start: bytes, connection: socket.socket) -> None:
        self.taken = 0
        self._start = start
        self._connection = connection
        self._left = 0  # of the body, or of the current chunk
        self.is_cut = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read up to `_left` bytes, at least one if any are left.

        Raises:
            Gone: the body ends too early; the part that arrived must not pass for the whole.
        """
        most = min(len(buffer), self._left)
        if not most:
            return 0
        data = self._start[:most]
        if data:
            self._start = self._start[most:]
        else:
            data = self._more(most)
        self._left -= len(data)
        self.taken += len(data)
        buffer[: len(data)] = data
        return len(data)

    def _more(self, most: int) -> bytes:
        if self.is_cut:
            raise Gone(CUT)
        data = self._connection.recv(most)
        if not data:
            self.is_cut = True
            raise Gone(CUT)
        return data


class SizedBody(_Body):
    """Exactly `length` bytes."""

    def __init__(self, start: bytes, connection: socket.socket, length: int) -> None:
        super().__init__(start, connection)
        self._left = length


class ChunkedBody(_Body):
    """Chunks; their extensions and the trailers are skipped.

    Raises (on reading):
        BadEnvelope: the framing is wrong. Our own relay wrote it, so this is not the client's doing.
    """

    _is_first = True
    _is_over = False

    def readinto(self, buffer: Any) -> int:
        """As of `io.RawIOBase`."""
        if not self._left and not self._is_over:
            self._next_chunk()
        return super().readinto(buffer)  # nothing after the last

    def _next_chunk(self) -> None:
        if not self._is_first and self._line():
            raise BadEnvelope("a chunk that is longer than its size line")
        self._is_first = False
        digits = self._line().partition(b";")[0].strip()
        if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
            raise BadEnvelope(f"a chunk of {digits[:20]!r} bytes")
        self._left = int(digits, 16)
        if not self._left:
            self._is_over = True
            while self._line():
                pass

    def _line(self) -> bytes:
        while b"\r\n" not in self._start:
            if len(self._start) > LONGEST_LINE:
                raise BadEnvelope("a line without an end")
            self._start += self._more(BUFFER)
        line, _, self._start = self._start.partition(b"\r\n")
        return line
