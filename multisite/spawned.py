"""Sites that do not live in this interpreter, as a worker reaches them.

A spawned site's requests go to its listening socket, which the supervisor holds; the
kernel's queue is the waiting room while a process starts. A worker asks the supervisor
for that socket once, and again only when nobody answers there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from multisite.balance import Balancer
from multisite.endpoint import Endpoint
from multisite.model import Home, Site
from multisite.proxy import Environ, Proxy
from multisite.supervisor.client import Client
from multisite.trusted import TrustedProxies

WSGI = Callable[..., Iterable[bytes]]


class SpawnedSite:
    """The WSGI callable of one site with processes of its own."""

    def __init__(self, site: Site, home: Home) -> None:
        self._site = site
        self._client = Client(home)
        self._trusts = TrustedProxies(home.service.trusted_proxies).trusts
        self._proxy: Proxy | None = None

    def __repr__(self) -> str:
        return f"<SpawnedSite {self._site.name} {self._proxy or 'not asked for yet'}>"

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Relay one request (PEP 3333).

        Raises:
            BackendUnavailable: there is no process, and there will be none soon.
        """
        proxy = self._proxy
        if proxy is None:
            proxy = self._proxy = self._meet()
        return proxy(environ, start_response)

    def _meet(self) -> Proxy:
        path = self._client.ensure(self._site.entry_name, self._site.host)
        return Proxy(
            Endpoint.parse("unix:" + path),
            speaks="envelope" if self._site.server == "auto" and not self._site.command else self._site.protocol,
            request_timeout=self._site.request_timeout + self._site.start_timeout,
            reconnect=self._again,
            trusts=self._trusts,
        )

    def _again(self) -> None:
        """Have the supervisor listen again, or say why it does not."""
        self._client.ensure(self._site.entry_name, self._site.host)


def app(site: Site, home: Home) -> WSGI:
    """Return the callable for a site that lives elsewhere: in processes that we start, or at its upstreams."""
    if site.upstreams and site.mode in ("auto", "proxy"):
        return _upstreams(site, home)
    return SpawnedSite(site, home)


def _upstreams(site: Site, home: Home) -> WSGI:
    trusts = TrustedProxies(home.service.trusted_proxies).trusts
    proxies = [
        Proxy(Endpoint.parse(text, site.protocol), request_timeout=site.request_timeout, trusts=trusts)
        for text in site.upstreams
    ]
    return Balancer(proxies)
