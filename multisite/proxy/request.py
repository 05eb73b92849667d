"""A request, until its answer is complete or the relay loop has it."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, NoReturn

from multisite.errors import BackendUnavailable, MultisiteError, pages
from multisite.logs import incidents, requests, servicelog
from multisite.proxy import downstream
from multisite.proxy.body import Arriving, Upload, length_of
from multisite.proxy.destination import Destination
from multisite.proxy.downstream import Connection, Environ
from multisite.proxy.headers import upgrade_of
from multisite.proxy.upstream import Exchange
from multisite.proxy.wire.http11 import Head
from multisite.proxy.wire.responses import Incoming, Outgoing

SERVER = "gunicorn"  # no other server lets us have the connection; this is what it calls itself

_log = logging.getLogger("multisite.request")


_NONE = Upload(b"", None)


class Request:
    """One request in the hands of a worker's thread.

    Attributes:
        exchange: with the backend, None before it has begun.
        content: the part of the answer's body that has arrived and was not passed on.
        wire: descriptor of the client's connection while it is this request's, else -1: before it is taken, and once it
            is closed or the loop has it.
    """

    __slots__ = (
        *("began", "connection", "content", "environ", "exchange", "incoming", "outgoing"),
        *("destination", "site", "upload", "wire"),
    )

    def __init__(
        self, destination: Destination, environ: Environ, connection: Connection, upload: Upload | None = None
    ) -> None:
        self.destination = destination
        self.environ = environ
        self.upload = upload or _NONE
        self.connection = connection
        self.began = time.monotonic()
        self.site = servicelog.current_site.get()
        self.exchange: Exchange | None = None
        self.content = b""
        self.wire = -1
        method = environ["REQUEST_METHOD"]
        upgrade = "HTTP_UPGRADE" in environ and bool(upgrade_of(environ))
        has_body = upload is None or bool(upload.first)
        self.incoming = Incoming(method, dates=False, forgive=has_body, upgrade=upgrade, sends=destination.sends)
        self.outgoing = Outgoing(method, environ["SERVER_PROTOCOL"], SERVER)

    def leave(self, go_on: Callable[[], None]) -> NoReturn:
        """Take the client's connection from gunicorn, which forgets the request, and pass it to `go_on`.

        Raises:
            BackendUnavailable: no descriptor is left; gunicorn still has the connection.
            Ended: there is nothing left to do here.
        """
        try:
            self.wire = self.connection.take_descriptor()
        except OSError as error:
            raise BackendUnavailable(f"cannot take a client's connection: {error.strerror}") from error
        try:
            go_on()
        except Exception as error:
            self.fail(error)
        downstream.end()

    def fail(self, error: Exception) -> None:
        """Answer an error without waiting for anything: with a page, or by cutting the answer short."""
        if self.exchange:
            self.exchange.close()
        self.upload.close()
        told = incidents.answer_for(_log, error, self.destination)
        descriptor, self.wire = self.wire, -1
        if descriptor < 0:  # it has been answered
            return
        wire = self.connection.opened(descriptor)
        status, sent = 0, 0
        try:
            if not self.outgoing.begun:
                head, body = page(told, self.environ)
                status, sent = head.code, len(body)
                wire.send(self.outgoing.whole(head, body, date()), socket.MSG_NOSIGNAL)
                wire.recv(65536)  # what it sent too much would make a reset of the close
        except OSError:
            pass  # it has left, or takes nothing
        finally:
            wire.close()
            requests.ended(self.environ, status or self.code, sent, cut=not status)

    def arrive(self) -> None:
        """Read the body from the connection, which has been taken.

        Raises:
            BadRequest: it is framed wrongly, or its length is no number.
        """
        os.set_blocking(self.wire, False)
        self.upload = upload = Arriving(self.wire, length_of(self.environ), self.destination.upload_rate)
        upload.begin(self.connection.ahead())

    def collect(self) -> bool:
        """Take what has come of the answer; tell whether the rest may come in a moment (see `Incoming.is_small`).

        Raises:
            MultisiteError: as `Exchange.collect`.
        """
        assert self.exchange
        self.content += self.exchange.collect(self.incoming) or b""
        return self.incoming.is_small(len(self.content))

    @property
    def is_answered(self) -> bool:
        """Whether all of the answer is there, and can be passed on as a whole."""
        return self.incoming.done and not self.incoming.hints

    def whole(self) -> bytes:
        """Return the complete answer as it goes to the client."""
        head = self.incoming.head
        assert head
        return self.outgoing.whole(head, self.content, date())

    @property
    def code(self) -> int:
        """The status of the answer, once its head is there."""
        head = self.incoming.head
        return head.code if head else 0


def page(error: MultisiteError, environ: Environ) -> tuple[Head, bytes]:
    """Return the page that answers an error, as we send it ourselves."""
    told: list[Any] = []
    body = b"".join(pages.for_error(error)(environ, lambda *said: told.extend(said[:2])))  # type: ignore[arg-type]
    status, fields = told
    return Head(error.status, status, fields, len(body), False), body


def date() -> str:
    """Return the time for a Date field (RFC 9110 section 6.6.1)."""
    global _last
    now = int(time.time())
    if _last[0] != now:
        _last = (now, formatdate(now, usegmt=True))
    return _last[1]


_last = (0, "")
