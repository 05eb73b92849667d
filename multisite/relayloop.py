"""One thread per worker process that waits for all connections on which nothing happens just now.

Connections belong to `Watcher`s; the loop tells each what is ready, or that its time is over. Everything a watcher
does happens in the loop's thread and never waits. What has to wait (the supervisor, a name server) runs in a helper
thread (`later`).

The thread is started by the first request that needs it, and is a daemon: what is in flight at the worker's end is
waited for by `finish`, which Python calls at its exit, when the worker has stopped to accept.
"""

from __future__ import annotations

import atexit
import contextlib
import heapq
import itertools
import logging
import math
import os
import queue
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from multisite import client, logbatch
from multisite.errors import SiteBusy

LEFT_ALONE = 128  # descriptors that the loop leaves to the server and the sites in this process
GRACE = 30.0  # seconds for what is in flight at the end of a process that is not gunicorn's
MOST_HELPERS = 8
MOST_ERRANDS = 1000  # waiting for a helper

_log = logging.getLogger("multisite.relayloop")


class Watcher(Protocol):
    """Something that has connections in the loop.

    `deadline` is in monotonic seconds, `math.inf` for none; it may be moved at any time, in the loop's thread. `due` is
    the loop's own note of it, `math.inf` at first.
    """

    deadline: float
    due: float

    def ready(self, descriptor: int, events: int) -> None:
        """Act on what epoll(7) says of one of its connections."""

    def expired(self, now: float) -> None:
        """Act on the deadline."""

    def abort(self) -> None:
        """Close everything, whatever is lost."""

    def sockets(self) -> list[socket.socket]:
        """Return its connections."""


