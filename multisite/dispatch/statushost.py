"""The host of the status pages in a worker, and its `/health`, which is answered before any other check."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from multisite.config.domains import normalise
from multisite.control.draining import is_draining
from multisite.dispatch.peer import front_ends_of, owner_of
from multisite.errors import BadHost, MultisiteError
from multisite.errors.pages import FORWARDED
from multisite.sites.server import find_worker

if TYPE_CHECKING:
    from multisite.config.model import Home
    from multisite.sites.live import LiveHome

Environ = dict[str, Any]
HEALTH = "/health"
HIDING = ("waitress",)  # servers that remove what a front end says, unless they are told to trust it
#: with any of these, a request may come from anywhere; some proxies send no other field than one of the later ones
_CLAIMS = (
    *FORWARDED,
    "PROXY_PROTOCOL",
    "HTTP_X_FORWARDED",
    "HTTP_X_FORWARDED_BY",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_SCHEME",
    "HTTP_X_FORWARDED_SERVER",
    "HTTP_X_FORWARDED_SSL",
    "HTTP_X_CLIENT_IP",
    "HTTP_X_CLUSTER_CLIENT_IP",
    "HTTP_X_ORIGINAL_FORWARDED_FOR",
    "HTTP_X_SCHEME",
    "HTTP_CF_CONNECTING_IP",
    "HTTP_TRUE_CLIENT_IP",
)


class Pages(Protocol):
    """The pages that it shows (`multisite.status.page`)."""

    def answer(self, environ: Environ, start_response: Any, forwarded: bool) -> Iterable[bytes]:
        """Answer one request (PEP 3333); `forwarded`: it names a front end."""


PagesOf = Callable[["Home"], Pages]


class StatusHost:
    """Answers for [service] status_domain.

    Args:
        home: as moya.conf describes it.
        pages_of: makes the pages, at the first request for one of them.
    """

    name = ""
    key = ("", "")
    check_at = float("inf")

    def __init__(self, home: Home, pages_of: PagesOf) -> None:
        self.options = (home.service, home.state_dir)
        self._home, self._pages_of = home, pages_of
        self._host = domain_of(home)
        self._pages: Pages | None = None

    def is_host(self, raw: str) -> bool:
        """Tell whether a Host field names it."""
        try:
            return bool(self._host) and normalise(raw) == self._host
        except BadHost:
            return False

    def answer(self, environ: Environ, start_response: Any, forwarded: bool) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        if environ.get("PATH_INFO") == HEALTH:
            return health(environ, start_response, self._home)
        if self._pages is None:
            self._pages = self._pages_of(self._home)
        hides = str(environ.get("SERVER_SOFTWARE", "")).startswith(HIDING)
        return self._pages.answer(environ, start_response, forwarded or hides)

    def app(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer one request about which nothing more is known, so a front end may have sent it."""
        return self.answer(environ, start_response, forwarded=True)


def domain_of(home: Home) -> str:
    """Return the host of the status pages in its normal form, "" for none."""
    try:
        return normalise(home.service.status_domain) if home.service.status_domain else ""
    except BadHost:
        return ""


def is_forwarded(environ: Environ) -> bool:
    """Tell whether a request names a front end, believed or not; call it before that is decided."""
    return not environ.keys().isdisjoint(_CLAIMS)


def status_host(home: Home, former: StatusHost | None, pages_of: PagesOf | None) -> StatusHost | None:
    """Return what answers for the status pages of a home; the former object if nothing has changed for it."""
    if not pages_of or not domain_of(home):
        return None
    new = StatusHost(home, pages_of)
    return former if former and former.options == new.options else new


def asked(environ: Environ, status: StatusHost | None, live: LiveHome) -> Home | None:
    """Return the home of this worker if a request for `HEALTH` is about that.

    A worker that has read nothing yet reads only moya.conf, and answers if that is usable.
    """
    raw = str(environ.get("HTTP_HOST", ""))
    if live.catalogue:
        return live.home if status is not None and status.is_host(raw) else None
    try:
        home = live.glance()
        domain = domain_of(home)
        return home if domain and normalise(raw) == domain else None
    except MultisiteError:
        return None


def health(environ: Environ, start_response: Any, home: Home) -> Iterable[bytes]:
    """Answer 200 if this worker takes requests, and should get more; else 503 with the reason."""
    worker = find_worker()
    reason = b"stopping" if worker is not None and worker.is_ending() else b"draining" if is_draining(home) else b""
    status, text = ("503 Service Unavailable", reason + b"\n") if reason else ("200 OK", b"ready\n")
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(text))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    start_response(status, fields)
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [text]


def administrators(home: Home) -> Callable[[Environ], bool]:
    """Return a test of whether a peer on this machine is the administrator's: no front end, and no site's process.

    An account that has no name here is that of a container, in which a front end may run.
    """
    front_ends = front_ends_of(home)

    def is_ours(environ: Environ) -> bool:
        user = owner_of(environ)
        if user is None:
            return not front_ends.has_tenants()
        if user in (0, os.geteuid()):
            return True
        return not front_ends.has_tenants() and not front_ends.is_front_end(user) and _is_person(user)

    return is_ours


def _is_person(user: int) -> bool:
    """Tell whether an account has a name, and one that means somebody."""
    try:
        return pwd.getpwuid(user).pw_name != "nobody"
    except KeyError:
        return False
