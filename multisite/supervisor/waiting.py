"""Where requests wait for a process: the site's listening socket, watched while nothing runs."""

from __future__ import annotations

import logging
from collections.abc import Callable

from multisite.supervisor.failures import Unavailable
from multisite.supervisor.listener import Listener
from multisite.supervisor.loop import Loop

RETRY_AFTER = 10  # seconds, where the socket cannot be made


class WaitingRoom:
    """Knows since when somebody waits; calls `arrived` when the first one comes while it is watched.

    Attributes:
        backlog: how many connections may wait.
        domains: whose folders lead to the socket.
        since: monotonic seconds; None: nobody is known to wait.
    """

    def __init__(self, listener: Listener, loop: Loop, logger: logging.Logger, arrived: Callable[[], None]) -> None:
        self.listener = listener
        self.backlog = 1
        self.domains: tuple[str, ...] = ()
        self.since: float | None = None
        self._told = ""
        self._loop, self._logger, self._arrived = loop, logger, arrived

    def open(self) -> None:
        """Have the socket there.

        Raises:
            OSError: it cannot be made.
        """
        self.listener.open(self.backlog, self.domains)

    def ensure(self, *, watch: bool) -> None:
        """Have the socket there; with `watch` look out for whoever connects, unless somebody is known to wait.

        Raises:
            Unavailable: it cannot be made.
        """
        try:
            self.open()
        except OSError as error:
            reason = f"{error.filename or self.listener.path}: {error.strerror}"
            if reason != self._told:
                self._logger.error("its socket cannot be made: %s", reason)
            self._told = reason
            raise Unavailable(reason, RETRY_AFTER) from None
        self._told = ""
        if watch and self.since is None:
            self._loop.watch(self.listener, lambda _events: self._arrived())

    def want(self) -> None:
        """Note that somebody waits, or that a process is wanted for another reason."""
        self._loop.forget(self.listener)
        if self.since is None:
            self.since = self._loop.now()

    def served(self) -> None:
        """Note that whoever waits is cared for."""
        self._loop.forget(self.listener)
        self.since = None

    def close(self) -> None:
        """Take no more requests; those that wait are reset."""
        self.served()
        self.listener.close()
