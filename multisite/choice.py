"""A host that more than its name decides about: mounts, captures, a canonical domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from multisite import pages
from multisite.catalogue import Catalogue, Mounts
from multisite.errors import UnknownHost
from multisite.hosts import Found

Environ = dict[str, Any]
Serve = Callable[[str, Environ, Any], Iterable[bytes]]  # by site name


def is_plain(catalogue: Catalogue, found: list[Found[Mounts]]) -> bool:
    """Tell whether the first site of `found` answers whatever is asked for, as it stands."""
    best = found[0]
    mount, name = best.value[0]
    return mount == "/" and not best.captures and not catalogue.site(name).redirect_to_canonical


def ways(found: list[Found[Mounts]]) -> list[tuple[str, str, Found[Mounts]]]:
    """Return (mount, site name, claim) in the order in which a path is tried: best claim, then longest mount first."""
    return [(mount, name, claim) for claim in found for mount, name in claim.value]


def covers(mount: str, path: str) -> bool:
    """Tell whether `path` is at or beneath `mount`."""
    return mount in ("/", path) or path.startswith(mount + "/")


class Choice:
    """Chooses among `found`, the claims on one host, request by request."""

    name = ""
    check_at = float("inf")  # the site that is chosen has its own

    def __init__(self, catalogue: Catalogue, host: str, found: list[Found[Mounts]], serve: Serve) -> None:
        self._host = host
        self._serve = serve
        self._ways = ways(found)
        sites = {name: catalogue.site(name) for _mount, name, _claim in self._ways}
        self._canonical = {
            name: site.domains[0]
            for name, site in sites.items()
            if site.redirect_to_canonical and site.domains and site.domains[0] != host
        }

    def app(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Serve by the longest mount of the best claim that the path is under.

        Raises:
            UnknownHost: the path is under none.
        """
        path = environ.get("PATH_INFO", "")
        way = next((way for way in self._ways if covers(way[0], path)), None)
        if way is None:
            raise UnknownHost("No site answers here under this path")
        mount, name, claim = way
        if name in self._canonical:
            return self._redirect(self._canonical[name], environ, start_response)
        if mount != "/":
            environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + mount
            environ["PATH_INFO"] = path[len(mount) :]
        if claim.captures:
            environ["multisite.captures"] = dict(claim.captures)
            environ["wsgiorg.routing_args"] = ((), dict(claim.captures))
        return self._serve(name, environ, start_response)

    def _redirect(self, domain: str, environ: Environ, start_response: Any) -> Iterable[bytes]:
        # RFC 9110 section 15.4: 308 keeps the method where a 301 would turn a POST into a GET.
        status = 301 if environ.get("REQUEST_METHOD") in ("GET", "HEAD") else 308
        location = f"{environ['wsgi.url_scheme']}://{domain}{_port(environ)}{_target(environ)}"
        return pages.redirect(location, status)(environ, start_response)


def _port(environ: Environ) -> str:
    host = environ.get("HTTP_HOST", "")
    port = host.rpartition(":")[2] if ":" in host and not host.endswith("]") else ""
    return f":{port}" if port.isdigit() else ""


def _target(environ: Environ) -> str:
    path = quote((environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")) or "/"
    raw = environ.get("RAW_URI", "").partition("?")[0]  # gunicorn's: keeps %2F as it was sent
    path = raw if raw.startswith("/") else path
    query = environ.get("QUERY_STRING", "")
    return f"{path}?{query}" if query else path
