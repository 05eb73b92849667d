"""A visitor with cookies, who notes all that comes back but what is never the same twice."""

from __future__ import annotations

import http.client
import re
import socket
import urllib.parse
from dataclasses import dataclass, field

from tests.servers.harness import PATIENCE

# The server's own, or about the connection and not the answer.
NOT_COMPARED = {"date", "server", "connection", "keep-alive"}
CHANGING = {"set-cookie", "expires", "last-modified", "etag"}  # in time, or by a token: the name alone counts
# Tokens, nonces, signatures, times to the second and spans of time.
TOKEN = re.compile(
    r"[A-Za-z0-9_.-]{24,}|\b[0-9a-f]{12,}\b|\b\d{9,}(?:\.\d+)?\b|\d{14}##[0-9a-f]+"
    r"|\d{4}-\d\d-\d\dT[\d:%A.]+Z?"
    r"|\d{1,2}:\d{2}(?::\d{2})?(?:\.\d+)?(?:\s[AP]M)?|\d+\.\d{3,}"
    r"|(?:\ban?|\d+(?:\.\d+)?)\s(?:milli)?(?:second|minute|hour)s?(?: ago)?|[Jj]ust now"
)
CLASSES = re.compile(r'(?<=class=")[^"]*')  # Wagtail takes some from a set, whose order is the process's own


@dataclass(frozen=True)
class Said:
    """One answer; names of fields in lower case."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


@dataclass
class Visitor:
    """Who asks one server for app.test, each time on a connection of its own."""

    port: int
    last: Said = field(init=False)
    notes: list[tuple[str, object]] = field(default_factory=list)
    cookies: dict[str, str] = field(default_factory=dict)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def ask(
        self, target: str, method: str = "GET", fields: dict[str, str] | None = None,
        *, form: dict[str, str] | None = None, body: bytes = b"",
    ) -> None:  # fmt: skip
        """One request, noted with its answer as far as two servers have to agree on it."""
        wire = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        body = urllib.parse.urlencode(form).encode() if form else body
        headers = {"host": "app.test", "referer": "http://app.test/", **(fields or {})}
        if self.cookies:
            headers["cookie"] = self.cookie()
        wire.request(method, target, body or None, headers)
        answer = wire.getresponse()
        self.last = Said(answer.status, tuple((n.lower(), v) for n, v in answer.getheaders()), answer.read())
        wire.close()
        for name, value in self.last.fields:
            if name == "set-cookie":
                key, _, content = value.partition(";")[0].partition("=")
                self.cookies[key] = content
        self.note(f"{method} {target}", comparable(self.last))

    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def found(self, pattern: str) -> str:
        """What the group of this pattern matches in the last answer."""
        match = re.search(pattern, self.last.text)
        assert match, f"no {pattern} in {self.last}"
        return match[1]

    def note(self, what: str, heard: object) -> None:
        self.notes.append((what, heard))


def comparable(said: Said) -> dict[str, object]:
    """An answer without what differs from one visit to the next."""
    fields = []
    for name, value in said.fields:
        if name in NOT_COMPARED:
            continue
        shown = TOKEN.sub("…", value)
        if name == "set-cookie":  # which, and how it may be used
            key, _, rest = value.partition("=")
            shown = f"{key}={re.sub('(?i)^[^;]*|expires=[^;]*', '…', rest)}"
        elif name in CHANGING or (name == "content-length" and TOKEN.search(said.text)):  # tokens differ in length
            shown = "…"
        fields.append((name, shown))
    return {"status": said.status, "fields": sorted(fields), "body": CLASSES.sub(_sorted, TOKEN.sub("…", said.text))}


def _sorted(classes: re.Match[str]) -> str:
    return " ".join(sorted(classes[0].split()))
