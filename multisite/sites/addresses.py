"""The addresses at which a developer opens sites (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from multisite.config.domains import is_pattern, local_host
from multisite.config.model import SiteFile
from multisite.sites.catalogue import Catalogue

LOCAL = ".localhost"  # what ends so leads to this machine (RFC 6761 section 6.3)
USUAL = {"http": "80", "https": "443"}


def urls(site: SiteFile, port: str, scheme: str = "http") -> list[str]:
    """Return the addresses of `site` that can be opened; a pattern is shown as it is written."""
    return [domain if is_pattern(domain) else _url(domain, site, port, scheme) for domain in site.domains]


def by_name(catalogue: Catalogue, site: SiteFile, port: str, scheme: str = "http") -> list[str]:
    """Return the address that a site has by its name, if nothing else claims that."""
    host = "" if catalogue.hosting(site.name) else local_host(site.name)
    found = catalogue.answering(host)[:1] if host and port else []
    return [_url(host, site, port, scheme)] if found and catalogue.table.falls_back(found[0]) else []


def local(catalogue: Catalogue, port: str, scheme: str = "http") -> Iterator[tuple[str, str]]:
    """Yield name and address of each site with an address that leads to this machine whatever the DNS says."""
    for name, site in catalogue.sites.items():
        own = (domain for domain in site.domains if domain.endswith(LOCAL) and not is_pattern(domain))
        found = [*(_url(domain, site, port, scheme) for domain in own), *by_name(catalogue, site, port, scheme)]
        if found:
            yield name, found[0]


def around(catalogue: Catalogue, environ: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what `local` does, at the port that a request was sent to."""
    port = str(environ.get("HTTP_HOST", "")).rpartition(":")[2]
    port = port if port.isascii() and port.isdigit() else str(environ.get("SERVER_PORT", "80"))
    yield from local(catalogue, port, "https" if environ.get("wsgi.url_scheme") == "https" else "http")


def _url(host: str, site: SiteFile, port: str, scheme: str) -> str:
    return f"{scheme}://{host}{'' if port == USUAL[scheme] else f':{port}'}{site.mount.rstrip('/')}/"
