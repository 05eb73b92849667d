"""From a host that no site claims to the nodes that answer it, in a worker.

The mappers are asked in the Fastrouter's order, for each key of the request in turn. Only they remember what they find,
so a change counts from the next request on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from multisite.config import nodes
from multisite.config.model import Home
from multisite.config.nodes import Node
from multisite.config.trusted import TrustedProxies
from multisite.control.client import wake
from multisite.errors import BackendUnavailable, ConnectFailed, UnknownHost
from multisite.proxy import healthchecks
from multisite.proxy.balancer import STAND_IN, Balancer, Health, Upstream
from multisite.proxy.body import Upload
from multisite.proxy.destination import Proxy
from multisite.proxy.downstream import Environ
from multisite.proxy.relay import relay
from multisite.proxy.upstream import Exchange
from multisite.router import keys, lookups
from multisite.router.code import Code
from multisite.router.counts import EVERY_KEY, NodeCounts
from multisite.router.groups import Group, Groups
from multisite.router.mappers import LOOK_EVERY, Fixed, MapFile, Mapper, Pattern
from multisite.router.provisioning import NewDomain, Provisioning, SitesHere
from multisite.router.published import Subscribed
from multisite.sites.server import head_limits

WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]

MOST_DESTINATIONS = 4096  # routes whose turns are remembered
RETRY_AFTER = 5

_log = logging.getLogger("multisite.router")


class Route(NamedTuple):
    """What answers a request: the mapper that knew the key, the key, and its nodes."""

    mapper: Mapper
    key: str
    group: Group


class NodeUpstream(Upstream):
    """A node, whose requests and failures are counted."""

    def __init__(self, proxy: Proxy, node: Node, health: Health, counts: NodeCounts, level: int) -> None:
        super().__init__(proxy, node.weight, level, health)
        self._counts = counts

    def began(self) -> None:
        """It was reached."""
        super().began()
        self._counts.began()

    def revived(self) -> None:
        """It can be reached again, or is well again."""
        super().revived()
        self._counts.revived()

    def failed(self, until: float, is_silent: bool) -> None:
        """It could not be reached, and is left out until then."""
        super().failed(until, is_silent)
        self._counts.failed()


class Nodes(Balancer):
    """The nodes of a key."""

    def begin(self, environ: Environ, upload: Upload, hurry: bool) -> Exchange:
        """Send a request to one of them (see `Destination`).

        Raises:
            BackendUnavailable: none of them can be reached; nothing was sent.
        """
        try:
            return super().begin(environ, upload, hurry)
        except ConnectFailed as error:
            raise BackendUnavailable(f"none of the nodes can be reached; the last: {error}", RETRY_AFTER) from error


class Router:
    """Knows who answers hosts that no site claims.

    Args:
        home: whose [router] says where to look.
        sites: of this worker; without them new domains are not set up.
        clock: monotonic seconds.
    """

    def __init__(self, home: Home, sites: SitesHere | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.home = home
        self._clock = clock
        self._trusts = TrustedProxies(home.service.trusted_proxies).trusts
        self._groups = Groups()
        self.mappers = mappers_of(home, self._groups)
        fallback = nodes.parse_list(home.router.fallback)
        self._fallback = Fixed("fallback", fallback) if fallback else None
        self._provisioning: Provisioning | None = None
        if home.router.provision and sites:
            self._provisioning = Provisioning(home, self._groups, sites, self._relaying, self._standing_in)
            self.mappers.append(self._provisioning.named)
        self._destinations: dict[Route, Nodes] = {}
        self._healths: WeakValueDictionary[Node, Health] = WeakValueDictionary()
        self._look_at = 0.0

    def __repr__(self) -> str:
        return f"<Router by {', '.join(mapper.name for mapper in self.mappers)}>"

    def find(self, wanted: Sequence[str]) -> Route | None:
        """Return the route of a request with these keys, the best first; None where no mapper knows any."""
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            for mapper in self.mappers:
                with contextlib.suppress(RuntimeError):  # no thread can be started now
                    mapper.look()
        for mapper in self.mappers:
            for key in wanted:
                group = mapper.find(key)
                if group:
                    return Route(mapper, key, group)
        return None

    def _names_key(self, environ: Environ) -> bool:
        """Tell whether the sender named the request's key; REMOTE_ADDR is the client for which it speaks.

        No header makes this variable. A server that does not show the connection has it from its own front end.
        """
        if not environ.get(keys.VARIABLE):
            return False
        sock = environ.get("gunicorn.socket")
        if sock is None:
            return True
        try:
            peer = sock.getpeername()
        except OSError:
            return False
        return self._trusts(str(peer[0]) if isinstance(peer, tuple) else "")

    def answering(self, environ: Environ, named: str, otherwise: WSGI | None) -> Routed | NewDomain | None:
        """Return what answers a request whose host no site claims; None if nothing does.

        Args:
            environ: of the request.
            named: the host that a trusted front end named.
            otherwise: answers hosts that are unknown here, so the fallback nodes do not; None for nobody.

        Raises:
            BackendUnavailable: its domain is new, and cannot be set up just now.
        """
        wanted = keys.keys_of(environ, self._names_key(environ), named)
        route = self.find(wanted)
        if self._provisioning and not route:
            new = self._provisioning.new_domain(wanted)
            if new:
                return new
        if route or (self._fallback and not otherwise):
            lasts = keys.VARIABLE not in environ and bool(route or not self._provisioning)
            return Routed(self, wanted, route, otherwise, lasts)
        return None

    def _relaying(self, key: str, group: Group) -> Nodes:
        assert self._provisioning
        return self.destination(Route(self._provisioning.named, key, group))

    def _standing_in(self) -> Nodes | None:
        route = self.stand_in()
        return route and self.destination(route)

    def stand_in(self) -> Route | None:
        """Return the route to the fallback nodes, for keys that no mapper knows."""
        return Route(self._fallback, EVERY_KEY, self._fallback.group) if self._fallback else None

    def claims(self, host: str) -> bool:
        """Tell whether a mapper knows `host` by its name, rather than serving any host."""
        route = self.find((host,))
        return bool(route and not isinstance(route.mapper, (Fixed, Code)))

    def route(self, wanted: Sequence[str], environ: Environ) -> Route | None:
        """Return the route of a request with these keys, unless the front end names another."""
        if keys.VARIABLE in environ and self._names_key(environ):
            wanted = keys.keys_of(environ, True)
        return self.find(wanted)

    def serve(self, route: Route | None, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Relay one request to the nodes of its route, or to the fallback nodes (PEP 3333).

        Raises:
            UnknownHost: no mapper knows its keys, and no node stands in.
        """
        route = route or self.stand_in()
        if route is None:
            raise UnknownHost("No site answers here under this name")
        return relay(self.destination(route), environ, start_response)

    def destination(self, route: Route) -> Nodes:
        """Return what relays to the nodes of a route; it is kept while they stay the same."""
        known = self._destinations.get(route)
        if known:
            return known
        mapper, key, group = route
        if isinstance(mapper, Fixed) and key != EVERY_KEY:
            return self.destination(Route(mapper, EVERY_KEY, group))
        if len(self._destinations) >= MOST_DESTINATIONS:
            self._destinations.clear()
        made = self._destinations[route] = self._made(mapper.name, key, group)
        return made

    def _made(self, mapper: str, key: str, group: Group) -> Nodes:
        options = self.home.router
        members = [(node, node.backup) for node in group.nodes]
        if self._fallback and group is not self._fallback.group:
            members += [(node, STAND_IN) for node in self._fallback.group.nodes]
        return Nodes(
            [self._upstream(mapper, key, node, level) for node, level in members],
            self._clock,
            algorithm=group.algorithm or options.algorithm,
            grace=options.grace,
        )

    def _upstream(self, mapper: str, key: str, node: Node, level: int) -> NodeUpstream:
        options = self.home.router
        proxy = Proxy(
            node.endpoint,
            request_timeout=options.timeout,
            limited_by="[router] timeout",
            trusts=self._trusts,
            connect_timeout=options.connect_timeout,
            modifiers=(node.modifier1, node.modifier2),
        )
        health = self._healths.get(node)
        if health is None:
            health = self._healths[node] = Health()
        upstream = NodeUpstream(proxy, node, health, NodeCounts(self.home, mapper, key, node), level)
        if mapper == "to" and level != STAND_IN:
            healthchecks.watch(upstream, self.home)
        return upstream


