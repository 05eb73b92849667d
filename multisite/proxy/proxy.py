"""A WSGI callable that relays each request to an endpoint, and the answer back (`relay`).

One connection for one request, so that no answer can be taken for another's. A request is sent at most once:
another attempt is made only while not one byte of it was sent.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from multisite.config.endpoint import Endpoint
from multisite.errors import BackendUnavailable, ConnectFailed, ConnectTimeout, MultisiteError, NoAnswer, UpstreamError
from multisite.logs import servicelog
from multisite.proxy import downstream, headers
from multisite.proxy.downstream import Environ
from multisite.proxy.limits import Pace, Queued, Share
from multisite.proxy.relay import relay
from multisite.proxy.request import NotNow
from multisite.proxy.upload import Upload
from multisite.proxy.upstream import Exchange
from multisite.proxy.wire import envelope, http11, uwsgi

SPEAKS = ("envelope", "http", "uwsgi")
HURRY = 0.05  # seconds to reach an endpoint before a helper goes on trying

_log = logging.getLogger("multisite.proxy")


class Proxy:
    """Relays to `endpoint`.

    Args:
        endpoint: whom requests are relayed to.
        speaks: "envelope" (our own runner), "http" or "uwsgi"; by default what the endpoint says.
        connect_timeout: seconds to reach the endpoint.
        request_timeout: seconds from the end of the request to the head of the answer, and between two signs that
            the request is being taken; 0 for no limit.
        patience: seconds from the time at which the request was taken, where the time before that is longer; 0 for no
            limit, None for the same as `request_timeout`.
        stall_timeout: seconds between two parts of the answer; 0 for no limit.
        reconnect: called when the endpoint cannot be reached, before the only other attempt, and when a connection
            ends without an answer. It may raise what the visitor is told instead, `BackendUnavailable` for one.
        trusts: tells whether what the peer with this address (REMOTE_ADDR, "" for a unix socket) says about its
            client is believed.
        most_waiting: requests that may wait in the queue of a unix socket; 0 for as many as it takes.
        share: of the server's threads, where they have to wait.
        pace: how long a worker's thread waits for an answer.
        sends: whether an answer may have the front end send a file.
        upload_rate: bytes of a request's body that have to come in a second; 0 for any number.
        measures: a body without a length is taken in whole and sent with one, because the endpoint reads no chunks.
    """

    taker: Endpoint | None = None

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        speaks: str = "",
        connect_timeout: float = 5.0,
        request_timeout: float = 60.0,
        patience: float | None = None,
        stall_timeout: float = 300.0,
        reconnect: Callable[[], None] | None = None,
        trusts: Callable[[str], bool] = lambda address: False,
        most_waiting: int = 0,
        share: Share | None = None,
        pace: Pace | None = None,
        sends: bool = False,
        measures: bool = False,
        upload_rate: float = 0.0,
    ) -> None:
        self.endpoint = endpoint
        self.speaks = speaks or endpoint.protocol
        if self.speaks not in SPEAKS:
            raise ValueError(f"{self.speaks} is not spoken; {', '.join(SPEAKS)} are")
        self.stall_timeout = stall_timeout
        self.can_explain = reconnect is not None
        self.queue = Queued(most_waiting)
        self.places: set[object] = set()
        self.sends = sends
        self.upload_rate = upload_rate
        self.share = share or Share()
        self.pace = pace or Pace()
        self._connect_timeout = connect_timeout
        self._request_timeout = request_timeout
        self._patience = patience
        self._reconnect = reconnect
        self._trusts = trusts
        self._measures = measures

    def __repr__(self) -> str:
        return f"<Proxy {self.speaks} to {self.endpoint}>"

    def __str__(self) -> str:
        return str(self.endpoint)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Relay one request (PEP 3333).

        Raises:
            MultisiteError: there is no answer; nothing of one was passed on, and the error knows its status.
        """
        return relay(self, environ, start_response)

    def begin(self, environ: Environ, upload: Upload, hurry: bool) -> Exchange:
        """Send a request (see `request.Destination`)."""
        try:
            return self._begin(self._encode(environ, upload), upload, hurry)
        except UpstreamError as error:
            servicelog.note(_log, error, "a request cannot be sent")
            raise

    def explain(self, error: MultisiteError) -> None:
        """Ask why there was no answer; raise what is told instead."""
        if isinstance(error, NoAnswer) and self._reconnect:
            self._reconnect()

    def _encode(self, environ: Environ, upload: Upload) -> bytes:
        apart = headers.said_apart(environ, downstream.fields(environ))
        if self.speaks == "envelope":
            return envelope.encode(environ, upload.in_chunks, apart=apart)
        trusted = self._trusts(environ.get("REMOTE_ADDR", ""))
        if self.speaks == "uwsgi" or self._measures:
            upload.measure()
        if self.speaks == "uwsgi":
            return uwsgi.encode(environ, headers.to_variables(environ, trusted, apart), upload.length)
        upgrade = headers.upgrade_of(environ) if "HTTP_UPGRADE" in environ else ""
        fields = headers.to_upstream(environ, trusted, apart)
        return http11.encode(environ, fields, upload.length, upload.in_chunks, upgrade)

    def _begin(self, head: bytes, upload: Upload, hurry: bool) -> Exchange:
        try:
            return self._exchange(head, upload, min(HURRY, self._connect_timeout) if hurry else self._connect_timeout)
        except ConnectTimeout:
            if hurry and self._connect_timeout > HURRY:
                raise NotNow from None
            if not self._reconnect:
                raise
        except ConnectFailed:
            if not self._reconnect:
                raise
            if hurry:
                raise NotNow from None
        self._reconnect()
        return self._exchange(head, upload, self._connect_timeout)

    def _exchange(self, head: bytes, upload: Upload, timeout: float) -> Exchange:
        return Exchange(self.endpoint, timeout, head, upload, self._request_timeout, self._patience)


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
        """Send a request to one of them (see `request.Destination`).

        One that is too far away for a hurry has its turn all the same.
        """
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
