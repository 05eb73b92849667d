"""A request in the uwsgi protocol, version 0; the answer is plain HTTP that ends with the connection.

https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html: modifier1, the size of the variables as 16 bits (little
endian), modifier2 (both are 0 for a WSGI request); then key and value of each, with 16 bits of length before them;
then the body, unframed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from multisite.errors import RequestTooLarge
from multisite.proxy.wire.http11 import raw_target

MOST = 65535  # bytes of variables: what 16 bits can say

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
    pairs += [("REQUEST_URI", raw_target(environ)), ("REQUEST_SCHEME", scheme)]
    pairs.append(("CONTENT_LENGTH", "" if length is None else str(length)))
    if scheme == "https":
        pairs.append(("HTTPS", "on"))
    variables = b"".join(_strings([*pairs, *fields]))
    if len(variables) > MOST:
        raise _too_large(len(variables))
    return b"%c%b%c%b" % (modifier1, len(variables).to_bytes(2, "little"), modifier2, variables)


def _strings(pairs: Iterable[tuple[str, str]]) -> Iterable[bytes]:
    for pair in pairs:
        for text in pair:
            string = text.encode("latin-1")
            if len(string) > MOST:
                raise _too_large(len(string))
            yield len(string).to_bytes(2, "little")
            yield string


def _too_large(size: int) -> RequestTooLarge:
    return RequestTooLarge(f"the variables of the request are {size} bytes; the uwsgi protocol carries {MOST}")
