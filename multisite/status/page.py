"""The pages on ``status_domain``: who may see them, what they show, and what their buttons do (a WSGI application).

Each answer is whole and needs no script; the paths are `ROUTES`. `/health` is answered before anything of this is
loaded (`multisite.dispatch.statushost`).
"""

from __future__ import annotations

import importlib.resources
import json
import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs

from multisite.errors import MultisiteError, one_line
from multisite.errors.pages import phrase
from multisite.status.fence import describe
from multisite.status.web import actions, markup, signin
from multisite.status.web.admission import Admission, Visitor
from multisite.status.web.attempts import TooManyAttempts
from multisite.status.web.incidentpage import incidentpage
from multisite.status.web.markup import Html, site_path, tag
from multisite.status.web.overview import View, overview
from multisite.status.web.sheet import sheet
from multisite.status.web.sitepage import sitepage
from multisite.status.web.stream import Streams

if TYPE_CHECKING:
    from multisite.status.inventory import Inventory

Environ = dict[str, Any]
Answer = tuple[int, str, bytes, list[tuple[str, str]]]  # status, media type, body, further fields

MOST_BYTES = 140_000  # of the rows of one document; the rest is on its next page
LONGEST_FORM = 4096  # bytes
HTML, JSON, CSV = "text/html; charset=utf-8", "application/json", "text/csv; charset=utf-8"
FIELDS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_FILES = {"/status.css": "text/css; charset=utf-8", "/status.js": "text/javascript; charset=utf-8"}
_log = logging.getLogger("multisite.status")


