"""Which header fields a relay passes on, and what it reports about the client.

Fields of a request stand in the environ as ``HTTP_*`` (PEP 3333); they are named here by these keys.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from multisite.runner.requesthead import PROXY, is_claim

Environ = Mapping[str, Any]
Apart = Mapping[str, list[tuple[str, str]]]  # name in lower case and value of each field, by the key that joins them
NOTHING: Apart = {}

#: fields that concern one connection only (RFC 9110 section 7.6.1); of a response, in lower case
HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    ]
)

#: fields of a response, in lower case, that make a front end send any file that it may read itself: nginx, Apache's
#: mod_xsendfile, lighttpd
SENDERS = frozenset(["x-accel-redirect", "x-sendfile", "x-sendfile2", "x-lighttpd-send-file"])

#: of a request, besides: the server has answered Expect itself
_NOT_RELAYED = frozenset(
    {"HTTP_" + name.upper().replace("-", "_") for name in HOP_BY_HOP} | {"HTTP_EXPECT", "HTTP_HTTP2_SETTINGS", PROXY}
)


def drop_claims(environ: dict[str, Any], more: Collection[str] = ()) -> list[str]:
    """Remove from `environ` what an untrusted peer claims about another client, as whole families.

    Nearly always all keys are known to be harmless, which is quick to see.

    Args:
        environ: of the request.
        more: further keys that do so, always the same in one process.

    Returns:
        the keys.
    """
    if environ.keys() <= _harmless:
        return []
    dropped = []
    for key in list(environ):
        if is_claim(key) or key in more:
            del environ[key]
            dropped.append(key)
        elif len(_harmless) < _MOST_NAMES:
            _harmless.add(key)
    return dropped


def relayed(environ: Environ, trusted: bool) -> Iterator[tuple[str, str]]:
    """Yield key and value of each request header that is passed on unchanged, in the order of `environ`.

    Claims of an untrusted peer about another client are left out, as whole families.
    """
    named = connection_options(environ.get("HTTP_CONNECTION", ""))
    # A Connection field must not make a relay drop the Host of the request.
    drop = _NOT_RELAYED | {_key(name) for name in named} - {"HTTP_HOST"} if named else _NOT_RELAYED
    for key, value in environ.items():
        if key[:5] != "HTTP_" or key in drop or (not trusted and is_claim(key)):
            continue
        yield key, value


def forwarded(environ: Environ, trusted: bool) -> list[tuple[str, str]]:
    """Return key and value of the X-Forwarded-* fields that describe the client to an upstream.

    A trusted peer's own are kept, and the peer is added to the end of X-Forwarded-For. The port is the one in the
    address that the client used, since the server behind a front end listens on another one.
    """
    told = environ if trusted else {}
    address = environ.get("REMOTE_ADDR", "")
    chain = ", ".join(filter(None, (told.get("HTTP_X_FORWARDED_FOR", ""), address)))
    scheme = told.get("HTTP_X_FORWARDED_PROTO") or environ.get("wsgi.url_scheme", "http")
    host = told.get("HTTP_X_FORWARDED_HOST") or host_field(environ)
    port = told.get("HTTP_X_FORWARDED_PORT") or _port(host) or ("443" if scheme == "https" else "80")
    fields = [
        ("HTTP_X_FORWARDED_FOR", chain),
        ("HTTP_X_FORWARDED_PROTO", scheme),
        ("HTTP_X_FORWARDED_HOST", host),
        ("HTTP_X_FORWARDED_PORT", port),
    ]
    return fields if chain else fields[1:]  # the peer of a unix socket has no address


def upgrade_of(environ: Environ) -> str:
    """Return the protocol that the request wants to switch to, "" if it is not one that is passed on."""
    wanted: str = environ.get("HTTP_UPGRADE", "")
    if wanted.lower() != "websocket" or "upgrade" not in environ.get("HTTP_CONNECTION", "").lower():
        return ""
    return wanted


def to_upstream(environ: Environ, trusted: bool, apart: Apart = NOTHING) -> list[tuple[str, str]]:
    """Return all request headers for a foreign server: those relayed, and X-Forwarded-* in their place."""
    fields = dict(relayed(environ, trusted))
    fields.update(forwarded(environ, trusted))
    if not apart:
        return list(fields.items())
    return [(key, each) for key, value in fields.items() for each in _values(key, apart) or [value]]


def to_variables(environ: Environ, trusted: bool, apart: Apart = NOTHING) -> list[tuple[str, str]]:
    """Return the request headers that are relayed as variables, each once; cookies as RFC 9113 section 8.2.3 says."""
    fields = relayed(environ, trusted)
    return [
        (key, "; ".join(_values(key, apart)) if key == "HTTP_COOKIE" and key in apart else value)
        for key, value in fields
    ]


def _values(key: str, apart: Apart) -> list[str]:
    return [value for _, value in apart.get(key, ())]


def said_apart(environ: Environ, fields: Iterable[tuple[str, str]]) -> Apart:
    """Return what the environ cannot express: fields that occur more than once, have a "_" in their name, or are empty.

    Args:
        environ: of the request. Fields that were removed or changed in it since then stay so.
        fields: of the request as they came, name and value; names in any case.
    """
    names = [name for name, _ in fields]
    if len(set(names)) == len(names) and "_" not in "".join(names) and environ.get("CONTENT_TYPE") != "":
        return NOTHING
    found: dict[str, list[tuple[str, str]]] = {}
    for field, value in fields:
        key = _key(field)
        key = key[5:] if field.upper() in ("CONTENT-TYPE", "CONTENT-LENGTH") else key
        found.setdefault(key, []).append((field.lower(), value))
    return {key: said for key, said in found.items() if _is_lost(key, said) and environ.get(key) == _joined(said)}


def _is_lost(key: str, said: list[tuple[str, str]]) -> bool:
    return len(said) > 1 or "_" in said[0][0] or (key == "CONTENT_TYPE" and not said[0][1])


def _joined(said: list[tuple[str, str]]) -> str:
    return ",".join([value for _, value in said])  # as gunicorn does


def host_field(environ: Environ) -> str:
    """Return the Host field as it was sent; an HTTP/1.0 request may have none (RFC 9112 section 3.2)."""
    host: str = environ.get("HTTP_HOST", "")
    return host or f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}".rstrip(":")


def connection_options(value: str) -> list[str]:
    """Return the names that a Connection field makes hop-by-hop too, in lower case."""
    if value in ("", "close", "keep-alive", "Keep-Alive"):
        return []
    return [name for name in (part.strip().lower() for part in value.split(",")) if name]


def name(key: str) -> str:
    """Return the field name of an environ key: ``HTTP_X_REAL_IP`` is ``X-Real-Ip`` (case says nothing)."""
    known = _names.get(key)
    if known is None:
        known = key[5:].replace("_", "-").title()
        if len(_names) < _MOST_NAMES:
            _names[key] = known
    return known


_MOST_NAMES = 1024  # remembered; a client can invent as many as it likes
_names: dict[str, str] = {}
_harmless: set[str] = set()


def _key(field: str) -> str:
    return "HTTP_" + field.upper().replace("-", "_")


def _port(host: str) -> str:
    port = host.rpartition(":")[2] if ":" in host and not host.endswith("]") else ""
    return port if port.isdigit() else ""
