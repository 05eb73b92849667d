"""Sites that do not live in this interpreter, as a worker reaches them.

A spawned site's requests go to its listening socket, which the supervisor holds; the
kernel's queue is the waiting room while a process starts. A worker asks the supervisor
for that socket once, and again only when nobody answers there.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from multisite.config.endpoint import Endpoint
from multisite.config.model import Home, Site
from multisite.config.trusted import TrustedProxies
from multisite.control.client import Client
from multisite.errors import Asleep, BackendUnavailable, MultisiteError, NoAnswer, UpstreamError, UpstreamTimeout
from multisite.logs import incidents
from multisite.proxy import handoff
from multisite.proxy.body import Upload
from multisite.proxy.destination import Destination, NotNow, Proxy
from multisite.proxy.downstream import Environ
from multisite.proxy.ignored import CHALLENGE, QUIET, Ignored
from multisite.proxy.relay import relay
from multisite.proxy.upstream import Exchange
from multisite.proxy.waiting.coldstarts import ColdStarts
from multisite.sites.server import head_limits
from multisite.sites.troubles import Troubles

_log = logging.getLogger("multisite.spawned")

WSGI = Callable[..., Iterable[bytes]]


class SpawnedSite(Destination):
    """The WSGI callable of one site with its own processes."""

    can_explain = True

    def __init__(self, site: Site, home: Home, debug: bool = False) -> None:
        super().__init__(site.app_send, float(site.upload_rate), max(1, site.max_waiting))
        self._site, self._home, self._debug = site, home, debug
        self._client = Client(home)
        proxies = TrustedProxies(home.service.trusted_proxies)
        self._trusts = proxies.trusts
        self._cold = ColdStarts(site, self._client, self, proxies) if site.is_greeted else None
        self._ignored = Ignored(site.ignore_activity, site.ignore_agents)
        self._troubles = Troubles(site, home)
        self._proxy: Proxy | None = None
        self._hand_over = home.supervisor.hand_over if site.is_ours else "no"

    def __repr__(self) -> str:
        return f"<SpawnedSite {self._site.name} {self._proxy or 'not asked for yet'}>"

    def __str__(self) -> str:
        return f"site {self._site.name}"

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Relay one request (PEP 3333).

        Raises:
            BackendUnavailable: there is no process, and there will be none soon.
            Asleep: there is none, and the request is one that does not start any.
        """
        if (self._ignored and self._ignored.matches(environ)) or environ["PATH_INFO"].startswith(CHALLENGE):
            if not self._client.is_awake(self._site.entry_name, self._site.host):
                raise Asleep("The site is not running, and this request does not start it")
            environ[QUIET] = "yes"
        elif self._ignored and self._proxy:
            self._mark(self._proxy)
        held = self._cold.hold(environ) if self._cold else None
        return relay(held or self, environ, start_response)

    def begin(self, environ: Environ, upload: Upload, hurry: bool) -> Exchange:
        """Send a request (see `Destination`)."""
        proxy = self._proxy
        if proxy is None:
            if hurry:
                raise NotNow  # a supervisor may have to be started
            proxy = self._meet()
            with contextlib.suppress(OSError):
                if handoff.is_allowed(self._hand_over, proxy.endpoint.path):
                    self.taker = proxy.endpoint
            self._proxy = proxy
        return proxy.begin(environ, upload, hurry)

    def explain(self, error: MultisiteError) -> None:
        """Ask the supervisor why there was no answer (see `Destination`)."""
        if self._proxy and isinstance(error, NoAnswer | UpstreamTimeout):
            with self._shown():
                incident = self._client.trouble(self._site.entry_name, self._site.host)
            error.incident = incident or error.incident  # the page has the name of what the supervisor has logged
        if self._proxy and isinstance(error, NoAnswer):
            self._ensure()
        if isinstance(error, UpstreamError) and not error.incident:
            self._troubles.note(error)
            self._client.take_note(self._site.entry_name, self._site.host, error.incident)

    @staticmethod
    def _mark(proxy: Proxy) -> None:
        """Record that the site is used, for a supervisor that only sees connections."""
        if proxy.speaks != "envelope":
            with contextlib.suppress(OSError):
                os.utime(proxy.endpoint.path)

    def _meet(self) -> Proxy:
        limit = self._site.request_timeout
        return Proxy(
            Endpoint.parse("unix:" + self._ensure()),
            speaks="envelope" if self._site.is_ours else self._site.protocol,
            request_timeout=limit and limit + self._site.start_timeout,
            patience=limit,
            reconnect=self._ensure,
            trusts=self._trusts,
            measures=self._site.server == "uwsgi",  # its applications do not see a body in chunks
        )

    def _ensure(self) -> str:
        """Make the supervisor listen, and return the path of the socket."""
        with self._shown():
            return self._client.ensure(self._site.entry_name, self._site.host, head_limits())

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        """Show a developer why there is no process."""
        try:
            yield
        except BackendUnavailable as error:  # for what it has no incident, nobody has told it yet
            incidents.note(_log, error, self)
            if self._debug:
                error.detail = _journey(self._site, self._home, error.reason)
            raise


def _journey(site: Site, home: Home, reason: str) -> str:
    """Tell what the last failed start of `site` went through, and the last that its process said."""
    from multisite.sites import failures

    failure = failures.of_starts(home).all().get(site.name)
    if not failure:
        return reason
    longest = max((len(step) for step, _seconds in failure.steps), default=0)
    steps = [f"{step:{longest}} {seconds * 1000:8.0f} ms" for step, seconds in failure.steps]
    return "\n".join([reason, "", *steps, "", *failure.output])
