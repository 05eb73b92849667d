"""Threads that take connections from one listening socket and answer them, one each at a time.

Each thread waits for the socket by itself, and the kernel wakes one of them for each connection (EPOLLEXCLUSIVE,
epoll_ctl(2)): the first that is free. So the thread that accepts is the one that answers, with no queue and no second
wake-up in between; one request after another is answered by one thread, and the others stay asleep. With one thread,
that is the main thread, as under gunicorn's sync worker.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from select import EPOLLEXCLUSIVE, EPOLLIN, epoll
from threading import Lock, Thread, get_ident
from time import monotonic, sleep

from .connection import ListeningSocket, RequestConnection, wait_as_the_site_does, waits_are_the_sites
from .report import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
BROKEN = 5  # exit status
GRACE = 5.0  # seconds for other threads' requests, when this process can accept no more
SIGNALS_WITHIN = 0.5  # seconds, while the last requests are answered by other threads
FROM, UNTIL = 1, 9  # requests of a process: the first is answered as usual, and so are those after the last
FAILED = "failed in a thread other than the one that imported it"


class Acceptor:
    """Accepts until it is asked to stop, or has accepted `most` connections (0: no limit).

    Args:
        handle: see below.
        signalled: called with the numbers of the signals that have arrived.
        full: called when `most` connections have been accepted.

    Attributes:
        active: what each thread is answering now.
        listener: where connections come.
        handle: answers one connection.
    """

    def __init__(
        self,
        listener: ListeningSocket,
        handle: Callable[[RequestConnection], None],
        signalled: Callable[[bytes], None],
        threads: int,
        most: int,
        full: Callable[[], None],
    ) -> None:
        self.active: dict[int, RequestConnection] = {}
        self.listener = listener
        self.handle = handle
        self._signalled, self._full = signalled, full
        self._threads = threads
        self._left = most or -1
        self._counting = Lock()
        self._alive = True
        self._stopped = os.pipe()
        self._signals = os.pipe()
        for descriptor in (self._stopped[1], self._signals[0], self._signals[1]):
            os.set_blocking(descriptor, False)

    def run(self) -> None:
        """Return when nothing more is accepted and everything accepted is answered; for the main thread."""
        # A signal that arrives between two lines of Python and a wait would not end the wait; its byte does.
        signal.set_wakeup_fd(self._signals[1], warn_on_full_buffer=False)
        if self._threads == 1:
            self._guarded(self._loop, self._new_poll(for_signals=True, for_connections=True))
            return
        poll = self._new_poll(for_signals=True, for_connections=False)
        polls = [self._new_poll(for_signals=False, for_connections=True) for _ in range(self._threads)]
        threads = [Thread(target=self._guarded, args=(self._loop, each), daemon=True) for each in polls]
        for thread in threads:
            thread.start()
        while self._alive:
            self._guarded(self._wait, poll)
        for thread in threads:
            while thread.is_alive():
                thread.join(SIGNALS_WITHIN)

    def another(self) -> RequestConnection | None:
        """Return a waiting connection; None if there is none, or if no more are accepted."""
        if not self._alive:
            return None
        try:
            connection = self.listener.accept()[0]
        except OSError:
            return None
        self._count()
        return connection

    def answer(self, connection: RequestConnection, handle: Callable[[RequestConnection], None]) -> None:
        """Answer another connection in this thread, which is already answering one."""
        me = get_ident()
        before, self.active[me] = self.active[me], connection
        try:
            handle(connection)
        finally:
            self.active[me] = before
            _close(connection)

    def is_awaited(self) -> bool:
        """Tell whether a connection waits."""
        with epoll() as poll:
            poll.register(self.listener, EPOLLIN)
            return bool(poll.poll(0))

    def stop(self) -> None:
        """Accept nothing more; may be called from a signal handler and from any thread."""
        self._alive = False
        try:
            os.write(self._stopped[1], b"1")
        except OSError:  # it is full, or the site has closed it
            pass

    def _new_poll(self, for_signals: bool, for_connections: bool) -> epoll:
        poll = epoll()
        poll.register(self._stopped[0], EPOLLIN)
        if for_signals:
            poll.register(self._signals[0], EPOLLIN)
        if for_connections:
            poll.register(self.listener, EPOLLIN | EPOLLEXCLUSIVE)
        return poll

    def _wait(self, poll: epoll) -> bool:
        """Wait until something happens; return whether a connection has arrived."""
        woken, timeout = False, -1
        if waits_are_the_sites():
            wait_as_the_site_does(poll)
            timeout = 0
        for descriptor, _ in poll.poll(timeout):
            if descriptor == self._signals[0]:
                self._signalled(os.read(descriptor, 4096))
            woken |= descriptor == self.listener.fileno()
        return woken

    def _guarded(self, do: Callable[[epoll], object], poll: epoll) -> None:
        """End the process if it cannot continue: if only this thread ended, the process would accept nothing more."""
        try:
            do(poll)
        except (OSError, ValueError) as error:
            say(f"MS610 Replacing this process: the site closed or replaced descriptors that it did not open ({error})")
            self.stop()
            deadline = monotonic() + GRACE
            while self.active and monotonic() < deadline:
                sleep(0.02)
            os._exit(BROKEN)

    def _loop(self, poll: epoll) -> None:
        me = get_ident()
        active = self.active
        while True:
            connection = self._next(poll)
            if connection is None:
                return
            active[me] = connection
            try:
                self.handle(connection)
            finally:
                del active[me]
                _close(connection)

    def _next(self, poll: epoll) -> RequestConnection | None:
        """Return the next connection; None when there will be no more."""
        # A thread that was woken for a connection takes it even if it has to stop: the kernel woke no other thread.
        woken = False
        while self._alive or woken:
            try:
                connection = self.listener.accept()[0]
            except BlockingIOError:
                woken = self._alive and self._wait(poll)
            except OSError as error:
                if error.errno in NO_ROOM:
                    sleep(0.05)
                elif error.errno != errno.ECONNABORTED:
                    raise
            else:
                self._count()
                return connection
        return None

    def _count(self) -> None:
        with self._counting:
            self._left -= 1
            if self._left:
                return
        self.stop()
        self._full()


def _close(connection: RequestConnection) -> None:
    """The site may have closed its descriptor."""
    try:
        connection.close()
    except OSError:
        pass


class Aside:
    """Answers some requests in a thread other than the one that imported the site, and two of them at once.

    The workers would call a site that shares their interpreter in this way. Before that is decided, the site's own
    process does it a few times: code that works in the main thread only fails for one visitor, not for all. A request
    that fails in another thread is in doubt until the main thread has answered the same request.

    Args:
        acceptor: of this process.
        handle: answers one connection.

    Attributes:
        answered: requests that another thread has certainly answered well.
        failed: what went wrong there, as half a sentence; "" for nothing.
    """

    def __init__(self, acceptor: Acceptor, handle: Callable[[RequestConnection], None]) -> None:
        self.answered = 0
        self.failed = ""
        self._acceptor, self._handle = acceptor, handle
        self._begun = 0
        self._doubt: tuple[object, ...] = ()

    def answer(self, connection: RequestConnection) -> None:
        """Answer a connection, here or there."""
        self._begun += 1
        if self.failed or self._doubt or not FROM < self._begun <= UNTIL:
            self._handle(connection)
            if self._doubt and self._doubt == _asked(connection):
                self.failed, self._doubt = "" if connection.failed else FAILED, ()
            return
        self._answer_elsewhere(connection)
        if connection.failed and not connection.gone:
            self._doubt = _asked(connection)
        else:
            self.answered += 1

    def _answer_elsewhere(self, connection: RequestConnection) -> None:
        ended, end = os.pipe()
        try:
            thread = Thread(target=self._answer, args=(connection, end), daemon=True)
            thread.start()
            self._accompany(ended)
            thread.join()
        finally:
            os.close(ended)
            os.close(end)

    def _answer(self, connection: RequestConnection, end: int) -> None:
        active, me = self._acceptor.active, get_ident()
        active[me] = connection
        try:
            self._handle(connection)
        finally:
            del active[me]
            os.write(end, b"1")

    def _accompany(self, ended: int) -> None:
        """Meanwhile answer in this thread the connections that arrive before the other thread has finished."""
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(self._acceptor.listener, select.POLLIN)
        while all(descriptor != ended for descriptor, _ in poll.poll()):
            other = self._acceptor.another()
            if other:
                self._acceptor.answer(other, self._handle)
            else:  # another process was first, or no more are accepted
                poll.unregister(self._acceptor.listener)


def _asked(connection: RequestConnection) -> tuple[object, ...]:
    get = connection.environ.get
    return get("REQUEST_METHOD"), get("PATH_INFO"), get("QUERY_STRING")
