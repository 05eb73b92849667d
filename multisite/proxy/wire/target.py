"""The request target as the client sent it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote


def raw_target(environ: Mapping[str, Any]) -> str:
    """Return path and query undecoded, so that ``%2F``, ``//`` and ``;`` stay what they are.

    gunicorn tells it as RAW_URI; uWSGI, mod_wsgi and waitress as REQUEST_URI. Elsewhere it is made of SCRIPT_NAME
    and PATH_INFO, where an encoded slash cannot be told from a plain one any more.
    """
    raw: str = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    if raw[:1] != "/":
        raw = _origin_form(raw, environ)
    return raw.replace(" ", "%20")


def _origin_form(raw: str, environ: Mapping[str, Any]) -> str:
    """Return the target that an origin server is asked for (RFC 9112 section 3.2.1)."""
    _scheme, absolute, rest = raw.partition("://")
    if absolute and rest:
        start = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
        return rest[start:] if rest[start : start + 1] == "/" else "/" + rest[start:]
    if raw == "*" and environ.get("REQUEST_METHOD") == "OPTIONS":
        return raw
    path = quote((environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")) or "/"
    query = environ.get("QUERY_STRING", "")
    return f"{path}?{query}" if query else path
