"""Where the requests of a site go that does not live in this interpreter: to its processes, or to its upstreams."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from multisite.config.endpoint import Endpoint
from multisite.config.model import Home, Site
from multisite.config.serving.development import OFF, Development
from multisite.config.trusted import TrustedProxies
from multisite.proxy import healthchecks
from multisite.proxy.balancer import Balancer, Upstream
from multisite.proxy.destination import Destination, Proxy
from multisite.proxy.relay import relay
from multisite.proxy.spawned import SpawnedSite
from multisite.sites.troubles import Troubles

WSGI = Callable[..., Iterable[bytes]]


def is_elsewhere(site: Site) -> bool:
    """Tell whether a site has upstreams rather than processes."""
    return bool(site.upstreams) and site.mode in ("auto", "proxy")


def destination(site: Site, home: Home) -> Destination:
    """Return where the requests of a site go that lives elsewhere."""
    return _upstreams(site, home) if is_elsewhere(site) else _spawned(site, home)


def _spawned(site: Site, home: Home, debug: bool = False) -> SpawnedSite:
    if not site.exclusive:
        return SpawnedSite(site, home, debug)
    from multisite.proxy.exclusive import ExclusiveSite  # a worker without such sites never loads it

    return ExclusiveSite(site, home, debug)


def app(site: Site, home: Home, development: Development = OFF) -> WSGI:
    """Return the callable for a site elsewhere: in processes that we start, or at its upstreams."""
    if is_elsewhere(site):
        return partial(relay, _upstreams(site, home))
    spawned = _spawned(site, home, development.debug)
    if not development.reload:
        return spawned
    from multisite.proxy.autoreload import AutoReload

    return AutoReload(spawned, site, home)


def _upstreams(site: Site, home: Home) -> Balancer:
    trusts = TrustedProxies(home.service.trusted_proxies).trusts
    troubles = Troubles(site, home)
    limit = site.request_timeout
    proxies = [
        Proxy(
            Endpoint.parse(text, site.protocol),
            request_timeout=limit,
            trusts=trusts,
            noted=partial(troubles.note, upstream=text),
        )
        for text in site.upstreams
    ]
    upstreams = [Upstream(proxy) for proxy in proxies]
    for upstream in upstreams:
        healthchecks.watch(upstream, home, site.domains)
    return Balancer(upstreams, sends=site.app_send, upload_rate=site.upload_rate, troubles=troubles)
