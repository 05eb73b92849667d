"""One thread per worker process that waits for all connections that are idle just now.

Connections belong to `Watcher`s; the loop calls each when something is ready, or when its time is over. Everything that
a watcher does happens in the loop's thread and never waits. Work that has to wait (the supervisor, a name server) is
left to a helper (`later`).

What is in flight is in the loop from the moment at which somebody leaves it to it (`enter`), so that it is never lost
between two places: what its watcher is to do first may still be in the inbox, or with a helper, while the watcher
already has its connections, its deadline, and the duty to answer for whatever goes wrong (`failed`).

The thread is started by the first request that needs it, and is a daemon: what is in flight at the worker's end is
waited for by `finish`, which Python calls at its exit, when the worker has stopped to accept.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import resource
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

from multisite.errors import BackendUnavailable, SiteBusy
from multisite.logs import logfiles
from multisite.proxy.errands import Helpers
from multisite.proxy.timers import Timer, Timers
from multisite.sites.server import Worker, find_worker

LEFT_ALONE = 128  # descriptors that the loop leaves to the server and the sites in this process
GRACE = 30.0  # seconds for what is in flight at the end of a process that is not gunicorn's
LAST = 2.0  # seconds that ending what is still in flight then takes at most
ERRANDS = 10.0  # seconds that a worker waits for its helpers before a child continues
VIGIL = 1.0  # seconds between two looks whether the worker is about to end, while somebody wants to know early

_log = logging.getLogger("multisite.relayloop")

Result = TypeVar("Result")


class Watcher(Protocol):
    """Something that has connections in the loop.

    `deadline` is in monotonic seconds, `math.inf` for none; it may be moved at any time, in the loop's thread. `timer`
    is the loop's own note of it, None at first.
    """

    deadline: float = math.inf
    timer: Timer | None = None

    def ready(self, descriptor: int, events: int) -> None:
        """Act on events of epoll(7) for one of its connections: also on hang-ups and errors, which always come."""

    def expired(self, now: float) -> None:
        """Act on the deadline."""
        self.abort()

    def failed(self, error: Exception) -> None:
        """Answer for an error that it has not foreseen."""
        self.abort()

    def leave(self) -> None:
        """Note that this process ends as soon as it can."""

    def abort(self) -> None:
        """Close everything, whatever is lost."""

    def let_go(self) -> None:
        """Close everything silently: another process continues with it."""


class RelayLoop:
    """An event loop over `select.epoll`.

    Attributes:
        room: how many requests may be in flight in it.
        is_parked: another process will continue with it.
        is_stopped: nothing in flight is worth waiting for.
        vigil: how many watchers want to know at once that the process is about to end.
        is_ending: tells whether it is.
    """

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake, select.EPOLLIN)
        self._owners: dict[int, Watcher] = {}  # by descriptor
        self._watchers: set[Watcher] = set()  # its single operations are atomic
        self._timers: Timers[Watcher] = Timers()
        self._inbox: deque[tuple[Watcher | None, Callable[[], None]]] = deque()
        self._helpers = Helpers()
        self._lock = threading.Lock()
        self.is_stopped = self.is_parked = self._leaving = False
        self._thread: threading.Thread | None = None
        self.vigil = 0
        self.is_ending: Callable[[], bool] = lambda: False
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.room = sys.maxsize if most == resource.RLIM_INFINITY else max(0, most - LEFT_ALONE) // 2

    def __repr__(self) -> str:
        return f"<RelayLoop {self.in_flight} in flight>"

    @property
    def in_flight(self) -> int:
        """How many requests it has, those that wait for a helper included."""
        return len(self._watchers)

    # From any thread

    def start(self) -> None:
        """Start the thread if it is not running.

        Raises:
            BackendUnavailable: the system has no thread left; nothing has changed.
        """
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self.run, name="multisite-relay", daemon=True)
                    try:
                        thread.start()
                    except RuntimeError as error:
                        raise BackendUnavailable(f"cannot relay requests: {error}") from error
                    self._thread = thread

    def enter(self, watcher: Watcher, first: Callable[[], None]) -> None:
        """Look after `watcher` from now on, and let it do something first, in the loop's thread.

        Raises:
            BackendUnavailable: as `start`.
        """
        self.start()
        self._watchers.add(watcher)
        self.call(first, watcher)

    def call(self, function: Callable[[], None], watcher: Watcher | None = None) -> None:
        """Call `function` in the loop's thread; `watcher` handles its errors.

        Raises:
            BackendUnavailable: as `start`.
        """
        self.start()
        self._inbox.append((watcher, function))
        os.eventfd_write(self._wake, 1)

    def later(
        self, watcher: Watcher, errand: Callable[[], Result], then: Callable[[Result | BaseException], None]
    ) -> bool:
        """Let a helper run `errand`, which may wait, and call `then` in the loop's thread with the result.

        `watcher` may have ended by then.

        Returns:
            False if too many wait for a helper already, or if there is no helper.
        """

        def run() -> None:
            result: Result | BaseException
            try:
                result = errand()
            except BaseException as error:
                result = error
            self.call(lambda: then(result), watcher)

        return self._helpers.take_errand(run)

    def finish(self, grace: float) -> None:
        """Wait for what is in flight, at most this many seconds; then end, and make sure that the rest is notified."""
        if self._thread and not self.is_stopped:
            self.call(self._leave)
            deadline = time.monotonic() + grace
            while (self._watchers or self._inbox) and time.monotonic() < deadline and not self.is_stopped:
                self._thread.join(0.05)
        self.stop()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(LAST)

    def stop(self) -> None:
        """End soon, whatever is in flight."""
        self.is_stopped = True
        with contextlib.suppress(OSError):  # it has been let go of
            os.eventfd_write(self._wake, 1)

    def finish_errands(self, deadline: float) -> None:
        """Keep helpers from beginning anything, and wait for their current work: no child can continue it."""
        self._helpers.rest(deadline)

    def park(self) -> None:
        """End the thread between two events; `drain` continues from there."""
        self.is_parked = True
        os.eventfd_write(self._wake, 1)
        if self._thread:
            self._thread.join()

    def drain(self, deadline: float) -> None:
        """Continue in this thread where the other one was parked, until nothing is in flight or the time is over."""
        self.is_parked = False
        self._lock = threading.Lock()
        self._helpers = self._helpers.heirs()
        self._thread = threading.current_thread()
        self._leave()
        while (self._watchers or self._inbox) and time.monotonic() < deadline and not self.is_stopped:
            self._turn(max(0.0, deadline - time.monotonic()))
        self.stop()
        self._end()

    # In the loop's thread

    def add(self, watcher: Watcher) -> None:
        """Look after `watcher`, whose deadline is set."""
        self._watchers.add(watcher)
        self.schedule(watcher)

    def schedule(self, watcher: Watcher) -> None:
        """Take note of an earlier deadline; a later one is noticed by itself."""
        self._timers.schedule(watcher)

    def watch(self, watcher: Watcher, descriptor: int, events: int, before: int) -> None:
        """Wait for `events` on a connection rather than those `before`; 0 for none.

        Hang-ups and errors come along with any (epoll_ctl(2)); with none, nothing does.

        Raises:
            OSError: the system cannot watch any more; nothing has changed.
        """
        if events == before:
            return
        if not before:
            self._poll.register(descriptor, events)
            self._owners[descriptor] = watcher
        elif events:
            self._poll.modify(descriptor, events)
        else:
            del self._owners[descriptor]
            self._poll.unregister(descriptor)

    def remove(self, watcher: Watcher) -> None:
        """Forget `watcher`, which waits for nothing any more."""
        self._watchers.discard(watcher)
        self._timers.call_off(watcher)

    def run(self) -> None:
        """Return when stopped or parked."""
        while not self.is_stopped and not self.is_parked:
            self._turn()
        if self.is_stopped:
            self._end()

    def _turn(self, most: float = math.inf) -> None:
        for descriptor, events in self._poll.poll(self._pause(most)):
            owner = self._owners.get(descriptor)
            if owner is not None:
                try:
                    owner.ready(descriptor, events)
                except Exception as error:
                    self._failed(owner, error)
            elif descriptor == self._wake:
                os.eventfd_read(self._wake)
        self._empty_inbox()
        self._expire(time.monotonic())
        if self.vigil and not self._leaving and self.is_ending():
            self._leave()

    def _pause(self, most: float) -> float | None:
        if self.vigil and not self._leaving:
            most = min(most, VIGIL)
        following = self._timers.next
        if following < math.inf:
            most = min(most, max(0.0, following - time.monotonic() + 0.001))
        return None if most == math.inf else most

    def _empty_inbox(self) -> None:
        while self._inbox:
            watcher, function = self._inbox.popleft()
            try:
                function()
            except Exception as error:
                self._failed(watcher, error)

    def _expire(self, now: float) -> None:
        while watcher := self._timers.due(now):
            try:
                watcher.expired(now)
            except Exception as error:
                self._failed(watcher, error)
            if watcher in self._watchers:
                self.schedule(watcher)

    def _failed(self, watcher: Watcher | None, error: Exception) -> None:
        """Let its watcher handle the error of a request, or end it: other requests are not affected."""
        if watcher is None:
            _log.error("MS470 the relay loop failed", exc_info=error)
            return
        try:
            watcher.failed(error)
        except Exception:
            _log.exception("MS471 a relayed request failed")
            self._abort(watcher)

    def _abort(self, watcher: Watcher) -> None:
        try:
            watcher.abort()
        except Exception:
            _log.exception("MS472 a relayed request cannot be ended")
            self.remove(watcher)
            for descriptor in [at for at, owner in self._owners.items() if owner is watcher]:
                del self._owners[descriptor]
            with contextlib.suppress(Exception):
                watcher.let_go()

    def _leave(self) -> None:
        """Tell all that the process ends."""
        self._leaving = True
        for watcher in list(self._watchers):
            try:
                watcher.leave()
            except Exception as error:
                self._failed(watcher, error)

    def _end(self) -> None:
        """Abort what is in flight, and what follows from that."""
        for _ in range(3):
            self._empty_inbox()
            for watcher in list(self._watchers):
                self._abort(watcher)

    def let_go(self) -> None:
        """Close connections that another process continues with, on this or the other side of a fork."""
        self.is_stopped = True
        for watcher in list(self._watchers):
            with contextlib.suppress(Exception):
                watcher.let_go()
        self._watchers.clear()
        self._inbox.clear()
        self._poll.close()
        os.close(self._wake)


_loop: RelayLoop | None = None
_making = threading.Lock()


def current() -> RelayLoop:
    """Return the loop of this process."""
    global _loop
    if _loop is None:
        with _making:
            if _loop is None:
                _loop = _new_loop()
    return _loop


def check_room(held: int) -> None:
    """Check whether there is room for one more request of a site that holds this many places in the loop.

    A request takes two descriptors, and a worker that has none left to accept with dies. A site may have another while
    it holds fewer places than are free: one comes to hold half of them, two a third each.

    Raises:
        SiteBusy: there is none.
    """
    if held > _ALWAYS and _loop is not None and held >= _loop.room - _loop.in_flight:
        raise SiteBusy("this site has as many requests in progress as this server can hold for it")


_ALWAYS = 8


def _new_loop() -> RelayLoop:
    loop = RelayLoop()
    worker = find_worker()
    if worker:
        loop.is_ending = worker.is_ending
        worker.when_interrupted(loop.stop)
        worker.when_ending(lambda: _leave(loop, worker))
    atexit.register(_finish, loop, os.getpid())
    return loop


def _finish(loop: RelayLoop, pid: int) -> None:
    if os.getpid() == pid:
        loop.finish(GRACE)


def _leave(loop: RelayLoop, worker: Worker) -> None:
    """At the end of a worker: wait for what is in flight, or leave it to a child.

    gunicorn starts a new worker only when the old process has ended. One that ends after `max_requests` may have a
    slow download for each of its last requests, and its successor is wanted at once.
    """
    deadline = time.monotonic() + worker.grace
    worker.close_listeners()  # no client should connect to a socket that nobody serves any more
    if not (worker.recycles and loop.in_flight) or loop.is_stopped:
        loop.finish(worker.grace)
        return
    loop.finish_errands(min(deadline, time.monotonic() + ERRANDS))
    loop.park()
    try:
        child = os.fork()
    except OSError as error:  # no process is left
        _log.warning("MS473 a worker keeps running until its last requests are answered: %s", error.strerror)
        loop.drain(deadline)
        return
    if child:
        loop.let_go()
        return
    with contextlib.suppress(BaseException):  # nothing of the worker's own end may happen twice
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, lambda *_: loop.stop())
        loop.drain(deadline)
        logfiles.flush()
    os._exit(0)


def _forked() -> None:
    """Let go of all in a child that other code has made; our own child continues with the same loop."""
    global _loop, _making
    _making = threading.Lock()
    if _loop is not None and not _loop.is_parked:
        loop, _loop = _loop, None
        loop.let_go()


os.register_at_fork(after_in_child=_forked)
