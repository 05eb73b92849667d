"""The environ of one request, in the form that our own runner reads from a site's socket.

A client's bytes never come first on that socket: a front end that connects there directly begins with the name of a
method. So an envelope cannot be forged, and a site reads from it exactly what the server gave us.

``0x01``, the length of the rest as an unsigned 32-bit integer (big endian), a JSON object of the variables; then the
body: CONTENT_LENGTH bytes, or in chunks (RFC 9112 section 7.1) if BODY says so, or none. ``0x02`` instead announces the
client's own connection (SCM_RIGHTS, unix(7)), and the whole body.

Data that is not from the client's request has a key that no header can have: BODY, CAPTURES, APART, and TIMED.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from multisite.errors import RequestTooLarge
from multisite.logs.requests import TIMED
from multisite.proxy.headers import NOTHING, Apart
from multisite.proxy.ignored import QUIET

FIRST = b"\x01"
WITH_CLIENT = b"\x02"
MOST = 1 << 20  # bytes of variables that the runner takes; no server lets half of that through
BODY = "multisite.body"  # the key under which "chunked" says how the body is sent
CAPTURES = "multisite.captures"  # what the host's pattern captured, an object of strings
APART = "multisite.apart"  # fields that the variables join, each with its name: `headers.Apart`

#: PEP 3333's variables of a request, and what servers add about the same request. Nothing else: wsgiref for one puts
#: the administrator's whole environment into every environ.
VARIABLES = frozenset(
    [
        "REQUEST_METHOD",
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "CONTENT_TYPE",
        "CONTENT_LENGTH",
        "RAW_URI",
        "REQUEST_URI",
        "REQUEST_SCHEME",
        "HTTPS",
        "AUTH_TYPE",
        "wsgi.url_scheme",
    ]
)
_IS_QUIET = 0x80000000  # in the length, which is never so large: the request does not count as use of the site
FAMILIES = ("SERVER_", "REMOTE_")

_encode = json.JSONEncoder(separators=(",", ":")).encode
_quoted = json.encoder.encode_basestring_ascii


def encode(environ: Mapping[str, Any], chunked: bool, first: bytes = FIRST, apart: Apart = NOTHING) -> bytes:
    """Return the envelope of a request; its body follows.

    Args:
        environ: of the request.
        chunked: whether the body is sent in chunks.
        first: `FIRST`, or `WITH_CLIENT`.
        apart: what the environ cannot express about its fields.

    Raises:
        RequestTooLarge: the variables are larger than the runner takes.
    """
    members = [
        (_kept.get(key) or _keep(key)) + _quoted(value)
        for key, value in environ.items()
        if type(value) is str and (key in _kept or _keep(key))
    ]
    if chunked:
        members.append(f'"{BODY}":"chunked"')
    if CAPTURES in environ:
        members.append(f"{_quoted(CAPTURES)}:{_encode(dict(environ[CAPTURES]))}")
    if TIMED in environ and first == FIRST:  # a client's own connection gets nothing of ours
        members.append(f'"{TIMED}":"yes"')
    if apart:
        members.append(f"{_quoted(APART)}:{_encode(apart)}")
    text = f"{{{','.join(members)}}}".encode("ascii")
    if len(text) > MOST:
        raise RequestTooLarge(f"the variables of the request are {len(text)} bytes; an envelope carries {MOST}")
    length = len(text) | _IS_QUIET if QUIET in environ else len(text)
    return first + length.to_bytes(4, "big") + text


_MOST_KEPT = 1024  # keys remembered; a client can invent as many as it likes
_kept: dict[str, str] = {}  # with the beginning of their members


def _keep(key: str) -> str:
    """Return the beginning of a member, "" for a key that is left out."""
    if not (key[:5] == "HTTP_" or key[:7] in FAMILIES or key in VARIABLES):
        return ""
    begin = f"{_quoted(key)}:"
    if len(_kept) < _MOST_KEPT:
        _kept[key] = begin
    return begin
