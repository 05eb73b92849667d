"""The pages of multisite itself: errors and redirects, each a WSGI callable.

Pure: the content of a page depends on its fields and on the request's method and `Accept`.
A page never shows a path or a traceback unless it was given a `detail`, which is for debugging.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from html import escape
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from multisite.errors import (
    Asleep,
    BadHost,
    ConnectFailed,
    Forbidden,
    InMaintenance,
    MultisiteError,
    NeedsProcess,
    NoUpgrade,
    SiteBusy,
    StillStarting,
    UnknownHost,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    Headers = Iterable[tuple[str, str]]

#: status -> (title, text) of a page without a more particular text
TITLES: dict[int, tuple[str, str]] = {
    400: ("Bad request", "The server could not understand this request."),
    401: ("Sign in", "This site asks for a user name and a password."),
    403: ("Forbidden", "You may not see this page."),
    404: ("Not found", "There is no site at this address."),
    405: ("Not allowed", "This address does not accept requests of this kind."),
    410: ("Expired", "This site is no longer available."),
    412: ("Changed", "The resource at this address is not the one that was expected."),
    413: ("Request too large", "The body of this request is too large for the site."),
    416: ("No such part", "The resource at this address has no such part."),
    421: ("Wrong server", "Another server answers for this site. Please try again later."),
    429: ("Too many requests", "Too many sites have been started from your address. Please try again later."),
    431: ("Request too large", "The header fields of this request are too large for the site."),
    500: ("Site error", "This site has a problem. The details are in the server log."),
    501: ("Not supported", "This site needs something that the server cannot do yet."),
    502: ("Bad answer", "This site sent an invalid answer."),
    503: ("Not available", "This site is not available at the moment. Please try again later."),
    504: ("No answer", "This site took too long to answer. Please try again later."),
}

#: texts for one kind of error, instead of those of its status
BY_KIND = {
    ConnectFailed: ("Not reachable", "This site cannot be reached at the moment. Please try again later."),
    StillStarting: ("Starting", "This site is starting. The page will load by itself in a moment."),
    InMaintenance: ("Under maintenance", "This site is being worked on. Please try again later."),
}

#: errors whose reason is written for a visitor; the reasons of others may name files and stay in the log
TOLD = (Asleep, BadHost, Forbidden, UnknownHost, NeedsProcess, NoUpgrade, SiteBusy)

#: a reason may quote what the client sent; a page stays small all the same (characters)
LONGEST_TEXT = 300

STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:16vh auto 2rem;padding:0 1.25rem;"
    "color:#222;background:#fff;overflow-wrap:anywhere}"
    "h1{font-size:1.5rem;line-height:1.25;margin:0 0 .5rem}h1 b{color:#767676;font-weight:400;margin-right:.4em}"
    "p{margin:.5rem 0}small,a{color:#666}pre{white-space:pre-wrap;padding:1rem;background:#8882;font-size:.8rem}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1d}h1 b,small,a{color:#9a9a9a}}"
)

#: told of each page with an incident that a request gets; whoever keeps incidents puts itself here
shown: Callable[[str, WSGIEnvironment], object] | None = None


@dataclass(frozen=True)
class Page:
    """One of our answers; call it as a WSGI application.

    `text`, `incident` and `detail` are plain text and are escaped where they are shown, and so are `links`, names of
    sites with their addresses; `detail` and `links` are shown to this machine's own clients alone.
    """

    status: int
    title: str
    text: str
    incident: str = ""
    detail: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse, exc_info: Any = None
    ) -> Iterable[bytes]:
        """Answer; with `exc_info` even if an answer has begun (PEP 3333: it is re-raised if that was sent)."""
        if self.incident and shown:
            shown(self.incident, environ)
        is_shown = not (self.detail or self.links) or is_local(environ)
        page = self if is_shown else replace(self, detail="", links=())
        media_type, body = page.render(environ.get("HTTP_ACCEPT", ""))
        start_response(f"{self.status} {phrase(self.status)}", self._headers(media_type, body), exc_info)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    def render(self, accept: str) -> tuple[str, bytes]:
        """Return the content type and body for an `Accept` value; HTML unless something else is preferred."""
        media_type = _best_of(RENDERERS, accept) if accept else "text/html"
        text = RENDERERS[media_type](self)
        return media_type, text.encode("utf-8", "replace")

    def _headers(self, media_type: str, body: bytes) -> list[tuple[str, str]]:
        charset = "" if media_type == "application/json" else "; charset=utf-8"
        return [
            ("Content-Type", media_type + charset),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
            *self.headers,
        ]


@dataclass(frozen=True)
class OwnPage:
    """A page that an administrator has written, as it stands; call it as a WSGI application.

    Unlike ours it may load what it likes: pictures and styles among the site's static files.
    """

    status: int
    media_type: str
    body: bytes
    retry_after: int

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer."""
        fields = [
            ("Content-Type", self.media_type),
            ("Content-Length", str(len(self.body))),
            ("Cache-Control", "no-store"),
            ("Retry-After", str(self.retry_after)),
        ]
        start_response(f"{self.status} {phrase(self.status)}", fields)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [self.body]


def _best_of(offered: Iterable[str], accept: str) -> str:
    # Imported here: werkzeug imports its server and its test client, 50 ms that only an error page needs.
    from werkzeug.datastructures import MIMEAccept
    from werkzeug.http import parse_accept_header

    return parse_accept_header(accept, MIMEAccept).best_match(offered, "text/html")


