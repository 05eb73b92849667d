"""Where requests go: a site's processes, or its upstreams, and how a request is encoded and sent there.

One connection for one request, so that no answer can be taken for another's. A request is sent at most once:
another attempt is made only while not one byte of it was sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from multisite.config.endpoint import Endpoint
from multisite.errors import BackendUnavailable, ConnectFailed, ConnectTimeout, MultisiteError, UpstreamError
from multisite.logs import incidents
from multisite.proxy import downstream, headers
from multisite.proxy.body import Upload
from multisite.proxy.downstream import Environ
from multisite.proxy.limits import Pace, Queued, Share
from multisite.proxy.upstream import Exchange
from multisite.proxy.wire import envelope, http11, uwsgi
from multisite.sites import server

SPEAKS = ("envelope", "http", "uwsgi")
CONNECT_TIMEOUT = 5.0  # seconds to reach an endpoint
HURRY = 0.05  # seconds to do so before a helper takes over

_log = logging.getLogger("multisite.proxy")


class NotNow(Exception):
    """The operation is possible, but not without waiting."""


class Destination:
    """A site's processes, or its upstreams.

    Attributes:
        pace: how long a worker's thread waits for an answer.
        queue: the requests that no process has taken yet.
        places: its requests in the relay loop of this process.
        share: of the server's threads, where they have to wait.
        stall_timeout: seconds between two parts of an answer; 0 for no limit.
        upload_rate: bytes of a request's body that have to arrive per second; 0 for any number.
        sends: an answer may make the front end send a file (`headers.SENDERS`).
        can_explain: `explain` may give a better error.
        taker: where requests can be handed over with their connections (`handoff`), None for nowhere.
    """

    stall_timeout = 300.0
    can_explain = False
    taker: Endpoint | None = None

    def __init__(self, sends: bool = False, upload_rate: float = 0.0, most_waiting: int = 0) -> None:
        self.sends = sends
        self.upload_rate = upload_rate
        self.queue = Queued(most_waiting)
        self.pace = Pace()
        self.share = Share(server.of_this_server)
        self.places: set[object] = set()

    def begin(self, environ: Environ, upload: Upload, hurry: bool) -> Exchange:
        """Send the request, the first piece of its body at least.

        Raises:
            NotNow: the caller must not wait, and this would take time; nothing was sent.
            MultisiteError: it cannot be sent; after `ConnectFailed` and `BackendUnavailable` nothing was.
        """
        raise NotImplementedError

    def delay(self, call: Callable[[], None]) -> float:
        """Return how many seconds a request may have to wait before anybody can begin it, whom that would hold up.

        0.0: not at all. Else `call` is called when it need not wait any more, from any thread.

        Raises:
            SiteBusy: as many wait already as may.
        """
        return 0.0

    @property
    def late(self) -> MultisiteError:
        """The error for a request that cannot be begun in time."""
        return BackendUnavailable("the site could not be reached in time")

    def explain(self, error: MultisiteError) -> None:
        """Find out why there was no answer, which may take time; raise an error with the reason."""


class Proxy:
    """Sends requests to `endpoint`.

    Args:
        endpoint: whom they are sent to.
        speaks: "envelope" (our own runner), "http" or "uwsgi"; by default what the endpoint says.
        request_timeout: seconds from the end of the request to the head of the answer, and between two signs that
            the request is being taken; 0 for no limit.
        patience: seconds from the time at which the request was taken, where the time before that is longer; 0 for no
            limit, None for the same as `request_timeout`.
        reconnect: called when the endpoint cannot be reached, before the only other attempt. It may raise what the
            visitor is told instead, `BackendUnavailable` for one.
        trusts: tells whether what the peer with this address (REMOTE_ADDR, "" for a unix socket) says about its
            client is believed.
        measures: a body without a length is taken in whole and sent with one, because the endpoint reads no chunks.
        connect_timeout: seconds to reach the endpoint.
        modifiers: of the uwsgi packets.
        limited_by: the option that sets `request_timeout`.
        noted: called with what kept a request from being sent, to log it and to give it its incident.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        speaks: str = "",
        request_timeout: float = 60.0,
        patience: float | None = None,
        reconnect: Callable[[], object] | None = None,
        trusts: Callable[[str], bool] = lambda address: False,
        measures: bool = False,
        connect_timeout: float = CONNECT_TIMEOUT,
        modifiers: tuple[int, int] = (0, 0),
        limited_by: str = "request_timeout",
        noted: Callable[[UpstreamError], None] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.speaks = speaks or endpoint.protocol
        if self.speaks not in SPEAKS:
            raise ValueError(f"the protocol {self.speaks} is not supported; {', '.join(SPEAKS)} are")
        self._request_timeout = request_timeout
        self._patience = patience
        self._reconnect = reconnect
        self._trusts = trusts
        self._measures = measures
        self._connect_timeout = connect_timeout
        self._modifiers = modifiers
        self._limited_by = limited_by
        self._noted = noted or partial(incidents.note, _log, where="cannot send a request")

    def __repr__(self) -> str:
        return f"<Proxy {self.speaks} to {self.endpoint}>"

    def begin(self, environ: Environ, upload: Upload, hurry: bool) -> Exchange:
        """Send a request (see `Destination`)."""
        try:
            return self._begin(self._encode(environ, upload), upload, hurry)
        except UpstreamError as error:
            self._noted(error)
            raise

    def _encode(self, environ: Environ, upload: Upload) -> bytes:
        apart = headers.said_apart(environ, downstream.fields(environ))
        if self.speaks == "envelope":
            return envelope.encode(environ, upload.in_chunks, apart=apart)
        trusted = self._trusts(environ.get("REMOTE_ADDR", ""))
        if self.speaks == "uwsgi" or self._measures:
            upload.measure()
        if self.speaks == "uwsgi":
            fields = headers.to_variables(environ, trusted, apart)
            return uwsgi.encode(environ, fields, upload.length, *self._modifiers)
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
        limits = (self._request_timeout, self._patience, self._limited_by)
        return Exchange(self.endpoint, timeout, head, upload, *limits)
