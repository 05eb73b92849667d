"""HTTP/1.1 (RFC 9112) from the side of a client: the head of a request, and the head of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote

from multisite.errors import BadRequest, UpstreamProtocolError
from multisite.proxy.headers import HOP_BY_HOP, connection_options, host_field, name
from multisite.proxy.wire.framing import Body, Chunked, Sized, UntilClose

LARGEST_HEAD = 65536  # bytes of an answer's head; nginx takes 4 or 8 KiB, Apache 8 KiB a line, h11 16 KiB
MOST_FIELDS = 500
NO_CONTENT = (204, 304)

_TEXT = r"[^\0-\x08\n-\x1f\x7f]*"  # no control character but tab
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 section 5.6.2
_END = re.compile(rb"\n\r?\n")  # RFC 9112 section 2.2: a recipient may take a bare LF for the end of a line
_STATUS = re.compile(rf"HTTP/1\.([01]) ([1-9]\d\d)(?: ({_TEXT}))?", re.ASCII)
_FIELDS = re.compile(rf"(?:{_TOKEN}:{_TEXT}\n)*")
_LINE = re.compile(rf"{_TOKEN}:{_TEXT}")
_FIELD = re.compile(r"([^:\n]+):([^\n]*)\n")
_SPACED = re.compile(rf"^({_TOKEN})[ \t]+:", re.MULTILINE)
_LENGTH = re.compile(r"[0-9]{1,18}")
_TIMES = "multisite-times"  # in which our own runner says when the application had the request
_NOT_KNOWN = frozenset({"set-cookie", "etag", "last-modified", "date", "location", "expires", _TIMES})  # seldom twice

#: fields of an answer that are not passed on unchanged, in lower case: CGI-like programs leave Status in, and some
#: servers obey it
DROPPED = HOP_BY_HOP | {"status", _TIMES}
_LENGTH_FIELD = "content-length"

_Field = tuple[str, tuple[str, str]]  # the name in lower case; name and value as they are passed on


class Head(NamedTuple):
    """The head of an answer: the part that is passed on, and the part that says where the body ends."""

    code: int
    status: str  # as WSGI has it: "200 OK"
    fields: list[tuple[str, str]]  # without the hop-by-hop ones
    length: int | None
    chunked: bool
    times: str = ""  # when the application had the request (`multisite.logs.requests`), if it says so


def encode(
    environ: Mapping[str, Any],
    fields: Iterable[tuple[str, str]],
    length: int | None,
    chunked: bool = False,
    upgrade: str = "",
) -> bytes:
    """Return the head of a request; its body follows.

    Args:
        environ: of the request.
        fields: its header fields that are passed on, under their ``HTTP_*`` keys.
        length: of the body in bytes, None where none is said.
        chunked: whether the body is sent in chunks.
        upgrade: the protocol to switch to on this connection, if the other side agrees.

    Raises:
        BadRequest: a control character would make another request out of it.
    """
    lines = [f"{environ['REQUEST_METHOD']} {raw_target(environ)} HTTP/1.1"]
    if not environ.get("HTTP_HOST"):
        lines.append(f"Host: {host_field(environ)}")
    lines += [f"{name(key)}: {value}" for key, value in fields if value or key != "HTTP_HOST"]
    if environ.get("CONTENT_TYPE"):
        lines.append(f"Content-Type: {environ['CONTENT_TYPE']}")
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    elif length is not None:
        lines.append(f"Content-Length: {length}")
    lines.append(f"Upgrade: {upgrade}\r\nConnection: Upgrade\r\n\r\n" if upgrade else "Connection: close\r\n\r\n")
    head = "\r\n".join(lines)
    ends = len(lines) + (2 if upgrade else 1)
    if head.count("\n") != ends or head.count("\r") != ends or "\0" in head:
        raise BadRequest("The request has a control character in its header fields")
    return head.encode("latin-1")


def parse_head(data: bytes, dropped: frozenset[str] = DROPPED) -> tuple[Head, bytes] | None:
    """Return the head at the beginning of `data` and what comes after it; None while it is not whole.

    Args:
        data: what was received so far.
        dropped: fields to leave out, in lower case: `DROPPED`, or more than these.

    Raises:
        UpstreamProtocolError: it is not the head of an HTTP/1.x answer, or too large.
    """
    at = data.find(b"\r\n\r\n", 0, LARGEST_HEAD + 4)
    if at > 0:
        plain = _plain_head(data[:at].decode("latin-1"), dropped)
        if plain:
            return plain, data[at + 4 :]
    end = _END.search(data, 0, LARGEST_HEAD + 4)
    if not end:
        if len(data) > LARGEST_HEAD:
            raise UpstreamProtocolError(f"the head of the answer is larger than {LARGEST_HEAD} bytes")
        if data[:5] != b"HTTP/"[: len(data)]:
            raise UpstreamProtocolError(f"the answer is not HTTP: {data[:20]!r}")
        return None
    text = data[: end.start() + 1].decode("latin-1").replace("\r\n", "\n")
    first, _, lines = text.partition("\n")
    status = _status_of(first.replace("\t", " "))  # PEP 3333 has no control character in a status
    if not status:
        raise UpstreamProtocolError(f"the answer is not HTTP/1.x: {first[:40]!r}")
    return _head(*status, _fields(lines), dropped), data[end.end() :]


def body_of(head: Head, method: str, forgive: bool) -> Body:
    """Return how the body of an answer is read (RFC 9112 section 6.3).

    Args:
        head: of the answer.
        method: of the request.
        forgive: whether a reset may end a body that is not framed (see `UntilClose`).
    """
    if method == "HEAD" or head.code in NO_CONTENT:
        return Sized(0)
    if head.chunked:
        return Chunked()
    return UntilClose(forgive) if head.length is None else Sized(head.length)


def _plain_head(text: str, dropped: frozenset[str]) -> Head | None:
    """Return a head in which every line is well formed and ends as it should, None for any other.

    Sites send the same lines again and again, so that most are known.
    """
    first, *lines = text.split("\r\n")
    status = _known_statuses.get(first) or _status_of(first)
    if not status or len(lines) > MOST_FIELDS:
        return None
    fields = []
    for line in lines:
        known = _known_lines.get(line) or _plain_line(line)
        if not known:
            return None
        fields.append(known)
    return _head(*status, fields, dropped)


_MOST_KNOWN = 1024  # lines remembered, of at most so many characters
_LONGEST_KNOWN = 100
_known_lines: dict[str, _Field] = {}
_known_statuses: dict[str, tuple[int, str, str]] = {}


def _status_of(line: str) -> tuple[int, str, str] | None:
    """Return the code, the status as WSGI has it, and the minor version."""
    match = _STATUS.fullmatch(line)
    if not match or "\t" in line:
        return None
    code = int(match[2])
    phrase = match[3] or (HTTPStatus(code).phrase if code in HTTPStatus._value2member_map_ else "Unknown")
    status = code, f"{code} {phrase}", match[1]
    if len(_known_statuses) < _MOST_KNOWN and len(line) <= _LONGEST_KNOWN:
        _known_statuses[line] = status
    return status


def _plain_line(line: str) -> _Field | None:
    if not _LINE.fullmatch(line):
        return None
    field, _, value = line.partition(":")
    known = field.lower(), (field, value.strip(" \t"))
    if len(line) <= _LONGEST_KNOWN and known[0] not in _NOT_KNOWN:
        if len(_known_lines) >= _MOST_KNOWN:
            _known_lines.clear()
        _known_lines[line] = known
    return known


def _fields(lines: str) -> list[_Field]:
    if not _FIELDS.fullmatch(lines):
        lines = _repaired(lines)
    found = _FIELD.findall(lines)
    if len(found) > MOST_FIELDS:
        raise UpstreamProtocolError(f"the answer has more than {MOST_FIELDS} header fields")
    return [(field.lower(), (field, value.strip(" \t"))) for field, value in found]


def _repaired(lines: str) -> str:
    """Remove white space before colons, as a relay does (RFC 9112 section 5.1); refuse anything else."""
    lines = _SPACED.sub(r"\1:", lines)
    good = _FIELDS.match(lines)
    wrong = lines[good.end() :] if good else lines
    if wrong:
        what = "a folded header field" if wrong[0] in " \t" else "a wrong header field"  # section 5.2
        raise UpstreamProtocolError(f"the answer has {what}: {wrong.partition(chr(10))[0][:40]!r}")
    return lines


def _head(code: int, status: str, minor: str, found: list[_Field], dropped: frozenset[str]) -> Head:
    """Return a head with the fields that are passed on; what is about the connection or the length is obeyed."""
    fields: list[tuple[str, str]] = []
    special: dict[str, list[str]] = {}
    for lower, field in found:
        if lower in dropped or lower == _LENGTH_FIELD:
            special.setdefault(lower, []).append(field[1])
        if lower not in dropped:
            fields.append(field)
    chunked = _is_chunked(special["transfer-encoding"], minor) if "transfer-encoding" in special else False
    length = None
    if _LENGTH_FIELD in special:
        if chunked:
            raise UpstreamProtocolError("the answer has both Transfer-Encoding and Content-Length")
        length = _length(special[_LENGTH_FIELD])
    named = connection_options(",".join(special["connection"])) if "connection" in special else None
    if named:
        fields = [(field, value) for field, value in fields if field.lower() not in named]
    has_none = code < 200 or code == 204  # RFC 9110 section 8.6
    if length is not None and (has_none or special[_LENGTH_FIELD] != [str(length)]):
        fields = _with_length(fields, None if has_none else length)
    return Head(code, status, fields, length, chunked, special[_TIMES][0] if _TIMES in special else "")


def _with_length(fields: list[tuple[str, str]], length: int | None) -> list[tuple[str, str]]:
    """Return the fields with one Content-Length where the first was; without any for None."""
    found: list[tuple[str, str]] = []
    for field, value in fields:
        if field.lower() != _LENGTH_FIELD:
            found.append((field, value))
        elif length is not None:
            found.append((field, str(length)))
            length = None
    return found


def _is_chunked(values: list[str], minor: str) -> bool:
    # RFC 9112 section 6.1: no HTTP/1.0 answer has it; any other coding was not asked for.
    if ",".join(values).strip().lower() != "chunked" or minor == "0":
        raise UpstreamProtocolError(f"the answer has an unknown Transfer-Encoding: {values[0][:40]!r}")
    return True


def _length(values: list[str]) -> int:
    # RFC 9112 section 6.3: a list of the same value is that value.
    if len(values) == 1 and _LENGTH.fullmatch(values[0]):
        return int(values[0])
    first, *others = ",".join(values).split(",")
    if not _LENGTH.fullmatch(first) or any(other.strip() != first for other in others):
        raise UpstreamProtocolError(f"the answer has a wrong Content-Length: {', '.join(values)[:40]!r}")
    return int(first)


def raw_target(environ: Mapping[str, Any]) -> str:
    """Return path and query undecoded, so that ``%2F``, ``//`` and ``;`` stay what they are.

    gunicorn tells it as RAW_URI; uWSGI, mod_wsgi and waitress as REQUEST_URI. Elsewhere it is made of SCRIPT_NAME
    and PATH_INFO, where an encoded slash looks like a plain one.
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