class Subject(Protocol):
    """What the pages show: a home, or invented figures."""

    def document(self) -> dict[str, Any]:
        """Return what ``--json status`` prints."""

    def detail(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return what a site's page shows besides its row (`multisite.status.web.sitepage`)."""

    def curve(self, row: dict[str, Any]) -> Html:
        """Draw what a site did lately."""

    def incident(self, incident: str) -> dict[str, Any] | None:
        """Return what is known of an incident (`multisite.status.web.incidentpage`), None where nothing is."""

    def inventory(self) -> Inventory:
        """Return the home that the buttons act on."""


class StatusPage:
    """Answers for the host of the status pages.

    Args:
        source: of what is shown.
        admission: lets visitors in.
        has_buttons: [service] status_admin.
        metrics: returns the text of ``/metrics`` and its media type; None where there are none.
        clock: Unix seconds.
    """

    def __init__(
        self,
        source: Subject,
        admission: Admission,
        has_buttons: bool = False,
        metrics: Callable[[], tuple[str, bytes]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source, self._admission, self._has_buttons = source, admission, has_buttons
        self._metrics, self._clock = metrics, clock
        self._streams = Streams(source.document)

    def answer(self, environ: Environ, start_response: Any, forwarded: bool) -> Iterable[bytes]:
        """Answer one request (PEP 3333); `forwarded`: a front end was named in it."""
        path, method = str(environ.get("PATH_INFO", "/")), str(environ.get("REQUEST_METHOD", "GET"))
        try:
            is_stream = path == "/events" and method == "GET"
            if is_stream and self._visitor(environ, forwarded):
                return self._streams.answer(environ, start_response, FIELDS)
            answered = self._refused(path) if is_stream else self._answered(environ, path, method, forwarded)
            status, media_type, body, more = answered
        except TooManyAttempts as error:
            again = [("Retry-After", str(error.retry_after))]
            status, media_type, body, more = self._text(error.status, error.reason, again)
        except MultisiteError as error:
            status, media_type, body, more = self._text(503, error.reason)
        fields = [
            ("Content-Type", media_type),
            ("Content-Length", str(len(body))),
            *([] if any(name == "Cache-Control" for name, _ in more) else [("Cache-Control", "no-store")]),
            *FIELDS,
            *more,
        ]
        start_response(f"{status} {phrase(status)}", fields)
        return [] if method == "HEAD" else [body]

    def _answered(self, environ: Environ, path: str, method: str, forwarded: bool) -> Answer:
        if path in _FILES:
            return 200, _FILES[path], _file(path[1:]), [("Cache-Control", "max-age=300")]
        if method not in ("GET", "HEAD", "POST"):
            return self._text(405, "This page takes GET and POST only.", [("Allow", "GET, HEAD, POST")])
        if (path, method) == ("/login", "POST"):
            return self._login(environ)
        return self._admitted(environ, path, method, forwarded)

    def _admitted(self, environ: Environ, path: str, method: str, forwarded: bool) -> Answer:
        """Answer whoever may see the pages."""
        visitor = self._visitor(environ, forwarded)
        if not visitor:
            return self._refused(path)
        route, rest = _route(path)
        if not route:
            return self._text(404, "There is no such page.")
        if method == "POST":
            return self._pressed(environ, visitor, rest if route == "/site/" else "", path)
        return ROUTES[route](self, environ, rest)

    def _visitor(self, environ: Environ, forwarded: bool) -> Visitor | None:
        return self._admission.visitor(environ, self._clock(), forwarded)

    # Who may see it

    def _refused(self, path: str) -> Answer:
        status = 401 if self._admission.has_token else 403
        challenge = [("WWW-Authenticate", 'Bearer realm="multisite status"')] if status == 401 else []
        body = signin.page(path, self._admission.has_token)
        return status, HTML, body.encode(), challenge

    def _login(self, environ: Environ) -> Answer:
        given = _form(environ)
        to = signin.destination(given.get("to", ""))
        if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") != "same-origin":
            return self._text(403, "This form was sent by another site.")
        if not self._admission.is_token(given.get("token", ""), environ, self._clock()):
            body = signin.page(to, self._admission.has_token, wrong=True)
            return (401 if self._admission.has_token else 403), HTML, body.encode(), []
        cookie = self._admission.cookie(self._clock(), environ.get("wsgi.url_scheme") == "https")
        return 303, HTML, b"", [("Location", to), ("Set-Cookie", cookie)]

    # Pages

    def _overview(self, environ: Environ, _rest: str, notice: Html | None = None) -> Answer:
        view, now = View.of(str(environ.get("QUERY_STRING", ""))), self._clock()
        ask = None
        if self._has_buttons:
            token = self._admission.form_token(now)
            ask = actions.question(actions.OF_ALL, _asked(environ), "", "/", token) or actions.buttons(
                actions.OF_ALL, "/"
            )
        page = overview(self._source.document(), view, now=now, curves=self._source.curve, buttons=ask, notice=notice)
        return 200, HTML, page.encode(), []

    def _site(self, environ: Environ, name: str, notice: Html | None = None) -> Answer:
        row = self._row(name)
        if not row:
            return self._text(404, "There is no such site.")
        now, path, ask = self._clock(), site_path(name), None
        if self._has_buttons and row["enabled"]:
            token = self._admission.form_token(now)
            ask = actions.question(actions.OF_A_SITE, _asked(environ), name, path, token)
            ask = ask or actions.buttons(actions.OF_A_SITE, path)
        page = sitepage(row, self._source.detail(row), now=now, buttons=ask, notice=notice)
        return 200, HTML, page.encode(), []

    def _incident(self, _environ: Environ, incident: str) -> Answer:
        found = self._source.incident(incident)
        body = incidentpage(incident, found)
        return (200 if found else 404), HTML, body.encode(), []

    def _json(self, environ: Environ, _rest: str) -> Answer:
        document = self._source.document()
        rows, more, after = self._part(environ, document, lambda row: len(json.dumps(row)))
        told = {**{key: value for key, value in document.items() if key != "sites"}, "sites": rows}
        told |= {"total": len(document["sites"]), "next": after} if after else {}
        return 200, JSON, json.dumps(told).encode(), more

    def _csv(self, environ: Environ, _rest: str) -> Answer:
        rows, more, _ = self._part(environ, self._source.document(), lambda row: len(sheet([row], head=False)))
        name = [("Content-Disposition", 'attachment; filename="status.csv"')]
        return 200, CSV, sheet(rows).encode(), [*more, *name]

    def _part(
        self, environ: Environ, document: dict[str, Any], weigh: Callable[[dict[str, Any]], int]
    ) -> tuple[list[dict[str, Any]], list[tuple[str, str]], str]:
        """Return those rows that fit into one answer, the field that names the next answer, and its address."""
        query = str(environ.get("QUERY_STRING", ""))
        view, begin = View.of(query), _start(query)
        rows = view.chosen(document["sites"]) if view.query else document["sites"]
        size, end = 0, begin
        while end < len(rows):
            size += weigh(rows[end]) + 2
            if size > MOST_BYTES and end > begin:
                break
            end += 1
        if end >= len(rows):
            return rows[begin:end], [], ""
        after = f"{environ['PATH_INFO']}?{'&'.join(filter(None, (view.query[1:], f'start={end}')))}"
        return rows[begin:end], [("Link", f'<{after}>; rel="next"')], after

    def _metric(self, _environ: Environ, _rest: str) -> Answer:
        if not self._metrics:
            return self._text(404, "This server has no metrics.")
        media_type, body = self._metrics()
        return 200, media_type, body, []

    # Buttons

    def _pressed(self, environ: Environ, visitor: Visitor, name: str, path: str) -> Answer:
        """Do what a form says, if it is one of ours, and show the page again."""
        given = _form(environ)
        word, words = given.get("do", ""), actions.OF_A_SITE if name else actions.OF_ALL
        if not self._has_buttons:
            return self._text(403, "The buttons are off; [service] status_admin = yes in moya.conf turns them on.")
        if not self._admission.may_act(environ, visitor, given.get("form", ""), self._clock()):
            return self._text(403, "This form was not sent by the page itself. Open the page again and try once more.")
        row = self._row(name) if name else None
        if word not in words or (name and not (row and row["enabled"])):
            return self._text(404, "There is nothing like that to do.")
        whom = name or "the configuration"
        try:
            done = actions.act(self._source.inventory(), word, str(row.get("template") or name) if row else "")
        except (MultisiteError, OSError) as error:
            reason = error.reason if isinstance(error, MultisiteError) else describe(error)
            _log.warning("MS821 status page: %s of %s by %s failed: %s", word, whom, visitor.name, reason)
            return self._text(409, f"That was not done: {reason}")
        _log.warning("MS822 status page: %s of %s by %s", word, one_line(whom), one_line(visitor.name))
        notice = tag("div", tag("p", f"✔ {done}"), class_="notice", role="status")
        environ = {**environ, "QUERY_STRING": ""}
        shown = self._site(environ, name, notice) if name and self._row(name) else self._overview(environ, "", notice)
        return shown

    def _row(self, name: str) -> dict[str, Any] | None:
        return next((row for row in self._source.document()["sites"] if row["name"] == name), None)

    @staticmethod
    def _text(status: int, reason: str, fields: list[tuple[str, str]] | None = None) -> Answer:
        title = phrase(status)
        body = [tag("h1", title), tag("p", reason), tag("p", tag("a", "All sites", href="/"))]
        return status, HTML, markup.page(title, body).encode(), fields or []


Handler = Callable[[StatusPage, Environ, str], Answer]
#: paths; what ends in a slash has a name behind it
ROUTES: dict[str, Handler] = {
    "/": StatusPage._overview,
    "/site/": StatusPage._site,
    "/incident/": StatusPage._incident,
    "/status.json": StatusPage._json,
    "/status.csv": StatusPage._csv,
    "/metrics": StatusPage._metric,
}


def _route(path: str) -> tuple[str, str]:
    """Return which route a path has, "" for none, and what follows it."""
    if path in ROUTES and path not in ("/site/", "/incident/"):
        return path, ""
    for route in ("/site/", "/incident/"):
        rest = path.removeprefix(route)
        if path.startswith(route) and rest:
            return route, rest.encode("latin-1", "replace").decode("utf-8", "surrogateescape")  # PEP 3333
    return "", ""


def _asked(environ: Environ) -> str:
    """Return the word of the button whose question is asked."""
    found = re.search(r"(?:^|&)ask=([a-z]+)(?:&|$)", str(environ.get("QUERY_STRING", "")))
    return found[1] if found else ""


def _start(query: str) -> int:
    found = re.search(r"(?:^|&)start=([0-9]{1,6})(?:&|$)", query)
    return int(found[1]) if found else 0


def _form(environ: Environ) -> dict[str, str]:
    """Return the fields of a form that was sent; nothing of one that is too large or no form."""
    length = str(environ.get("CONTENT_LENGTH") or "")
    kind = str(environ.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()
    if not (length.isascii() and length.isdigit()) or int(length) > LONGEST_FORM:
        return {}
    if kind != "application/x-www-form-urlencoded":
        return {}
    text = environ["wsgi.input"].read(int(length)).decode("utf-8", "replace")
    try:
        return {key: values[0] for key, values in parse_qs(text, max_num_fields=10).items()}
    except ValueError:
        return {}


def _file(name: str) -> bytes:
    return (importlib.resources.files("multisite.status.web") / "static" / name).read_bytes()
