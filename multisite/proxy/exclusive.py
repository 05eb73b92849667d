"""A site that must not run twice, as a worker reaches it: in its process here, or at the node that has its lease.

The supervisor says which of them it is, and a worker asks it once a second at most. A request that another node has
relayed is not relayed again, unless this node drains and has passed the site on: if the site does not run here either,
the answer is 503, and the client may ask again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from multisite.cluster import relaying
from multisite.cluster.keyfile import read_key
from multisite.config.endpoint import Endpoint
from multisite.config.model import Home, Site
from multisite.config.safefiles import Unusable
from multisite.errors import BackendUnavailable, ConnectFailed, MultisiteError, UpstreamError
from multisite.proxy.body import Upload
from multisite.proxy.destination import NotNow, Proxy
from multisite.proxy.downstream import Environ
from multisite.proxy.relay import relay
from multisite.proxy.spawned import SpawnedSite
from multisite.proxy.upstream import Exchange
from multisite.sites.server import head_limits

CHANGES_HANDS = 1  # seconds after which to ask again where a lease passes from one node to another
UNREACHABLE = 5  # seconds after which to ask again where the node cannot be reached


class ExclusiveSite(SpawnedSite):
    """The WSGI callable of one exclusive site."""

    def __init__(self, site: Site, home: Home, debug: bool = False) -> None:
        super().__init__(site, home, debug)
        self._hand_over, self._cold = "no", None  # both are for a site that is known to run here
        self._node = ""  # address of the node that runs it, "" for this one
        self._known_until = 0.0  # monotonic seconds
        self._passed_on = 0  # how often a request may have been relayed that is relayed from here
        self._far: Proxy | None = None

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Relay one request (PEP 3333)."""
        if self._node and time.monotonic() < self._known_until:
            return relay(self, environ, start_response)  # that node decides whether it starts the site
        return super().__call__(environ, start_response)

    def begin(self, environ: Environ, upload: Upload, hurry: bool) -> Exchange:
        """Send the request to where the site runs (see `Destination`)."""
        relayed = environ.get(relaying.RELAYED, 0)
        if time.monotonic() >= self._known_until or self._is_refused(relayed):
            if hurry:
                raise NotNow  # the supervisor may have to ask the registry
            self._ask(anew=bool(relayed))  # another node knows better than what is remembered here
        node = self._node
        if not node:
            return super().begin(environ, upload, hurry)
        if self._is_refused(relayed):
            raise BackendUnavailable(f"it runs on the node {node} now", CHANGES_HANDS)
        try:
            return self._proxy_to(node).begin(self._signed(environ, node), upload, hurry)
        except ConnectFailed as error:
            self._known_until = 0.0
            reason = f"the node {node} runs it and cannot be reached; another node may when its lease is over"
            unavailable = BackendUnavailable(reason, UNREACHABLE)
            unavailable.incident = error.incident
            raise unavailable from error

    def explain(self, error: MultisiteError) -> None:
        """Find out why there was no answer (see `Destination`); what another node has, its own log tells."""
        if not self._node:
            super().explain(error)
        elif isinstance(error, UpstreamError) and not error.incident:
            self._troubles.note(error)

    def _is_refused(self, relayed: int) -> bool:
        """Tell whether a request has been relayed too often to be relayed again."""
        return bool(self._node) and relayed > self._passed_on

    def _ask(self, anew: bool = False) -> str:
        """Ask the supervisor where the site runs; returns the path of its socket here, or nothing."""
        answer = self._client.place(self._site.entry_name, self._site.host, head_limits(), anew)
        self._node, self._passed_on = str(answer.get("elsewhere", "")), int(answer.get("passed_on", False))
        self._known_until = time.monotonic() + float(answer["for"])
        return str(answer.get("socket", ""))

    def _ensure(self) -> str:
        path = self._ask()
        if not path:
            raise BackendUnavailable(f"it runs on the node {self._node} now", CHANGES_HANDS)
        return path

    def _proxy_to(self, node: str) -> Proxy:
        far = self._far
        if far is None or far.endpoint.address != node:
            limit = self._site.request_timeout
            far = self._far = Proxy(
                Endpoint.parse(f"http://{node}"),
                request_timeout=limit and limit + self._site.start_timeout,
                trusts=self._trusts,
            )
        return far

    def _signed(self, environ: Environ, node: str) -> Environ:
        """Return the environ with what the other node has to know."""
        try:
            key = read_key(self._home)
        except Unusable as error:
            raise BackendUnavailable(f"the node {node} runs it: {error.reason}", UNREACHABLE) from None
        return {**environ, relaying.FIELD: relaying.sign(environ, key, node, time.time())}
