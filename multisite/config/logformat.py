"""The content of a line of an access log, and where log lines may go besides a file (pure)."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Mapping
from typing import NamedTuple

COMBINED = (
    '{remote} - {user} [{time}] "{method} {uri} {protocol}" {status} {bytes} "{referer}" "{agent}" '
    "{site} {seconds} {how}"
)
#: the fields of a format, written in braces, and their meaning
FIELDS = {
    "remote": "address of the client; behind a trusted proxy, the one that the proxy names",
    "peer": "address of the peer that connected to the server",
    "user": "the user, as the server or the application names it, or -",
    "time": "when the request arrived, as Apache writes it",
    "iso": "the same as 2026-11-21T09:14:02+01:00",
    "method": "of the request",
    "uri": "path and query, as they were sent",
    "protocol": "HTTP/1.1 and the like",
    "scheme": "http or https",
    "host": "the Host field",
    "status": "of the answer; 499 if the client left before there was one",
    "bytes": "of the answer's body that were passed on",
    "referer": "the Referer field, or -",
    "agent": "the User-Agent field, or -",
    "site": "name of the site",
    "seconds": "from the request to the end of the answer",
    "how": "in-process, spawned, proxy, static or page, with ,cut added if the answer did not arrive complete",
    "pid": "process id of the worker",
}
_HEADER = "http_"
_AS_JSON = (
    "iso", "site", "remote", "user", "method", "host", "uri", "protocol", "status", "bytes", "seconds", "how",
    "referer", "agent",
)  # fmt: skip
_NUMBERS = frozenset({"status", "bytes", "seconds", "pid"})
_UNSAFE = re.compile(r'[^\x20-\x7e]|["\\]')

_encode = json.JSONEncoder(separators=(",", ":")).encode

Line = Callable[[Mapping[str, str]], str]


def parse(text: str) -> tuple[tuple[str, str], ...]:
    """Read a format into pairs of plain text and the field behind it, "" at the end.

    Raises:
        ValueError: it names an unknown field, or its braces are not in pairs.
    """
    found = []
    for plain, name, spec, conversion in string.Formatter().parse(COMBINED if text == "combined" else text):
        if name is None:
            found.append((plain, ""))
            continue
        if spec or conversion or not (name in FIELDS or re.fullmatch(r"http_[a-z0-9_]+", name)):
            raise ValueError(f"there is no field {{{name}}}; the fields are {', '.join(FIELDS)} and http_NAME")
        found.append((plain, name))
    return tuple(found)


def line_of(text: str) -> Line:
    """Return a function that turns the values of a request into a line, without its end.

    No value can end a line or leave its quotes: quotes, backslashes and all that is not printable ASCII are escaped.
    """
    if text == "json":
        return _json_line
    template = "".join(plain.replace("%", "%%") + (f"%({name})s" if name else "") for plain, name in parse(text))
    return template.__mod__


def _json_line(values: Mapping[str, str]) -> str:
    found = {name: _number(values[name]) if name in _NUMBERS else values[name] for name in _AS_JSON}
    return _encode(found)


def _number(text: str) -> float:
    return float(text) if "." in text else int(text)


def plain(value: str) -> str:
    """Escape a value that a client may have chosen."""
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return value
    return _UNSAFE.sub(_escaped, value)


def word(value: str) -> str:
    """Escape a value that must stay one word, although a client may send blanks in it."""
    return plain(value).replace(" ", "\\x20")


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    if char in '"\\':
        return "\\" + char
    return f"\\x{ord(char):02x}" if ord(char) < 256 else char.encode("unicode_escape").decode()


def decoded(value: str) -> str:
    """Return a value of the environ as UTF-8 text, for JSON, which escapes by itself."""
    if value.isascii():
        return value
    return value.encode("latin-1", "backslashreplace").decode("utf-8", "backslashreplace")


def headers_of(text: str) -> dict[str, str]:
    """Return the environ's key of each field ``http_NAME`` of a format."""
    return {name: name.upper() for _, name in parse("" if text == "json" else text) if name.startswith(_HEADER)}


class Syslog(NamedTuple):
    """A syslog daemon: `host` "" is this machine."""

    facility: str
    host: str = ""
    port: int = 514


_USUAL = ("auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news", "syslog", "user", "uucp")
FACILITIES = (*_USUAL, *(f"local{number}" for number in range(8)))


def parse_syslog(target: str) -> Syslog | None:
    """Read ``syslog:``, ``syslog:local0`` or ``syslog:local0@HOST:PORT``; None for a path.

    Raises:
        ValueError: it is none of these.
    """
    if not target.startswith("syslog:"):
        return None
    facility, _, address = target[7:].partition("@")
    host, _, port = address.partition(":")
    if facility and facility not in FACILITIES:
        raise ValueError(f"{facility} is not a facility; {', '.join(FACILITIES)} are")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("its port is not a number from 1 to 65535")
    return Syslog(facility or "daemon", host, int(port or 514))
