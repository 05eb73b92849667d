"""What limits the waiting for a site: a thread's patience, its share of the threads, and the queue of its socket.

A quick answer is cheapest if the thread that sent the request waits for it. So a site is given some patience, but none
just after it was slow: then the patience for its slow requests takes only a small share of the workers' time, however
many requests there are (`Pace`).

How many threads of the server one site may hold follows the rule of dynamic thresholds in shared buffers: a site may
take another thread while it holds fewer than are free. One slow site comes to hold half of them, two a third each, and
some are free always. A site whose answers are quick may have more for a moment, up to a reserve (`Share`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from multisite.errors import MultisiteError, SiteBusy
from multisite.proxy.upstream import Exchange
from multisite.sites.server import Threads

PATIENCE = 0.005  # seconds to wait for a complete answer
FIRST_PAUSE = 0.1  # seconds without patience after a slow answer; they double with each further one
LONGEST_PAUSE = 10.0


class Pace:
    """How fast one site has answered in this process; threads share it, and a lost update does no harm."""

    __slots__ = ("_patience", "_pause", "_until")

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._pause = 0.0
        self._until = 0.0

    def patience(self, now: float) -> float:
        """Return the seconds to wait for an answer."""
        return 0.0 if now < self._until else self._patience

    def was_slow(self, now: float) -> None:
        """Note that an answer did not come in time."""
        self._pause = min(LONGEST_PAUSE, 2 * self._pause or FIRST_PAUSE)
        self._until = now + self._pause

    def took(self, seconds: float, now: float) -> None:
        """Note how long an answer that nobody waited for took; quick ones restore the patience step by step."""
        if seconds < self._patience:
            self._pause = self._pause / 2 if self._pause > FIRST_PAUSE else 0.0
            self._until = min(self._until, now + self._pause)
        elif now >= self._until:
            self.was_slow(now)


YOUNG = 0.5  # seconds; a site is slow if its oldest request is older
MOMENT = 0.25  # seconds to wait for a thread of a site that is not slow
RETRY_AFTER = 2


class Share:
    """The share of one site; without `threads` there is no limit."""

    def __init__(self, threads: Callable[[], Threads | None] = lambda: None) -> None:
        self._threads = threads
        self._since: dict[int, float] = {}  # when each of its requests began, by a number
        self._number = 0

    def take_thread(self) -> Callable[[], None]:
        """Take a thread, the caller's; return a function that gives it back, to be called once or more often.

        Raises:
            SiteBusy: the site holds its share, and is slow.
        """
        threads = self._threads()
        if threads is None:
            return _nothing
        with threads.changed:
            threads.changed.wait_for(lambda: self._may(threads) or self._is_slow(), MOMENT)
            if not self._may(threads):
                raise SiteBusy("this site is slow and already has its share of the server's threads")
            self._number += 1
            number = self._number
            self._since[number] = time.monotonic()
            threads.held += 1

        def release() -> None:
            with threads.changed:
                if self._since.pop(number, None) is not None:
                    threads.held -= 1
                    threads.changed.notify_all()

        return release

    def _may(self, threads: Threads) -> bool:
        free = threads.count - threads.held
        return len(self._since) < free or (free > threads.reserve and not self._is_slow())

    def _is_slow(self) -> bool:
        return bool(self._since) and time.monotonic() - next(iter(self._since.values())) > YOUNG


def _nothing() -> None:
    pass


class Queued:
    """The requests of one site in this process that may still wait; any thread may ask.

    Args:
        most: how many may; 0 if their queue is unknown, as with a foreign server.
    """

    def __init__(self, most: int = 0) -> None:
        self._most = most
        self._waiting: set[Exchange] = set()  # its single operations are atomic

    def __len__(self) -> int:
        return len(self._waiting)

    def check(self) -> None:
        """Check whether there is room for one more.

        Raises:
            SiteBusy: as many wait as may.
        """
        if self._most and len(self._waiting) >= self._most:
            for exchange in list(self._waiting):
                self.check_taken(exchange)
            if len(self._waiting) >= self._most:
                raise SiteBusy(f"{len(self._waiting)} requests are already waiting for this site")

    def enter(self, exchange: Exchange) -> None:
        """Note one that was sent."""
        if self._most:
            self._waiting.add(exchange)

    def leave(self, exchange: Exchange) -> None:
        """Forget one."""
        self._waiting.discard(exchange)

    def is_waiting(self, exchange: Exchange) -> bool:
        """Tell whether it has not been seen to be taken."""
        return exchange in self._waiting

    def check_taken(self, exchange: Exchange) -> bool:
        """Look whether it has been taken."""
        taken = exchange.is_taken()
        if taken:
            self._waiting.discard(exchange)
        return taken

    def late(self, exchange: Exchange) -> MultisiteError:
        """Return the error for one whose time is over."""
        if self.is_waiting(exchange) and not self.check_taken(exchange):
            return SiteBusy(f"no process of this site took the request within {exchange.timeout:g} s")
        return exchange.late()
