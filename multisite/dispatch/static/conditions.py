"""Conditional and partial requests (RFC 9110 sections 13 and 14), pure.

The usual ones, in which a client repeats what it was told, are answered by comparing text;
werkzeug reads all others, and is imported for the first of them.
"""

from __future__ import annotations

from typing import Any

from multisite.dispatch.static.representation import Representation

MOST_RANGES = 8  # more in one request get the whole file: nobody needs them, and each costs more than it saves

Span = tuple[int, int]  # first byte, and the one after the last


def status_of(environ: dict[str, Any], told: Representation) -> int:
    """Return 200, 304 or 412 for a GET or HEAD request, by the precedence of RFC 9110 section 13.2.2."""
    if_match = environ.get("HTTP_IF_MATCH")
    if if_match:
        if not _names(if_match, told.etag, weakly=False):
            return 412
    elif (since := environ.get("HTTP_IF_UNMODIFIED_SINCE")) and _is_newer(told, since):
        return 412
    none_match = environ.get("HTTP_IF_NONE_MATCH")
    if none_match:
        return 304 if _names(none_match, told.etag, weakly=True) else 200
    since = environ.get("HTTP_IF_MODIFIED_SINCE")
    return 304 if since and _is_newer(told, since) is False else 200


def _names(field: str, etag: str, *, weakly: bool) -> bool:
    if field == etag:
        return True
    from werkzeug.http import parse_etags

    tags = parse_etags(field)
    return tags.contains_weak(etag[1:-1]) if weakly else tags.contains(etag[1:-1])


def _is_newer(told: Representation, date: str) -> bool | None:
    """Tell whether the file was changed after `date`; None where that is no date."""
    if date == told.modified:
        return False
    from werkzeug.http import parse_date

    parsed = parse_date(date)
    return None if parsed is None else told.seconds > int(parsed.timestamp())


def spans_of(environ: dict[str, Any], told: Representation) -> list[Span] | None:
    """Return the parts of the file that are asked for: None for the whole, none of them for a 416 answer."""
    field = environ.get("HTTP_RANGE")
    if not field or environ["REQUEST_METHOD"] != "GET" or not _still_the_same(environ, told):
        return None
    from werkzeug.http import parse_range_header

    parsed = parse_range_header(field)
    if parsed is None or parsed.units != "bytes" or len(parsed.ranges) > MOST_RANGES:
        return None
    size = told.size
    spans = [
        (start, size if stop is None else min(stop, size)) if start >= 0 else (max(0, size + start), size)
        for start, stop in parsed.ranges
    ]
    return [span for span in spans if span[0] < span[1]]


def _still_the_same(environ: dict[str, Any], told: Representation) -> bool:
    """Tell whether If-Range, where there is one, lets a part be sent (RFC 9110 section 13.1.5)."""
    field = environ.get("HTTP_IF_RANGE")
    return not field or field.strip() in (told.etag, told.modified)
