"""One request whose answer takes a while, in the loop of its process.

At most one piece of the answer is held: the next one is received when the client has taken the last. In the same way,
the next piece of the request is read when the backend has taken the last. Neither waits for the other: an answer may
come before the request is over. A client that leaves frees the backend at once.

A `LoopRelay` owns the client's connection from when it is made, in the worker's thread, until the connection is closed.
While a helper reaches the site or asks why there was no answer, it waits for that as for everything else: it
notices that its client leaves, and answers in its own time if the helper does not.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import TypeVar

from multisite.errors import MultisiteError, SiteBusy, UpstreamError
from multisite.logs import incidents, requests, servicelog
from multisite.proxy import downstream, lingering
from multisite.proxy.body import Arriving, Unmeasured
from multisite.proxy.loop import RelayLoop, Watcher
from multisite.proxy.request import Request, date, page
from multisite.proxy.tunnel import Tunnel
from multisite.proxy.upstream import Exchange
from multisite.proxy.wire.http11 import Head

CLIENT_TIMEOUT = 60.0  # seconds in which a client takes something of its answer; nginx's send_timeout
HELPER_TIMEOUT = 30.0  # seconds within which a helper reaches a site, or learns why it gave no answer
LOOK_AT_QUEUE = 1.0  # seconds between two looks whether the backend has taken a request

_IN, _OUT, _LEFT = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP
_GONE = select.EPOLLHUP | select.EPOLLERR
_RESET = struct.pack("ii", 1, 0)  # struct linger: close with a reset

_log = logging.getLogger("multisite.passage")
_T = TypeVar("_T")


class LoopRelay(Watcher):
    """Relays one request: an `Exchange` with the backend on one side, the client's connection on the other.

    Args:
        loop: whose thread does everything.
        request: in its present state, with the client's connection taken.
        wire: that connection.
        half_closed: the client closed its side right after its request. It only has nothing more to send; one that does
            so later, or earlier, has left.
    """

    def __init__(self, loop: RelayLoop, request: Request, wire: socket.socket, half_closed: bool) -> None:
        head = request.incoming.head if request.outgoing.begun else None
        self.status = head.status if head else ""  # as gunicorn's access log wants to know it, from here
        self.headers = head.fields if head else []
        self._loop = loop
        self._destination = request.destination
        self._wire = wire
        self._worker = request.connection.worker
        self._environ = request.environ
        self._incoming = request.incoming
        self._outgoing = request.outgoing
        self._began = request.began
        self._site = request.site
        self._upload = request.upload
        self._exchange: Exchange | None = None
        self._unhelped: MultisiteError | None = None  # the error if the helper takes too long
        self._out: bytes | memoryview = b""
        self._gathers = False  # all of the body is to be there before the request is sent
        self._ends = self._is_cut = False  # when all of `_out` is sent; although that is not the whole answer
        self._wire_events = self._exchange_events = 0
        self._destination.places.add(self)
        self._half_closed = half_closed

    def __repr__(self) -> str:
        return f"<LoopRelay {self._environ.get('RAW_URI', '')} {self.status}>"

    @property
    def sent(self) -> int:
        """Bytes of the body that were sent."""
        return self._outgoing.sent

    # What it does first, in the loop

    def begin(self) -> None:
        """Let a helper send the request, once there is a process to send it to."""
        destination, environ, upload = self._destination, self._environ, self._upload
        if delay := destination.delay(lambda: self._loop.call(self.begin, self)):
            self._unhelped, self.deadline = destination.late, time.monotonic() + delay
            self._step(lambda: None)
        elif self._ends or self._wire.fileno() < 0:  # nobody waits for it any more
            upload.close()
        elif not self._have(lambda: destination.begin(environ, upload, False), self._begun, destination.late):
            upload.close()
            self._step(lambda: self._fail(SiteBusy("too many requests are waiting for connections to sites")))

    def gather(self) -> None:
        """Receive the whole body, whose length has to be sent first; then let a helper send the request."""
        self._gathers = True
        self._step(lambda: self._move(_IN))

    def go_on(self, exchange: Exchange, content: bytes) -> None:
        """Continue an exchange that has begun; `content` is the part of the body that has arrived."""
        self._exchange = exchange
        self._step(lambda: self._received(content))

    def finish(self, rest: bytes | memoryview) -> None:
        """Send the rest of an answer that is complete."""
        self._out, self._ends = rest, True
        self._step(self._flush)

    def refuse(self, error: MultisiteError) -> None:
        """Answer with the page for `error`."""
        self._step(lambda: self._fail(error))

    # With a helper

    def _have(
        self,
        errand: Callable[[], Exchange | None],
        then: Callable[[Exchange | BaseException | None], None],
        late: MultisiteError,
    ) -> bool:
        """Wait for a helper that runs `errand`; False if none can be had."""
        if not self._loop.later(self, lambda: self._as_site(errand), then):
            return False
        self._unhelped = late
        self.deadline = time.monotonic() + HELPER_TIMEOUT
        self._step(lambda: None)
        return True

    def _begun(self, outcome: Exchange | BaseException | None) -> None:
        """Continue what the helper has begun, unless nobody waits for it any more."""
        late, self._unhelped = self._unhelped, None
        if isinstance(outcome, Exchange):
            if late is None:
                outcome.close()
                return
            self._destination.queue.enter(outcome)
            self.go_on(outcome, b"")
            return
        if late and isinstance(outcome, Unmeasured):
            self.gather()
            return
        self._upload.close()
        if late and outcome:
            self._step(lambda: self._fail(self._answer_for(outcome)))

    def _explained(self, outcome: Exchange | BaseException | None) -> None:
        """Answer with what the helper has learned, or else with the original error."""
        late, self._unhelped = self._unhelped, None
        if isinstance(outcome, BaseException) and not isinstance(outcome, MultisiteError):
            self._answer_for(outcome)  # to the log
        if late:
            better = outcome if isinstance(outcome, MultisiteError) else late
            self._step(lambda: self._refuse(better))

    # From the loop

    def ready(self, descriptor: int, events: int) -> None:
        """Move what can be moved."""
        if descriptor == self._wire.fileno():
            if events & _GONE or (events & _LEFT and not self._upload.has_more):
                self.abort()
            else:
                self._step(lambda: self._move(events))
        elif self._exchange:
            if self._exchange.sending and events & ~_IN:
                self._step(self._exchange.push)
            if self._exchange and events & ~_OUT and not self._out:  # a hang-up comes unasked, and can wait
                self._step(self._receive)

    def expired(self, now: float) -> None:
        """Give up on the side that is waited for, or see whether the request has been taken."""
        if self._unhelped:
            late, self._unhelped = self._unhelped, None
            self._step(lambda: self._refuse(late))
        elif awaited := self._awaited:
            self._step(lambda: self._fail(awaited.late()))
        elif self._out or not self._exchange:
            self.abort()
        elif now < self._exchange.deadline:  # it was in the queue; others may have seen it taken since
            if self._destination.queue.check_taken(self._exchange):
                self._exchange.taken()
            self._step(lambda: None)
        else:
            self._fail(self._destination.queue.late(self._exchange))
            self._step(lambda: None)

    def failed(self, error: Exception) -> None:
        """Answer for what has gone wrong in the loop itself, where it may be impossible to wait for anything."""
        self._fail(self._answer_for(error))
        if self._wire.fileno() >= 0:
            self._wait()

    def leave(self) -> None:
        """Continue; the process waits for that."""

    def abort(self) -> None:
        """Close both sides, whatever is lost."""
        self._drop_exchange()
        self._close(reset=True)

    def let_go(self) -> None:
        """Close both sides silently: another process continues with them."""
        self._wire.close()
        if self._exchange:
            self._exchange.connection.close()

    # The request

    def _move(self, events: int) -> None:
        """Take what has come of the request's body, and give the client what there is of the answer."""
        if events & _IN and self._reads:
            self._take_body()
        elif events & _LEFT:
            if not self._ends:
                self._upload.check(downstream.unread(self._wire.fileno()))
            self._half_closed = True
        if self._out:
            self._flush()

    def _take_body(self) -> None:
        """Take what has come of the body, as much as can be passed on."""
        upload = self._upload
        if self._exchange:
            self._exchange.push()
        elif isinstance(upload, Arriving) and upload.gather():
            self._gathers = False
            self.begin()
        if not upload.has_more:
            self._half_closed = downstream.has_left(self._wire)

    @property
    def _reads(self) -> bool:
        """Whether more of the body can be taken from the client."""
        return self._gathers or (self._exchange is not None and self._exchange.waits_for_client)

    @property
    def _awaited(self) -> Arriving | None:
        """The body that the client has to continue next; a client that is being answered may take its time."""
        upload = self._upload
        return upload if isinstance(upload, Arriving) and self._reads and not self._outgoing.begun else None

    # The answer

    def _step(self, action: Callable[[], None]) -> None:
        """Do something, answer for its errors, and wait for what comes next."""
        try:
            action()
        except Exception as error:
            self._fail(self._answer_for(error))
        if self._wire.fileno() >= 0:
            self._wait()

    def _receive(self) -> None:
        exchange = self._exchange
        assert exchange
        content = exchange.collect(self._incoming)
        if content is None:
            return
        if self._incoming.head:  # before, drops must not stretch the time
            exchange.allow(self._destination.stall_timeout)
        self._received(content)

    def _received(self, content: bytes) -> None:
        incoming, outgoing = self._incoming, self._outgoing
        assert not self._out, "data that the client has not taken yet would be lost"
        parts = [outgoing.hints(fields) for fields in incoming.hints]
        incoming.hints.clear()
        if incoming.head and not outgoing.begun:
            self._answered(incoming.head)
            if incoming.switches:
                self._switch(incoming.head, content)
                return
            parts.append(outgoing.head(incoming.head, date()))
        parts.append(outgoing.content(content))
        if incoming.done:
            parts.append(outgoing.end())
            self._ends = True
            self._drop_exchange()
        self._out = b"".join(parts)
        if self._out or self._ends:
            self._flush()
        if incoming.failure and self._wire.fileno() >= 0:
            raise incoming.failure

    def _answered(self, head: Head) -> None:
        self.status, self.headers = head.status, head.fields
        now = time.monotonic()
        self._destination.pace.took(now - self._began, now)
        assert self._exchange
        requests.answered(self._environ, self._exchange.sent_at, now, head.times)
        self._destination.queue.leave(self._exchange)

    def _flush(self) -> None:
        """Send what the client takes."""
        try:
            self._out = downstream.flush(self._wire, self._out)
        except OSError:
            self.abort()
            return
        if self._ends and not self._out:
            self._close(reset=False)

    def _switch(self, head: Head, content: bytes) -> None:
        """Make a tunnel of both connections."""
        exchange, self._exchange = self._exchange, None
        assert exchange
        begin = self._outgoing.switch(head, self._environ["HTTP_UPGRADE"])
        self._unwatch(exchange)
        self._unwatch_wire()
        self._loop.remove(self)
        self._log_access()
        wire = socket.socket(fileno=self._wire.detach())
        self._destination.places.discard(self)
        Tunnel(self._loop, self._destination.places, wire, exchange.detach(), begin, content).start()

    # Errors

    def _fail(self, error: MultisiteError) -> None:
        """Answer with a page, or cut short what was begun."""
        if self._exchange:
            error = self._exchange.explain(error)
        self._drop_exchange()
        if self._outgoing.begun:
            self._is_cut = True
            self._tell(error)
            if self._out and not self._outgoing.bare:
                self._ends = True  # what was received before is the client's
            else:
                self._close(reset=self._outgoing.bare)
            return
        destination = self._destination
        asks = isinstance(error, UpstreamError) and not error.incident and destination.can_explain
        if not asks or not self._have(lambda: destination.explain(error), self._explained, error):
            self._refuse(error)

    def _answer_for(self, error: BaseException) -> MultisiteError:
        """Return the error that a visitor sees for `error`."""
        if isinstance(error, MultisiteError):
            return error
        return self._as_site(lambda: incidents.answer_for(_log, error, self._destination))

    def _as_site(self, act: Callable[[], _T]) -> _T:
        """Return what `act` returns; what it logs is about the site."""
        token = servicelog.current_site.set(self._site)
        try:
            return act()
        finally:
            servicelog.current_site.reset(token)

    def _refuse(self, error: MultisiteError) -> None:
        self._unhelped, self._gathers = None, False
        self._tell(error)
        self._page(error)

    def _page(self, error: MultisiteError) -> None:
        if self._wire.fileno() < 0:
            return
        head, body = self._as_site(lambda: page(error, self._environ))
        self.status, self.headers = head.status, head.fields
        self._out, self._ends = self._outgoing.whole(head, body, date()), True
        self._flush()

    def _tell(self, error: MultisiteError) -> None:
        if isinstance(error, UpstreamError):
            cut = ": an answer was cut short" if self._outgoing.begun else ""
            self._as_site(lambda: incidents.note(_log, error, f"{self._destination}{cut}"))

    # Waiting

    def _wait(self) -> None:
        """Wait for the events that are possible and useful."""
        reads = self._reads
        wanted = (0 if self._half_closed else _LEFT) | (_OUT if self._out else 0) | (_IN if reads else 0)
        self._loop.watch(self, self._wire.fileno(), wanted, self._wire_events)
        self._wire_events = wanted
        exchange = self._exchange
        if exchange:
            events = (_OUT if exchange.sending and not reads else 0) | (0 if self._out else _IN)
            self._loop.watch(self, exchange.fileno(), events, self._exchange_events)
            self._exchange_events = events
        self.deadline = self._next_deadline(exchange)
        self._loop.schedule(self)

    def _next_deadline(self, exchange: Exchange | None) -> float:
        if self._out:
            return time.monotonic() + CLIENT_TIMEOUT
        if self._unhelped:
            return self.deadline
        if awaited := self._awaited:
            return awaited.deadline(time.monotonic())
        if exchange is None:
            return math.inf
        if self._destination.queue.is_waiting(exchange):
            return min(exchange.deadline, time.monotonic() + LOOK_AT_QUEUE)
        return exchange.deadline

    def _drop_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange:
            self._destination.queue.leave(exchange)
            self._unwatch(exchange)
            exchange.close()

    def _unwatch(self, exchange: Exchange) -> None:
        self._loop.watch(self, exchange.fileno(), 0, self._exchange_events)
        self._exchange_events = 0

    def _unwatch_wire(self) -> None:
        self._loop.watch(self, self._wire.fileno(), 0, self._wire_events)
        self._wire_events = 0

    def _close(self, reset: bool) -> None:
        """End the client's connection; a reset shows the client that its answer is incomplete."""
        if self._wire.fileno() < 0:
            return
        self._unhelped = None
        self._loop.remove(self)
        self._unwatch_wire()
        self._destination.places.discard(self)
        if reset:
            with contextlib.suppress(OSError):
                if self._outgoing.bare:
                    self._wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._wire.close()
        else:
            lingering.close(self._loop, self._destination.places, self._wire, self._upload.has_more)
        self._log_access()

    def _log_access(self) -> None:
        head = self._incoming.head
        status = self.status or (head.status if head else "")
        whole = (self._ends and not self._out and not self._is_cut) or self._incoming.switches
        try:
            if self._worker.logs_access and self.status:
                self._worker.log_access(self, self._environ, time.monotonic() - self._began)
        finally:
            requests.ended(self._environ, int(status[:3] or 0), self.sent, cut=not whole)