class Routed:
    """The keys of a host, which are remembered; who answers them is looked up for each request.

    Attributes:
        name: for the log.
        lasts: the next request with this host has the same keys.
        check_at: monotonic seconds from which a request has the configuration looked at.
    """

    key = ("", "")

    def __init__(
        self, router: Router, wanted: tuple[str, ...], route: Route | None, otherwise: WSGI | None, lasts: bool
    ) -> None:
        self._router = router
        self._keys = wanted
        self._otherwise = otherwise
        self._route = route  # for the request that asked: a function that takes nodes in turn is called once for it
        self.name = wanted[-1] if wanted else ""
        self.lasts = lasts
        self.check_at = 0.0

    def app(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Relay one request (PEP 3333)."""
        route, self._route = self._route, None
        route = route or self._router.route(self._keys, environ)
        if route is None and self._otherwise:  # no mapper knows the host any more
            return self._otherwise(environ, start_response)
        return self._router.serve(route, environ, start_response)


def router_of(home: Home, former: Router | None = None, sites: SitesHere | None = None) -> Router | None:
    """Return the router of a home; None if its configuration names no nodes.

    Args:
        home: whose [router] says where to look.
        former: stays with all that it knows if nothing has changed that concerns it.
        sites: of this worker, for new domains.
    """
    options = home.router
    files = options.map, options.pattern, options.base, options.code, options.redis, options.sql
    others = options.mappers, options.to, options.fallback, options.subscription_server, options.provision
    if not any((*files, *others)):
        return None
    if former and (former.home.path, former.home.router, former.home.service) == (home.path, options, home.service):
        return former
    return Router(home, sites)


def mappers_of(home: Home, groups: Groups) -> list[Mapper]:
    """Return the mappers of a home in the order in which they are asked; log and skip one that cannot be made."""
    options = home.router

    def path(name: str) -> str:
        return os.path.join(home.path, name)

    def have_supervisor() -> None:
        wake(home, head_limits())

    made: list[tuple[str, Any, Callable[[], Mapper]]] = [
        ("map", options.map, lambda: MapFile(path(options.map), groups)),
        ("pattern", options.pattern, lambda: Pattern("pattern", options.pattern, groups)),
        (
            "subscription_server",
            options.subscription_server,
            lambda: Subscribed(home.runtime_dir, have_supervisor),
        ),
        ("base", options.base, lambda: Pattern("base", path(f"{options.base}/%s"), groups)),
        ("code", options.code, lambda: Code(options.code, home.path, groups)),
        ("redis", options.redis, lambda: lookups.of_redis(options.redis, groups)),
        ("sql", options.sql, lambda: lookups.of_sql(options.sql, options.query, home.path, groups)),
        *(("mappers", name, lambda name=name: lookups.of_package(name, home.path, groups)) for name in options.mappers),
        ("to", options.to, lambda: Fixed("to", nodes.parse_list(options.to))),
    ]
    found = []
    for option, value, make in made:
        if value:
            try:
                found.append(make())
            except ValueError as error:
                _log.error("MS731 [router] %s = %s: %s", option, value, error)
    return found
