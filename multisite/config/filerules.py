"""How static files are served, by the ``static_*`` options (pure)."""

from __future__ import annotations

import fnmatch
import mimetypes
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import quote_from_bytes

#: types that no interpreter before 3.13 knows, or knows differently from today's browsers
NEWER_TYPES = {
    ".avif": "image/avif",
    ".br": "application/x-brotli",
    ".gz": "application/gzip",
    ".js": "text/javascript",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".zst": "application/zstd",
}
UNKNOWN_TYPE = "application/octet-stream"
_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?:\s*;\s*[\w-]+=[\w.+-]+)?", re.ASCII)
_SENDERS = {"x-sendfile": "X-Sendfile", "x-accel-redirect": "X-Accel-Redirect"}


class Expiry(NamedTuple):
    """How long files that match a pattern stay fresh; the pattern "" matches everything."""

    pattern: str
    seconds: int


def parse_expiry(item: str, duration: Callable[[str], float]) -> Expiry:
    """Read ``1h`` or ``*.woff2 30d``.

    Raises:
        ValueError: it is neither.
    """
    *pattern, text = item.split()
    if len(pattern) > 1:
        raise ValueError(f"{item!r} is neither a duration nor a pattern and a duration")
    return Expiry(pattern[0] if pattern else "", int(duration(text)))


def freshness(expiries: Iterable[Expiry], path: str) -> int | None:
    """Return the seconds that the answer for a URL path stays fresh; the first pattern that matches decides."""
    usual = None
    for pattern, seconds in expiries:
        if not pattern:
            usual = seconds
        elif fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path.rpartition("/")[2], pattern):
            return seconds
    return usual


def parse_type(item: str) -> tuple[str, str]:
    """Read ``.md text/markdown``.

    Raises:
        ValueError: it is no extension and media type.
    """
    extension, _, media_type = item.partition(" ")
    if not extension.startswith(".") or "/" in extension or not _TYPE.fullmatch(media_type.strip()):
        raise ValueError(f"{item!r} is not an extension and a media type, such as .md text/markdown")
    return extension.lower(), media_type.strip()


class MediaTypes:
    """Media types by file extension: the standard library's, the newer ones, and `more`.

    The machine's own tables are not used, so that a site is served in the same way everywhere.
    """

    def __init__(self, more: Iterable[tuple[str, str]] = ()) -> None:
        known = mimetypes.MimeTypes()  # `types_map` would be the module's, which may have read /etc/mime.types
        self._types = {**known.types_map[True], **NEWER_TYPES, **dict(more)}

    def of(self, name: str) -> str:
        """Return the Content-Type of a file; text is UTF-8."""
        dot = name.rfind(".")
        found = self._types.get(name[dot:].lower(), UNKNOWN_TYPE) if dot >= 0 else UNKNOWN_TYPE
        return f"{found}; charset=utf-8" if found[:5] == "text/" and "charset" not in found else found


_AMBIGUOUS = re.compile(rb"[\x00-\x1f\x7f%]")


class Sender(NamedTuple):
    """The response header that makes a front end send a file itself, and the prefix of its path."""

    header: str
    prefix: str

    def value(self, path: bytes) -> str:
        """Return what the header says of a file; "" where front ends do not agree about it.

        nginx decodes what it is told, mod_xsendfile 0.12 does not, mod_xsendfile 1.0 and lighttpd do.
        """
        if self.header == "X-Accel-Redirect":
            return self.prefix + quote_from_bytes(path)
        return "" if _AMBIGUOUS.search(path) else path.decode("latin-1")


def parse_sender(text: str) -> Sender | None:
    """Read ``x-sendfile`` or ``x-accel-redirect /PREFIX``; None for "".

    Raises:
        ValueError: it is neither.
    """
    header, _, prefix = text.partition(" ")
    prefix = prefix.strip()
    if not text:
        return None
    if header.lower() not in _SENDERS or (header.lower() == "x-accel-redirect") != prefix.startswith("/"):
        raise ValueError("is neither x-sendfile nor x-accel-redirect /PREFIX")
    return Sender(_SENDERS[header.lower()], prefix.rstrip("/"))


def accepted(header: str) -> dict[str, float]:
    """Return the quality of each coding in an Accept-Encoding value (RFC 9110 section 12.5.3); 0 refuses it."""
    found: dict[str, float] = {}
    for item in header.lower().split(","):
        coding, *parameters = (part.strip() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                known = re.fullmatch(r"[01](?:\.[0-9]{0,3})?", parameter[2:], re.ASCII)
                quality = float(known[0]) if known else 0.0
        if coding:
            found["gzip" if coding == "x-gzip" else coding] = quality
    return found


def best_coding(header: str, offered: Iterable[str]) -> str:
    """Return the coding of those `offered`, in our order of preference, that the client likes best.

    "" is the file as it is, which is taken where the client says it likes that better.
    """
    wanted = accepted(header)
    others = wanted.get("*", 0.0)
    best, quality = "", wanted.get("identity", 0.0)
    for coding in offered:
        liked = wanted.get(coding, others)
        if liked > quality or (liked == quality and liked and not best):
            best, quality = coding, liked
    return best
