"""Requests whose answers the only thread of a process collects, while it accepts others.

A sync worker has one thread. While it waits for an answer it also watches the listening socket, and returns as soon as
a client connects. So no client ever waits for another client's site, and a busy worker never sleeps between sending a
request and collecting the answer to the last: that is worth a third of its throughput. If there are other workers, one
of them may have accepted the client first; so it waits a little longer. Answers that it does not collect within a
moment, because it is busy, are left to the relay loop.
"""

from __future__ import annotations

import logging
import math
import os
import select
import time
from collections.abc import Callable
from types import SimpleNamespace

from multisite.errors import MultisiteError
from multisite.logs.requests import answered, ended
from multisite.proxy import downstream, leave, loop
from multisite.proxy.loop import RelayLoop, Watcher
from multisite.proxy.request import Request
from multisite.sites.server import Worker

PATIENCE = 0.01  # seconds to wait for answers if no other client connects
BRIEFLY = 0.001  # seconds to wait for them all the same if another worker may accept the client
MOMENT = 0.002  # seconds until the loop sees to an answer
QUIET = 50  # moments without a request in hand after which the loop looks no more

ALWAYS_FITS = 8192  # bytes: half of what Linux lets a new TCP connection buffer (tcp_wmem, tcp(7))

_log = logging.getLogger("multisite.pending")

_IN = select.POLLIN


class SyncRelay:
    """The requests in hand of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._listeners = worker.listeners()
        self._has_siblings = worker.has_siblings
        self._requests: dict[int, Request] = {}  # by descriptor of the exchange; the thread that pops one owns it
        self._attended = False
        self._looking = False
        self._net = _Net(self)

    def attend(self, request: Request) -> None:
        """Look after `request` and the others in hand, until they are answered or another client has to be served."""
        assert request.exchange
        self._attended = True
        self._requests[request.exchange.fileno()] = request
        try:
            self._collect(time.monotonic() + PATIENCE)
        except Exception:
            _log.exception("MS480 answers are left to the relay loop")
            self.hand_over(math.inf)
        finally:
            self._attended = False
            self._have_looked_after()

    def _have_looked_after(self) -> None:
        """See to it that the loop catches what is still in hand."""
        if self._requests and not self._looking:
            self._looking = True
            try:
                self._net.start()
            except (OSError, MultisiteError) as error:
                self._looking = False
                for request in self._taken(math.inf):
                    request.fail(error)

    def _collect(self, until: float) -> None:
        requests, listeners = self._requests, self._listeners
        left = PATIENCE
        while requests:
            if self._pass_answers(left, listeners) and not (self._has_siblings and self._nobody_is_left()):
                return
            left = until - time.monotonic()
            if left <= 0:
                self._give_up()

    def _pass_answers(self, seconds: float, listeners: tuple[int, ...]) -> bool:
        """Wait for answers and pass them on; tell whether a client has connected to one of `listeners`."""
        requests = self._requests
        poll = select.poll()
        for descriptor in (*listeners, *list(requests)):  # at once, since the loop takes from them, too
            poll.register(descriptor, _IN)
        knocks = False
        for descriptor, _ in poll.poll(max(0.0, seconds) * 1000):
            request = requests.pop(descriptor, None)
            if request:
                _fenced(request, lambda request=request, at=descriptor: self._answer(at, request))  # type: ignore[misc]
            elif descriptor in listeners:
                knocks = True
        return knocks

    def _nobody_is_left(self) -> bool:
        """Give what was just sent a moment; tell whether another worker has accepted the client that waited."""
        fresh = time.monotonic() - BRIEFLY
        if any(request.exchange.sent_at > fresh for request in list(self._requests.values())):  # type: ignore[union-attr]
            self._pass_answers(BRIEFLY, ())
        return not self._pass_answers(0.0, self._listeners)

    def _answer(self, descriptor: int, request: Request) -> None:
        """Take the part of an answer that has arrived, and pass it on if it is complete."""
        exchange = request.exchange
        assert exchange
        try:
            is_small = request.collect()
        except MultisiteError as error:
            exchange.close()
            leave.refuse(request, error)
            return
        if request.is_answered:
            exchange.close()
            self._send(request)
        elif is_small:
            self._requests[descriptor] = request
        else:
            leave.hand_over(request)

    def _send(self, request: Request) -> None:
        head = request.incoming.head
        if head and head.times and request.exchange:
            answered(request.environ, request.exchange.sent_at, time.monotonic(), head.times)
        data = request.whole()
        if len(data) <= ALWAYS_FITS and request.connection.said_last:
            sent = _write(request.wire, data)
        else:
            sent = request.connection.send(data, request.wire)
        if sent < len(data) or downstream.unread(request.wire):  # what it sent too much would make a reset of the close
            leave.finish(request, data[sent:])
            return
        descriptor, request.wire = request.wire, -1
        os.close(descriptor)
        ended(request.environ, request.code, len(request.content))
        if self._worker.logs_access:
            self._log(request)

    def _log(self, request: Request) -> None:
        head = request.incoming.head
        assert head
        told = SimpleNamespace(status=head.status, headers=head.fields, sent=request.outgoing.sent)
        self._worker.log_access(told, request.environ, time.monotonic() - request.began)

    def _give_up(self) -> None:
        """Leave what was waited for long enough to the loop."""
        now = time.monotonic()
        for request in list(self._requests.values()):
            request.destination.pace.was_slow(now)
        self.hand_over(math.inf)

    # In the loop's thread, too

    def hand_over(self, before: float) -> int:
        """Give the loop what was sent before this time; return how many that was."""
        taken = self._taken(before)
        for request in taken:
            _fenced(request, lambda request=request: leave.hand_over(request))  # type: ignore[misc]
        return len(taken)

    def _taken(self, before: float) -> list[Request]:
        """Take out of our hands what was sent before this time."""
        old = [at for at, request in list(self._requests.items()) if request.exchange.sent_at < before]  # type: ignore[union-attr]
        return [request for request in (self._requests.pop(at, None) for at in old) if request]

    def let_go(self) -> None:
        """Close all that is in hand silently: another process continues with it."""
        for request in self._taken(math.inf):
            if request.exchange:
                request.exchange.connection.close()
            os.close(request.wire)

    def check_due(self, now: float) -> bool:
        """See to answers that the worker does not come back for; tell whether there is anything in hand."""
        if not self._attended:
            self.hand_over(now - MOMENT)
        return bool(self._requests)

    def rest(self) -> bool:
        """Tell whether there is nothing to look after; `attend` has to say so from now on."""
        self._looking = False
        if self._requests and not self._attended:
            self._looking = True
        return not self._looking


def _fenced(request: Request, action: Callable[[], None]) -> None:
    """Do something with a request that nobody holds meanwhile; whatever goes wrong is answered."""
    try:
        action()
    except Exception as error:
        request.fail(error)


def _write(descriptor: int, data: bytes) -> int:
    """Send what fits into a connection's buffer whatever the client does; a socket object costs more."""
    try:
        return os.write(descriptor, data)
    except OSError:
        return len(data)  # it left; nobody can be told


