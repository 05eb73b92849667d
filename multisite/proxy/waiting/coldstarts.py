"""What a site's requests meet in a worker while none of its processes serves, where its file says more than: wait.

A browser waits in the worker rather than in the queue of the site's socket, so that nothing of its request has reached
the site when it gets the waiting page instead.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from multisite.config.model import Site
from multisite.control.client import Client
from multisite.errors import MultisiteError, StillStarting
from multisite.proxy.destination import Destination
from multisite.proxy.headers import upgrade_of
from multisite.proxy.waiting.held import Held, WaitingRoom
from multisite.sites.server import head_limits

BELIEVED = 1.0  # seconds for which a site that was up is taken to be
_PAGES = ("document", "iframe", "frame")


def wants_page(environ: Mapping[str, Any]) -> bool:
    """Tell whether a browser asks for a page: with GET and without a body, and not a script of one (pure).

    What a browser asks for, and why, it says in Sec-Fetch-Dest (W3C, Fetch Metadata Request Headers).
    """
    if environ["REQUEST_METHOD"] != "GET" or environ.get("HTTP_SEC_FETCH_DEST", "document") not in _PAGES:
        return False
    if environ.get("HTTP_SEC_FETCH_MODE", "navigate") != "navigate":
        return False
    if environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        return False
    if "HTTP_X_REQUESTED_WITH" in environ or ("HTTP_UPGRADE" in environ and upgrade_of(dict(environ))):
        return False
    offers = (offer.partition(";") for offer in environ.get("HTTP_ACCEPT", "").lower().split(","))
    return any(kind.strip() == "text/html" and not _is_zero(quality) for kind, _, quality in offers)


def patience_of(site: Site, environ: Mapping[str, Any]) -> float:
    """Return the seconds for which a request waits for a site that is just being imported."""
    is_greeted = site.waiting_page is not None and wants_page(environ)
    return min(site.start_timeout, site.waiting_page or 0.0) if is_greeted else site.start_timeout


def _is_zero(parameters: str) -> bool:
    name, _, value = parameters.strip().partition("=")
    return name.strip() == "q" and not value.strip().strip("0.")


class ColdStarts:
    """The requests of one site that come while it is not up."""

    def __init__(self, site: Site, client: Client, of: Destination) -> None:
        self._site, self._client, self._of = site, client, of
        self._room = WaitingRoom(max(1, site.max_waiting), self._look)
        self._up_until = 0.0

    def hold(self, environ: Mapping[str, Any]) -> Held | None:
        """Return where this request waits; None where it goes to the site at once.

        Raises:
            SiteBusy, BackendUnavailable: it cannot wait.
        """
        if time.monotonic() < self._up_until:
            return None
        patience = self._site.waiting_page
        if patience is None or not wants_page(environ):
            return None
        held = Held(self._of, patience, StillStarting)
        self._room.enter(held)
        return held

    def _look(self, held: list[Held]) -> None:
        """Ask the supervisor, which starts the site; where that fails, each finds out why as any other request."""
        try:
            is_up = self._client.wake(self._site.entry_name, self._site.host, head_limits())
        except MultisiteError:
            is_up = True
        else:
            self._up_until = time.monotonic() + BELIEVED if is_up else 0.0
        for one in held if is_up else ():
            one.settle()
