"""A request in the uwsgi protocol, version 0; the answer is plain HTTP that ends with the connection.

https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html: modifier1, the size of the variables as 16 bits (little
endian), modifier2 (both are 0 for a WSGI request); then key and value of each, with 16 bits of length before them;
then the body, unframed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from multisite.errors import RequestTooLarge
from multisite.proxy.wire.http11 import raw_target

MOST = 65535  # bytes of variables: the most that 16 bits can count

_VARIABLES = [
    "REQUEST_METHOD",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "CONTENT_TYPE",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "REMOTE_USER",
    "AUTH_TYPE",
]


def encode(
    environ: Mapping[str, Any],
    fields: Iterable[tuple[str, str]],
    length: int | None,
    modifier1: int = 0,
    modifier2: int = 0,
) -> bytes:
    """Return the packet of a request; its body of `length` bytes follows.

    Args:
        environ: of the request.
        fields: its header fields that are passed on, under their ``HTTP_*`` keys.
        length: of the body, None where the request has none.
        modifier1: what the packet is; 0 is a WSGI request.
        modifier2: of no meaning for a WSGI request.

    Raises:
        RequestTooLarge: the variables are larger than the protocol can say.
    """
    scheme = environ.get("wsgi.url_scheme", "http")
    pairs = [(key, environ[key]) for key in _VARIABLES if key in environ]
    pairs += (
        ("REQUEST_URI", raw_target(environ)),
        ("REQUEST_SCHEME", scheme),
        ("CONTENT_LENGTH", "" if length is None else str(length)),
    )
    if scheme == "https":
        pairs.append(("HTTPS", "on"))
    pairs += fields
    parts: list[bytes] = []
    try:
        for key, value in pairs:
            data = value.encode("latin-1")
            parts += _known.get(key) or _name(key), _size(len(data)), data
    except struct.error:
        raise _too_large(max(len(text) for pair in pairs for text in pair)) from None
    variables = b"".join(parts)
    if len(variables) > MOST:
        raise _too_large(len(variables))
    return b"%c%b%c%b" % (modifier1, _size(len(variables)), modifier2, variables)


_size = struct.Struct("<H").pack
_MOST_NAMES = 1024  # remembered; a client can invent as many as it likes
_known: dict[str, bytes] = {}


def _name(key: str) -> bytes:
    """Return a variable's name as it stands in a packet."""
    name = key.encode("latin-1")
    string = _size(len(name)) + name
    if len(_known) < _MOST_NAMES:
        _known[key] = string
    return string


def _too_large(size: int) -> RequestTooLarge:
    return RequestTooLarge(f"the variables of the request are {size} bytes; the uwsgi protocol carries {MOST}")
