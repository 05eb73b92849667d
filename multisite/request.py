"""A request whose client's connection can be taken, until its answer is complete or the relay loop has it."""

from __future__ import annotations

import time
from collections.abc import Callable

from multisite import client, logs, relayloop
from multisite.client import Connection, Environ
from multisite.errors import BackendUnavailable, MultisiteError
from multisite.headers import upgrade_of
from multisite.passage import Passage, date
from multisite.route import Route
from multisite.upload import Upload
from multisite.upstream import Exchange
from multisite.wire.incoming import Incoming
from multisite.wire.outgoing import Outgoing

SERVER = "gunicorn"  # no other server lets us have the connection; this is what it calls itself


class Request:
    """One request in the hands of a worker's thread.

    Attributes:
        exchange: with the backend, None before it has begun.
        content: what came of the answer's body and was not passed on.
        wire: descriptor of the client's connection, -1 before it is taken.
    """

    __slots__ = (
        *("began", "connection", "content", "environ", "exchange", "incoming", "outgoing"),
        *("route", "site", "upload", "wire"),
    )

    def __init__(self, route: Route, environ: Environ, upload: Upload, connection: Connection) -> None:
        self.route = route
        self.environ = environ
        self.upload = upload
        self.connection = connection
        self.began = time.monotonic()
        self.site = logs.current_site.get()
        self.exchange: Exchange | None = None
        self.content = b""
        self.wire = -1
        method = environ["REQUEST_METHOD"]
        upgrade = "HTTP_UPGRADE" in environ and bool(upgrade_of(environ))
        self.incoming = Incoming(method, dates=False, forgive=bool(upload.first), upgrade=upgrade, sends=route.sends)
        self.outgoing = Outgoing(method, environ["SERVER_PROTOCOL"], SERVER)

    def take(self) -> None:
        """Take the client's connection; gunicorn has it no more.

        Raises:
            BackendUnavailable: no descriptor is left.
        """
        try:
            self.wire = self.connection.take()
        except OSError as error:
            raise BackendUnavailable(f"a client's connection cannot be taken: {error.strerror}") from error

    def whole(self, content: bytes) -> bytes:
        """Return the complete answer as it goes to the client."""
        head = self.incoming.head
        assert head
        return self.outgoing.whole(head, content, date())

    @property
    def code(self) -> int:
        """The status of the answer, once its head is there."""
        head = self.incoming.head
        return head.code if head else 0

    # What the relay loop does from here on; from any thread

    def hand_over(self) -> None:
        """Have the loop wait for the answer."""
        exchange, content = self.exchange, self.content
        assert exchange
        if self.incoming.head is None:
            self.route.queue.enter(exchange)
        else:
            exchange.allow(self.route.stall_timeout)
        self._pass(lambda passage: passage.go_on(exchange, content))

    def refuse(self, error: MultisiteError) -> None:
        """Have the loop answer with the page for `error`."""
        self._pass(lambda passage: passage.refuse(error))

    def finish(self, rest: bytes) -> None:
        """Have the loop send the rest of the answer."""
        self._pass(lambda passage: passage.finish(rest))

    def _pass(self, go_on: Callable[[Passage], None]) -> None:
        loop, wire = relayloop.current(), self.connection.opened(self.wire)
        half_closed = client.has_left(wire)
        loop.call(lambda: go_on(Passage(loop, self, wire, half_closed)))
