"""Requests that are answered in another thread than the one that imported the site, and two of them at once.

So the workers would call a site that shares their interpreter. Before that is decided, its own process does it a few
times: what only the main thread may do, or finds there, fails for one visitor and not for all of them.
"""

from __future__ import annotations

import os
import select
import threading

from .connection import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .accept import Acceptor

FROM, UNTIL = 1, 9  # requests of a process: the first is answered as ever, and so are those after the last
FAILED = "failed in another thread than the one that imported it"


class Aside:
    """Answers some requests of a process whose main thread accepts them.

    One that fails in another thread is in doubt until the same has been asked of the main thread.

    Args:
        acceptor: of this process.
        handle: answers one connection.

    Attributes:
        answered: requests that another thread has answered without a doubt.
        failed: what went wrong there, as half a sentence; "" for nothing.
    """

    def __init__(self, acceptor: Acceptor, handle: Callable[[Connection], None]) -> None:
        self.answered = 0
        self.failed = ""
        self._acceptor, self._handle = acceptor, handle
        self._begun = 0
        self._doubt: tuple[object, ...] = ()

    def answer(self, connection: Connection) -> None:
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

    def _answer_elsewhere(self, connection: Connection) -> None:
        ended, end = os.pipe()
        try:
            thread = threading.Thread(target=self._answer, args=(connection, end), daemon=True)
            thread.start()
            self._accompany(ended)
            thread.join()
        finally:
            os.close(ended)
            os.close(end)

    def _answer(self, connection: Connection, end: int) -> None:
        active, me = self._acceptor.active, threading.get_ident()
        active[me] = connection
        try:
            self._handle(connection)
        finally:
            del active[me]
            os.write(end, b"1")

    def _accompany(self, ended: int) -> None:
        """Answer in this thread, at the same time, who comes before the other one has ended."""
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(self._acceptor.listener, select.POLLIN)
        while all(descriptor != ended for descriptor, _ in poll.poll()):
            other = self._acceptor.another()
            if other:
                self._acceptor.answer(other, self._handle)
            else:  # another process was first, or none is to be accepted any more
                poll.unregister(self._acceptor.listener)


def _asked(connection: Connection) -> tuple[object, ...]:
    get = connection.environ.get
    return get("REQUEST_METHOD"), get("PATH_INFO"), get("QUERY_STRING")
