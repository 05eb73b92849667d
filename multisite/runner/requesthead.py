"""The head of a request in HTTP/1, as front ends write it.

gunicorn accepts everything that is read here, too, and makes the same environ from it (a test compares them); whatever
is less plain is left to gunicorn's own parser, which knows what is dangerous. So a site behind a front end needs no
gunicorn in its memory until a client sends chunks or nonsense.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any


LONGEST = 4000  # of a head; gunicorn takes at least a line of that
MOST_FIELDS = 90
END = b"\r\n\r\n"

_LINE = re.compile(r"([A-Z]{3,20}) (/(?!/)[!-\"$-~]*) (HTTP/1\.[01])")
_NAME = re.compile(r"[A-Za-z0-9-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_OTHERWISE = frozenset({"HTTP_TRANSFER_ENCODING", "HTTP_EXPECT"})  # gunicorn's to understand
_MOST_KEYS = 1000
_keys: dict[str, str] = {}
_PORTS = {"http": "80", "https": "443"}

#: by which a front end reports that the client uses https: gunicorn's ``secure_scheme_headers``
SCHEMES = (("HTTP_X_FORWARDED_PROTO", "https"), ("HTTP_X_FORWARDED_PROTOCOL", "ssl"), ("HTTP_X_FORWARDED_SSL", "on"))
_ONCE = frozenset({"HTTP_HOST", "CONTENT_TYPE", "CONTENT_LENGTH", *(key for key, _ in SCHEMES)})

#: what front ends report about their client under names other than X-Forwarded-*: mod_wsgi's families, in
#: WSGITrustedProxyHeaders; RFC 7239; gunicorn's `forwarder_headers`
CLAIMS = frozenset(
    [
        "HTTP_FORWARDED",
        "HTTP_X_CLIENT_IP",
        "HTTP_X_REAL_IP",
        "HTTP_X_HTTPS",
        "HTTP_X_SCHEME",
        "HTTP_X_HOST",
        "HTTP_X_SCRIPT_NAME",
        "HTTP_SCRIPT_NAME",
        "HTTP_PATH_INFO",
    ]
)
FAMILY = "HTTP_X_FORWARDED_"

#: CGI-like programs take this field for their HTTP_PROXY, and send what they ask for there (CVE-2016-5387)
PROXY = "HTTP_PROXY"

#: the address of a trusted front end; on a unix socket it has none
TRUSTED_PEER = "127.0.0.1"
RAW = ("RAW_URI", "REQUEST_URI")  # the target as it was sent: gunicorn's name; that of uWSGI, mod_wsgi and waitress
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(.*)", re.DOTALL)


def bounds(limits: dict[str, int]) -> tuple[int, int]:
    """Return how many characters and fields a head may have to be within gunicorn's `limits` in any case."""
    sizes = [limits.get(name, 0) for name in ("limit_request_line", "limit_request_field_size")]
    fields = limits.get("limit_request_fields", 0)
    longest = min([LONGEST, *(size for size in sizes if size > 0)])
    return longest, min(MOST_FIELDS, fields) if fields > 0 else MOST_FIELDS


def environ_of(
    head: bytes,
    is_trusted: bool,
    longest: int = LONGEST,
    most_fields: int = MOST_FIELDS,
    more_claims: Collection[str] = (),
) -> dict[str, Any] | None:
    """Return the strings of the environ; None if gunicorn has to read the head.

    Args:
        head: all up to the empty line.
        is_trusted: whether the front end's statements about its client are believed.
        longest, most_fields: gunicorn judges what is larger.
        more_claims: further keys of statements about the client.
    """
    text = head.decode("latin-1")
    first, *lines = text.split("\r\n")
    line = _LINE.fullmatch(first)
    count = len(lines)
    if not line or len(text) > longest or count > most_fields or _CONTROL.search(text):
        return None
    if text.count("\n") != count or text.count("\r") != count:
        return None
    method, target, protocol = line.groups()
    path, _, query = target.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "QUERY_STRING": query,
        "RAW_URI": target,
        "SERVER_PROTOCOL": protocol,
        "SCRIPT_NAME": "",
        "PATH_INFO": _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), path) if "%" in path else path,
    }
    if not _add(lines, environ):
        return None
    introduce(environ, is_trusted, more_claims)
    said = {"https" if environ[key] == word else "http" for key, word in SCHEMES if key in environ}
    if len(said) > 1:  # which gunicorn refuses
        return None
    environ["wsgi.url_scheme"] = min(said, default="http")
    # On a unix socket the server has the name and port that the client asked for.
    name, *port = environ["HTTP_HOST"].split(":")
    environ["SERVER_NAME"] = name
    environ["SERVER_PORT"] = port[0] if port else _PORTS[environ["wsgi.url_scheme"]]
    return environ


def _add(lines: list[str], environ: dict[str, Any]) -> bool:
    """Add the fields; return whether all of them are plain."""
    for line in lines:
        name, colon, value = line.partition(":")
        key = _keys.get(name) or _key(name)
        if not key or not colon:
            return False
        value = value.strip(" \t")
        if key in environ:
            if key in _ONCE:
                return False
            value = f"{environ[key]},{value}"
        environ[key] = value
    length = environ.get("CONTENT_LENGTH", "0")
    return bool(environ.get("HTTP_HOST")) and length.isascii() and length.isdigit()


def _key(name: str) -> str:
    if not _NAME.fullmatch(name):
        return ""
    key = "HTTP_" + name.upper().replace("-", "_")
    if key in _OTHERWISE:
        return ""
    if key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
        key = key[5:]
    if len(_keys) < _MOST_KEYS:
        _keys[name] = key
    return key


def introduce(environ: dict[str, Any], is_trusted: bool, more_claims: Collection[str] = ()) -> None:
    """Add who the client is, and drop fields that nobody, or not this peer, may send."""
    environ.pop(PROXY, None)
    if not is_trusted:
        for key in [key for key in environ if is_claim(key) or key in more_claims]:
            del environ[key]
    environ["REMOTE_ADDR"] = TRUSTED_PEER if is_trusted else ""


def is_claim(key: str) -> bool:
    """Tell whether the field with this key is a statement about someone other than the peer."""
    return key[:17] == FAMILY or key in CLAIMS


def split_target(target: str) -> tuple[str, str] | None:
    """Return the authority of a target in absolute form, and the rest of it in origin form; None for any other.

    It is for proxies, but every server has to accept it. An empty path is ``/`` (RFC 9112 section 3.2.1).
    """
    absolute = _ABSOLUTE.fullmatch(target)
    if not absolute:
        return None
    authority, rest = absolute.groups()
    return authority, rest if rest[:1] == "/" else f"/{rest}"


def resolve_target(environ: dict[str, Any]) -> None:
    """Put a target in absolute form into origin form, and its authority in place of Host.

    The authority is the host, whatever Host says (RFC 9112 section 3.2.2).
    """
    for key in RAW:
        found = split_target(environ.get(key, ""))
        if found:
            environ["HTTP_HOST"], environ[key] = found
            if not environ.get("SCRIPT_NAME") and not environ.get("PATH_INFO"):
                environ["PATH_INFO"] = "/"