class _Net(Watcher):
    """Catches what the worker leaves, in the loop."""

    def __init__(self, relay: SyncRelay) -> None:
        self._relay = relay
        self._quiet = 0
        self._loop: RelayLoop | None = None

    def start(self) -> None:
        """Look every moment, until nothing has been in hand for a while."""
        self._loop = loop.current()
        self._loop.enter(self, self._begin)

    def _begin(self) -> None:
        assert self._loop
        self._quiet = 0
        self.deadline = time.monotonic() + MOMENT
        self._loop.add(self)

    def ready(self, descriptor: int, events: int) -> None:
        """It has no connections."""

    def expired(self, now: float) -> None:
        """Look."""
        self._quiet = 0 if self._relay.check_due(now) else self._quiet + 1
        if self._quiet > QUIET and self._relay.rest():
            self._retire()
        else:
            self.deadline = now + MOMENT

    def failed(self, error: Exception) -> None:
        """Leave nothing in hand that nobody would look after."""
        _log.error("MS480 answers are left to the relay loop", exc_info=error)
        self.leave()

    def leave(self) -> None:
        """Let the loop handle all that the worker has in hand: the worker does not return."""
        self._relay.hand_over(math.inf)
        if self._relay.rest():
            self._retire()

    def abort(self) -> None:
        """Look no more."""
        self._relay.hand_over(math.inf)
        self._retire()

    def let_go(self) -> None:
        """Close what is in hand."""
        self._relay.let_go()

    def _retire(self) -> None:
        assert self._loop
        self.deadline = math.inf
        self._loop.remove(self)


def of(worker: Worker) -> SyncRelay:
    """Return what this worker has in hand."""
    global _current
    if _current is None or _current[0] is not worker:
        _current = (worker, SyncRelay(worker))
    return _current[1]


_current: tuple[Worker, SyncRelay] | None = None
