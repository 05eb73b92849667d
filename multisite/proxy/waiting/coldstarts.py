"""What happens to a site's requests in a worker while none of its processes serves, if they do not simply wait.

A browser waits in the worker rather than in the queue of the site's socket, so that nothing of its request has reached
the site when it gets the waiting page instead. So does any request whose client may be one that has started too many
sites: the supervisor says so first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from multisite.config.model import Site
from multisite.config.trusted import TrustedProxies, client_of
from multisite.control.client import Client
from multisite.errors import BackendUnavailable, StillStarting
from multisite.proxy.destination import Destination
from multisite.proxy.headers import upgrade_of
from multisite.proxy.waiting.held import Held, WaitingRoom
from multisite.sites.server import head_limits

TOO_MANY = 429  # RFC 6585 section 4
UNASKED = "nobody could say in time whether the site may be started"
BELIEVED = 1.0  # seconds for which a site that was up is taken to be
_PAGES = ("document", "iframe", "frame")


def wants_page(environ: Mapping[str, Any]) -> bool:
    """Tell whether a browser asks for a page: with GET and without a body, and not a script of one (pure).

    A browser announces the kind of its request in Sec-Fetch-Dest (W3C, Fetch Metadata Request Headers).
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


class Knock(Held):
    """One request at the door of a site that may not be up.

    Args:
        client: address of who makes it.
        waits: it goes on when the site is up, rather than to wait for that in the queue of the site's socket.

    Attributes:
        is_counted: the supervisor has been told of it.
    """

    def __init__(self, of: Destination, patience: float, client: str, waits: bool) -> None:
        super().__init__(of, patience, StillStarting if waits else partial(BackendUnavailable, UNASKED))
        self.client, self.waits, self.is_counted = client, waits, False


class ColdStarts:
    """The requests of one site that come while it is not up.

    Args:
        proxies: who is believed when it says whose request it passes on.
    """

    def __init__(self, site: Site, client: Client, of: Destination, proxies: TrustedProxies) -> None:
        self._site, self._client, self._of, self._proxies = site, client, of, proxies
        self._room: WaitingRoom[Knock] = WaitingRoom(max(1, site.max_waiting), self._look)
        self._up_until = 0.0

    def hold(self, environ: dict[str, Any]) -> Knock | None:
        """Return where this request waits; None where it goes to the site at once.

        Raises:
            SiteBusy, BackendUnavailable: it cannot wait.
        """
        if time.monotonic() < self._up_until:
            return None
        patience = self._site.waiting_page if wants_page(environ) else None
        if patience is None and self._site.wakes_per_minute is None:
            return None
        longest = self._site.start_timeout if patience is None else patience
        knock = Knock(self._of, longest, client_of(environ, self._proxies), patience is not None)
        self._room.enter(knock)
        return knock

    def _look(self, held: list[Knock]) -> None:
        """Ask the supervisor for each client that has come, and once for all who wait still."""
        of_client: dict[str, list[Knock]] = {}
        for knock in held:
            if not knock.is_counted:
                of_client.setdefault(knock.client, []).append(knock)
        for client, knocks in of_client.items():
            self._ask(client, knocks)
        waiting = [knock for knock in held if knock.is_counted and knock.is_waiting]
        if waiting and not of_client:
            self._ask(None, waiting)

    def _ask(self, client: str | None, knocks: list[Knock]) -> None:
        """Have the site started; where that fails, each finds out why as any other request."""
        site, refused, is_up = self._site, None, True
        try:
            is_up = self._client.wake(site.entry_name, site.host, client, head_limits())
        except BackendUnavailable as error:
            refused = error if error.status == TOO_MANY else None
        else:
            self._up_until = time.monotonic() + BELIEVED if is_up else 0.0
        for knock in knocks:
            knock.is_counted = True
            if refused or is_up or not knock.waits:
                knock.settle(refused)