def error_page(
    status: int,
    title: str = "",
    text: str = "",
    *,
    incident: str = "",
    detail: str = "",
    retry_after: int | None = None,
    headers: Headers = (),
) -> Page:
    """Return the page for a status; an empty title or text is taken from `TITLES`.

    Args:
        status: the HTTP status, 400 to 599.
        incident: the id of this failure in the log (`multisite.logs.incidents.new`).
        detail: shown unchanged; only for debugging.
        retry_after: seconds for a ``Retry-After`` header (RFC 9110 section 10.2.3).
        headers: further response headers.
    """
    usual_title, usual_text = TITLES.get(status, (phrase(status), ""))
    retry = () if retry_after is None else (("Retry-After", str(retry_after)),)
    return Page(status, title or usual_title, text or usual_text, incident, detail, (*retry, *headers))


def for_error(exc: MultisiteError, incident: str = "", detail: str = "") -> Page:
    """Return the page for an error; its reason is shown if it is written for visitors."""
    reason = shorten(exc.reason) if isinstance(exc, TOLD) else ""
    incident = incident or exc.incident
    detail = detail or exc.detail
    title, text = next((said for kind, said in BY_KIND.items() if isinstance(exc, kind)), ("", reason))
    more = {"retry_after": exc.retry_after, "headers": exc.headers}
    return error_page(exc.status, title, text, incident=incident, detail=detail, **more)  # type: ignore[arg-type]


def redirect(location: str, status: int = 308) -> Page:
    """Return a redirect to a URL: 308 keeps the method (RFC 9110 section 15.4.9), 301 is the old way.

    Characters that are not allowed in a URL are percent-encoded, line ends among them, so nothing can be smuggled into
    the header. Caches do not store it: a canonical domain can change within a second.
    """
    target = quote(location, safe="%/:=&?~#+!$,;'@()*[]")
    return Page(status, "Moved", f"This page is at {target}", headers=(("Location", target),))


def phrase(status: int) -> str:
    """Return the reason phrase of a status line."""
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"


def shorten(reason: str) -> str:
    """Return a reason as a sentence for a page."""
    sentence = reason if len(reason) <= LONGEST_TEXT else reason[:LONGEST_TEXT] + "…"
    return sentence[:1].upper() + sentence[1:] + ("" if sentence.endswith((".", "…")) else ".")


def render_html(page: Page) -> str:
    """Return the page as a small HTML document that loads nothing."""
    headers = dict(page.headers)
    location, refresh = headers.get("Location", ""), headers.get("Refresh", "")
    parts = [
        f"<h1><b>{page.status}</b>{escape(page.title)}</h1>",
        f"<p>{escape(page.text)}</p>",
        location and f'<p><a href="{escape(location)}">Go there</a></p>',
        _listed(page.links),
        page.incident and f"<p><small>Incident {escape(page.incident)}</small></p>",
        page.detail and f"<pre>{escape(page.detail)}</pre>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        + (f'<meta http-equiv="refresh" content="{escape(refresh)}">\n' if refresh else "")
        + f"<title>{page.status} {escape(page.title)}</title>\n<style>{STYLE}</style>\n"
        + "\n".join(filter(None, parts))
        + "\n</html>\n"
    )


def _listed(links: Iterable[tuple[str, str]]) -> str:
    items = "\n".join(itertools.starmap(_item, links))
    return f"<p>The sites here:</p>\n<ul>\n{items}\n</ul>" if items else ""


def _item(name: str, address: str) -> str:
    return f'<li>{escape(name)}: <a href="{escape(address)}">{escape(address)}</a></li>'


def render_json(page: Page) -> str:
    """Return the page as one JSON object; `detail` and `sites` are members only if there are any."""
    members: dict[str, Any] = {"status": page.status, "title": page.title, "text": page.text, "incident": page.incident}
    members |= {"detail": page.detail} if page.detail else {}
    members |= {"sites": [{"name": name, "url": url} for name, url in page.links]} if page.links else {}
    return json.dumps(members) + "\n"


def render_text(page: Page) -> str:
    """Return the page as a few lines of plain text."""
    incident = page.incident and f"incident {page.incident}"
    links = "\n".join(f"{name}: {address}" for name, address in page.links)
    return "\n".join(filter(None, [f"{page.status} {page.title}", page.text, links, incident, page.detail])) + "\n"


#: in the order of our preference
RENDERERS = {"text/html": render_html, "application/json": render_json, "text/plain": render_text}


#: fields that a front end adds: the client may be anywhere
FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")


def is_local(environ: Mapping[str, Any]) -> bool:
    """Tell whether a request comes from this machine, not through a front end (as `runner.debugger.is_local` does)."""
    return is_loopback(environ.get("REMOTE_ADDR", "")) and not any(name in environ for name in FORWARDED)


def is_loopback(host: str) -> bool:
    """Tell whether an address is one that only this machine can reach (RFC 1122 section 3.2.1.3, RFC 4291)."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def close_after(start_response: Any) -> None:
    """Make the server close the connection after this answer; some servers have no way to ask for that."""
    close = getattr(getattr(start_response, "__self__", None), "force_close", None)
    if close:
        close()


def begin_anew(start_response: Any) -> bool:
    """Forget the header fields of an answer that another one replaces; tell whether nothing of it was sent."""
    response: Any = getattr(start_response, "__self__", None)
    if hasattr(response, "begin_anew"):
        return bool(response.begin_anew())
    if getattr(response, "headers_sent", False):
        return False
    if hasattr(response, "response_length"):
        response.headers, response.response_length = [], None  # gunicorn would add to them
    return True
