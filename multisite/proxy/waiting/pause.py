"""A site that is paused, in a worker: its requests wait, and go to its processes or upstreams when it is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from multisite.config.model import Home, Site
from multisite.errors import Paused
from multisite.proxy import elsewhere
from multisite.proxy.relay import relay
from multisite.proxy.waiting.held import Held, WaitingRoom


def _late() -> Paused:
    return Paused("The site is paused")


class PausedSite:
    """The WSGI callable of one paused site.

    A site that lives in the workers gets its own process for the requests that have waited: the thread that would have
    called it has been free since.

    Args:
        is_over: tells whether the pause is.
    """

    def __init__(self, site: Site, home: Home, is_over: Callable[[], bool]) -> None:
        self._patience = site.pause_timeout
        self._of = elsewhere.destination(site, home)
        self._is_over = is_over
        self._room: WaitingRoom[Held] = WaitingRoom(max(1, site.max_waiting), self._look)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request, when the pause is over (PEP 3333).

        Raises:
            Paused: it is not over in time.
            SiteBusy: as many wait as may.
        """
        held = Held(self._of, self._patience, _late)
        self._room.enter(held)
        return relay(held, environ, start_response)

    def _look(self, held: list[Held]) -> None:
        if self._is_over():
            for one in held:
                one.settle()
