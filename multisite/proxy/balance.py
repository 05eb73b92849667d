"""Several endpoints for one site: each in turn, and another one where one cannot be reached."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from multisite.config.endpoint import Endpoint
from multisite.errors import BackendUnavailable, ConnectFailed, MultisiteError
from multisite.proxy.client import Environ
from multisite.proxy.pace import Pace
from multisite.proxy.proxy import Proxy
from multisite.proxy.queued import Queued
from multisite.proxy.relay import relay
from multisite.proxy.route import NotNow
from multisite.proxy.share import Share
from multisite.proxy.upload import Upload
from multisite.proxy.upstream import Exchange

AVOIDED = 10.0  # seconds in which an endpoint that could not be reached is asked last
TURN = "multisite.turn"  # in the environ of a request


class Balancer:
    """A WSGI callable over `proxies`. A request goes to another endpoint only while nothing of it was sent."""

    can_explain = False
    taker: Endpoint | None = None

    def __init__(
        self, proxies: Sequence[Proxy], clock: Callable[[], float] = time.monotonic, share: Share | None = None
    ) -> None:
        self.pace = Pace()
        self.queue = Queued()
        self.places: set[object] = set()
        self.share = share or Share()
        self.stall_timeout = proxies[0].stall_timeout
        self.sends = proxies[0].sends
        self.upload_rate = proxies[0].upload_rate
        self._proxies = proxies
        self._clock = clock
        self._turn = itertools.count()  # its next() is atomic
        self._avoided = [0.0] * len(proxies)  # until when
        self._far = [0.0] * len(proxies)  # until when they are known to be too far away for a hurry

    def __repr__(self) -> str:
        return f"<Balancer over {', '.join(str(proxy.endpoint) for proxy in self._proxies)}>"

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Relay one request (PEP 3333).

        Raises:
            MultisiteError: there is no answer; of several failures to connect, the last.
        """
        return relay(self, environ, start_response)

    def begin(self, environ: Environ, upload: Upload, hurry: bool) -> Exchange:
        """Send a request to one of them (see `relay.Route`); one too far away for a hurry has its turn all the same."""
        *others, last = self._order(environ)
        for number in others:
            try:
                return self._begin(number, environ, upload, hurry)
            except (ConnectFailed, BackendUnavailable):
                self._avoided[number] = self._clock() + AVOIDED
        return self._begin(last, environ, upload, hurry)

    def _begin(self, number: int, environ: Environ, upload: Upload, hurry: bool) -> Exchange:
        if hurry and self._far[number] > self._clock():
            raise NotNow
        try:
            return self._proxies[number].begin(environ, upload, hurry)
        except NotNow:
            self._far[number] = self._clock() + AVOIDED
            raise

    def explain(self, error: MultisiteError) -> None:
        """Nobody knows better."""

    def _order(self, environ: Environ) -> list[int]:
        """Return whom to ask, one after another; a request keeps its turn until it is sent."""
        turn = environ.get(TURN)
        if turn is None:
            turn = environ[TURN] = next(self._turn)
        now = self._clock()
        live = [number for number, until in enumerate(self._avoided) if until <= now]
        rest = [number for number, until in enumerate(self._avoided) if until > now]
        return _from(live, turn) + _from(rest, turn)


def _from(numbers: list[int], turn: int) -> list[int]:
    first = turn % (len(numbers) or 1)
    return numbers[first:] + numbers[:first]