class RelayLoop:
    """An event loop over `select.epoll`.

    Attributes:
        room: how many requests may be in flight in it.
    """

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake, select.EPOLLIN)
        self._owners: dict[int, Watcher] = {}  # by descriptor
        self._watchers: set[Watcher] = set()
        self._timers: list[tuple[float, int, Watcher]] = []
        self._number = itertools.count()
        self._inbox: deque[Callable[[], None]] = deque()
        self._errands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._helpers = 0
        self._busy = 0
        self._lock = threading.Lock()
        self._stopping = False
        self._parked = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.room = sys.maxsize if most == resource.RLIM_INFINITY else max(0, most - LEFT_ALONE) // 2

    def __repr__(self) -> str:
        return f"<RelayLoop {self.in_flight} in flight>"

    @property
    def in_flight(self) -> int:
        """How many requests it has, those that wait for a helper included."""
        return len(self._watchers) + len(self._inbox) + self._busy

    # From any thread

    def call(self, function: Callable[[], None]) -> None:
        """Have `function` called in the loop's thread."""
        self._inbox.append(function)
        if self._thread is None:
            self._start()
        os.eventfd_write(self._wake, 1)

    def later(self, errand: Callable[[], None]) -> bool:
        """Have `errand`, which may wait, run by a helper; False if too many are waiting for one."""
        with self._lock:
            if self._busy >= MOST_ERRANDS:
                return False
            self._busy += 1
            new = self._helpers < min(MOST_HELPERS, self._busy)
            self._helpers += new
        if self._thread is None:
            self._start()
        self._errands.put(errand)
        if new:
            threading.Thread(target=self._help, name="multisite-helper", daemon=True).start()
        return True

    def finish(self, grace: float) -> None:
        """Wait for what is in flight, so many seconds at most; then end."""
        deadline = time.monotonic() + grace
        while self.in_flight and time.monotonic() < deadline and not self._stopping:
            self._ended.wait(0.05)
        if not self._stopping:
            self.stop()

    def finish_errands(self, grace: float) -> None:
        """Wait until no helper is busy: no child can go on with what it does."""
        deadline = time.monotonic() + grace
        while self._busy and time.monotonic() < deadline and not self._stopping:
            self._ended.wait(0.01)

    def stop(self) -> None:
        """End soon, whatever is in flight."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def park(self) -> None:
        """Have the thread end between two events; `run` may go on from there in another."""
        self._parked = True
        os.eventfd_write(self._wake, 1)
        if self._thread:
            self._thread.join()

    def drain(self, deadline: float) -> None:
        """Go on where the parent's thread was parked, until nothing is in flight or the time is over."""
        self._parked = False
        while self._watchers and time.monotonic() < deadline:
            self._turn(min(1.0, max(0.0, deadline - time.monotonic())))

    @property
    def is_parked(self) -> bool:
        """Whether another process is to go on with it."""
        return self._parked

    @property
    def is_stopped(self) -> bool:
        """Whether nothing in flight is worth waiting for."""
        return self._stopping

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self.run, name="multisite-relay", daemon=True)
                self._thread.start()

    def _help(self) -> None:
        while True:
            errand = self._errands.get()
            try:
                errand()
            except Exception:  # a helper serves all sites
                _log.exception("a relayed request failed")
            finally:
                with self._lock:
                    self._busy -= 1

    # In the loop's thread

    def add(self, watcher: Watcher) -> None:
        """Look after `watcher`, whose deadline is set."""
        self._watchers.add(watcher)
        self.schedule(watcher)

    def schedule(self, watcher: Watcher) -> None:
        """Take note of an earlier deadline; a later one is noticed by itself."""
        if watcher.deadline < watcher.due:
            watcher.due = watcher.deadline
            heapq.heappush(self._timers, (watcher.deadline, next(self._number), watcher))

    def watch(self, watcher: Watcher, descriptor: int, events: int, before: int) -> None:
        """Wait for `events` on a connection rather than those `before`; 0 for none."""
        if events == before:
            return
        if not before:
            self._owners[descriptor] = watcher
            self._poll.register(descriptor, events)
        elif events:
            self._poll.modify(descriptor, events)
        else:
            del self._owners[descriptor]
            self._poll.unregister(descriptor)

    def remove(self, watcher: Watcher) -> None:
        """Forget `watcher`, which waits for nothing any more."""
        self._watchers.discard(watcher)

    def run(self) -> None:
        """Return when stopped or parked."""
        self._parked = False
        while not self._stopping and not self._parked:
            self._turn()
        if self._stopping:
            for watcher in list(self._watchers):
                watcher.abort()
        self._ended.set()

    def _turn(self, most: float = math.inf) -> None:
        for descriptor, events in self._poll.poll(self._pause(most)):
            owner = self._owners.get(descriptor)
            if owner is not None:
                try:
                    owner.ready(descriptor, events)
                except Exception:
                    self._failed(owner)
            elif descriptor == self._wake:
                os.eventfd_read(self._wake)
        while self._inbox:
            try:
                self._inbox.popleft()()
            except Exception:  # one request's fault is not the others'
                _log.exception("a relayed request failed")
        self._expire(time.monotonic())

    def _pause(self, most: float) -> float | None:
        if self._timers:
            most = min(most, max(0.0, self._timers[0][0] - time.monotonic() + 0.001))
        return None if most == math.inf else most

    def _expire(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            due, _, watcher = heapq.heappop(self._timers)
            if watcher not in self._watchers or due != watcher.due:
                continue  # it has gone, or has an earlier entry
            watcher.due = math.inf
            if watcher.deadline <= now:
                try:
                    watcher.expired(now)
                except Exception:
                    self._failed(watcher)
            if watcher in self._watchers:
                self.schedule(watcher)

    def _failed(self, watcher: Watcher) -> None:
        """One request's fault is not the others'."""
        _log.exception("a relayed request failed")
        watcher.abort()

    def forget(self) -> None:
        """Let go of connections that another process goes on with, at this or the other side of a fork."""
        self._stopping = True
        for watcher in self._watchers:
            for sock in watcher.sockets():
                sock.close()
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
    """Look whether there is room for one more request of a site that holds so many places in the loop.

    A request takes two descriptors, and a worker that has none left to accept with dies. A site may have another while
    it holds fewer places than are free: one comes to hold half of them, two a third each.

    Raises:
        SiteBusy: there is none.
    """
    if held > _ALWAYS and _loop is not None and held >= _loop.room - _loop.in_flight:
        raise SiteBusy("this site has as many requests under way as this server can hold for it")


_ALWAYS = 8


def _new_loop() -> RelayLoop:
    loop = RelayLoop()
    worker = client.find_worker()
    if worker:
        worker.when_interrupted(loop.stop)
        worker.when_ending(lambda: _leave(loop, worker))
    atexit.register(_finish, loop, os.getpid())
    return loop


def _finish(loop: RelayLoop, pid: int) -> None:
    if os.getpid() == pid:
        loop.finish(GRACE)


def _leave(loop: RelayLoop, worker: client.Worker) -> None:
    """At the end of a worker: wait for what is in flight, or leave it to a child.

    gunicorn starts a new worker only when the old process has ended. One that ends after `max_requests` may have a
    slow download for each of its last requests, and its successor is wanted at once.
    """
    deadline = time.monotonic() + worker.grace
    if worker.recycles:
        loop.finish_errands(worker.grace)
    if not (worker.recycles and loop.in_flight) or loop.is_stopped:
        loop.finish(worker.grace)
        return
    loop.park()
    child = os.fork()
    if child:
        loop.forget()
        return
    with contextlib.suppress(BaseException):  # nothing of the worker's own end is to happen twice
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        worker.close_listeners()
        loop.drain(deadline)
        logbatch.flush()
    os._exit(0)


def _forked() -> None:
    global _loop, _making
    loop, _loop, _making = _loop, None, threading.Lock()
    if loop is not None and not loop.is_parked:
        loop.forget()


os.register_at_fork(after_in_child=_forked)
