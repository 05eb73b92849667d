"""A host whose requests need more than its name to decide: mounts, captures, a canonical domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from multisite.config.domains import HostMatch, is_pattern, normalise
from multisite.config.trusted import TrustedProxies, forwarded_host, scheme_of
from multisite.errors import BadHost, UnknownHost, pages
from multisite.sites.catalogue import Catalogue, Mounts

Environ = dict[str, Any]
Key = tuple[str, str]  # name of a site, and, if that is a hosting site, the host
Serve = Callable[[Key, Environ, Any], Iterable[bytes]]


def is_plain(catalogue: Catalogue, found: list[HostMatch[Mounts]]) -> bool:
    """Tell whether the first site of `found` answers every request, whatever it asks for."""
    best = found[0]
    mount, name = best.value[0]
    site = catalogue.hosting(name) or catalogue.site(name)
    return mount == "/" and not best.captures and not site.redirect_to_canonical


def key_of(catalogue: Catalogue, name: str, host: str) -> Key:
    """Return the key of what the site `name` answers `host` with."""
    return (name, host if catalogue.hosting(name) else "")


def ways(found: list[HostMatch[Mounts]]) -> list[tuple[str, str, HostMatch[Mounts]]]:
    """Return (mount, site name, claim) in the order of trial: best claim first, then longest mount."""
    return [(mount, name, claim) for claim in found for mount, name in claim.value]


def covers(mount: str, path: str) -> bool:
    """Tell whether `path` is at or beneath `mount`."""
    return mount in ("/", path) or path.startswith(mount + "/")


class Choice:
    """Chooses among `found`, the claims on one host, for each request.

    Args:
        raw, host: as the client sent it, and in its normal form.
        check: looks for changes of a site, for its next request.

    Attributes:
        key: contains the host.
        lasts: whether each of the sites exists; a hosting site may get the directory later.
    """

    name = ""
    check_at = float("inf")  # the chosen site has its own

    def __init__(
        self,
        catalogue: Catalogue,
        raw: str,
        host: str,
        found: list[HostMatch[Mounts]],
        serve: Serve,
        check: Callable[[Key], object],
    ) -> None:
        self.key = ("", host)
        self._check = check
        self._port = _port(raw)
        self._proxies = TrustedProxies(catalogue.home.service.trusted_proxies)
        self._serve = serve
        self._ways = [(mount, key_of(catalogue, name, host), claim) for mount, name, claim in ways(found)]
        keys = {key for _mount, key, _claim in self._ways}
        self.lasts = all(not key[1] or catalogue.instance(*key) for key in keys)
        by_name = catalogue.table.falls_back(found[0])  # in development: visitors are not sent to the real address
        canonical = {} if by_name else {key: canonical_host(catalogue, key) for key in keys}
        self._canonical = {key: domain for key, domain in canonical.items() if domain and domain != host}

    def app(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Serve by the longest mount of the best claim that contains the path.

        Raises:
            UnknownHost: no mount contains the path.
        """
        path = environ.get("PATH_INFO", "")
        way = next((way for way in self._ways if covers(way[0], path)), None)
        if way is None:
            raise UnknownHost("No site answers here under this path")
        mount, key, claim = way
        if key in self._canonical and not self._came_from(self._canonical[key], environ):
            self._check(key)  # a site that redirects all its visitors is never served, and may have changed
            return self._redirect(self._canonical[key], environ, start_response)
        if mount != "/":
            environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + mount
            environ["PATH_INFO"] = path[len(mount) :]
        if claim.captures:
            environ["multisite.captures"] = dict(claim.captures)
            environ["wsgiorg.routing_args"] = ((), dict(claim.captures))
        return self._serve(key, environ, start_response)

    def _came_from(self, domain: str, environ: Environ) -> bool:
        """Tell whether the client already asked for `domain`, and only a front end asked for another one."""
        try:
            return normalise(forwarded_host(environ, self._proxies)) == domain
        except BadHost:
            return False

    def _redirect(self, domain: str, environ: Environ, start_response: Any) -> Iterable[bytes]:
        # RFC 9110 section 15.4: 308 keeps the method where a 301 would turn a POST into a GET.
        status = 301 if environ.get("REQUEST_METHOD") in ("GET", "HEAD") else 308
        location = f"{scheme_of(environ, self._proxies)}://{domain}{self._port}{_target(environ)}"
        return pages.redirect(location, status)(environ, start_response)


def canonical_host(catalogue: Catalogue, key: Key) -> str:
    """Return the host that a site's other hosts redirect to, "" if the site does not want that.

    The site must answer there itself: if another one does, the two could redirect to each other for ever.
    """
    name, host = key
    site = catalogue.hosting(name) or catalogue.site(name)
    if not site.redirect_to_canonical:
        return ""
    if host:
        instance = catalogue.instance(name, host)
        return instance[1].host if instance else ""
    first = next(iter(site.domains), "")
    owned = catalogue.owners.get((first, site.mount)) == name
    return first if owned and not is_pattern(first) else ""


def _port(raw: str) -> str:
    port = raw.rpartition(":")[2] if ":" in raw and not raw.endswith("]") else ""
    return f":{port}" if port.isdigit() else ""


def _target(environ: Environ) -> str:
    path = quote((environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")) or "/"
    raw = environ.get("RAW_URI", "").partition("?")[0]  # gunicorn's: keeps %2F as it was sent
    path = raw if raw.startswith("/") else path
    query = environ.get("QUERY_STRING", "")
    return f"{path}?{query}" if query else path
