"""What a worker answers for a site that is out of service: a page, or, in a pause, a wait for those that may wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from multisite.config.model import Home, Site
from multisite.errors import pages
from multisite.logs import servicelog
from multisite.logs.requests import PAGE, PROXY, SPAWNED
from multisite.sites import outages
from multisite.sites.outages import ELSEWHERE, LASTING, PAUSED, Outage
from multisite.sites.placement import CAN_SPAWN

TOLD_EVERY = 60.0  # seconds between two lines of the log about requests for a site that other nodes run

WSGI = Callable[..., Iterable[bytes]]


class Gate:
    """The gate before one site: open or shut."""

    def __init__(self, site: Site, home: Home) -> None:
        self._site, self._home = site, home
        self._outages = outages.of_home(home)
        self._outages.look()
        self._outage = self._outages.of(site)

    def has_moved(self) -> bool:
        """Look, as is due every second; tell whether it has changed."""
        self._outages.look()
        before, self._outage = self._outage, self._outages.of(self._site)
        return self._outage != before

    @property
    def is_closed(self) -> bool:
        """Whether no requests come through; a site that consists of files has none that could wait."""
        return self._outage is not None and not (self._is_paused and self._site.files_only)

    @property
    def is_whole(self) -> bool:
        """Whether its files are not served either: it has expired, runs elsewhere, or consists of files."""
        return self._site.files_only or (self._outage is not None and self._outage.kind in LASTING)

    @property
    def how(self) -> str:
        """How the answer is made, for the access log."""
        return PAGE if not self._is_paused else PROXY if self._site.upstreams else SPAWNED

    @property
    def app(self) -> WSGI:
        """What answers in the site's place."""
        assert self._outage
        if self._outage.kind == ELSEWHERE:
            return misdirected(self._site, self._outage)
        if not self._is_paused or not CAN_SPAWN:
            return page(self._outage)
        from multisite.proxy.waiting.pause import PausedSite  # a worker without such sites never loads it

        return PausedSite(self._site, self._home, self._is_over)

    @property
    def _is_paused(self) -> bool:
        return self._outage is not None and self._outage.kind == PAUSED

    def _is_over(self) -> bool:
        self._outages.look()
        outage = self._outages.of(self._site)
        return outage is None or outage.kind != PAUSED


def page(outage: Outage) -> WSGI:
    """Return the page of an outage."""
    error = outage.error
    if outage.page:
        body = outage.page.encode("utf-8", "surrogateescape")
        return pages.OwnPage(error.status, outage.media_type, body, error.retry_after or 0)
    return pages.for_error(error)


def misdirected(site: Site, outage: Outage) -> WSGI:
    """Return the page for a site that other nodes run; the log says once a minute which front end has old rules."""
    told_at, answer = float("-inf"), page(outage)

    def told(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        nonlocal told_at
        if (now := time.monotonic()) - told_at >= TOLD_EVERY:
            told_at = now
            servicelog.site_logger(site.name).warning(
                "MS328 %s has sent a request for %s to this node, but the site runs on %s; %s",
                environ.get("REMOTE_ADDR") or "a front end",
                environ.get("HTTP_HOST", ""),
                ", ".join(site.nodes),
                outages.remedy(outage, site.name),
            )
        return answer(environ, start_response)

    return told
