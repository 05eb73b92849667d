"""Where requests wait for a process: the site's listening socket, watched while nothing runs."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable

from multisite.config.model import Site
from multisite.errors import BackendUnavailable
from multisite.supervisor.handover import Handed
from multisite.supervisor.loop import Loop
from multisite.supervisor.site import callers
from multisite.supervisor.site.failures import Unavailable
from multisite.supervisor.site.listener import Listener
from multisite.supervisor.site.turnaway import move, turn_away

RETRY_AFTER = 10  # seconds, where the socket cannot be made, or the site is stopped
STOPPED = "the site is being stopped"


class WaitingRoom(Handed):
    """Knows since when somebody waits; calls `arrived` when the first one comes while it is watched.

    Attributes:
        backlog: how many connections may wait.
        takes_clients: requests may wait there together with their clients' connections.
        domains: whose folders lead to the socket.
        since: monotonic seconds; None: nobody is known to wait.
        owner: who has the site whose processes got the socket last, "" as long as none did (`Launch.owner`).
    """

    HANDED = ("since", "owner", "_told")
    PARTS = ("listener",)
    ANEW = ("backlog", "takes_clients", "domains", "_loop", "_logger", "_arrived")

    def __init__(self, listener: Listener, loop: Loop, logger: logging.Logger, arrived: Callable[[], None]) -> None:
        self.listener = listener
        self.backlog = 1
        self.takes_clients = False
        self.domains: tuple[str, ...] = ()
        self.since: float | None = None
        self.owner = ""
        self._told = ""
        self._loop, self._logger, self._arrived = loop, logger, arrived

    def offer(self, site: Site, domains: tuple[str, ...]) -> None:
        """Be for this version of the site from now on."""
        self.backlog, self.takes_clients, self.domains = site.max_waiting, site.is_ours, domains

    def open(self) -> int:
        """Have the socket there; returns its descriptor.

        Raises:
            OSError: it cannot be made.
        """
        self.listener.open(self.backlog, self.domains)
        return self.listener.fileno()

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

    def close(self, told: Unavailable | None = None) -> None:
        """Take no more requests; those that wait get a page, or are reset and ask us.

        Args:
            told: why, and for how long.
        """
        self.served()
        if self.takes_clients and self.listener.is_open:
            self._turn_away(told or Unavailable(STOPPED, RETRY_AFTER))
        self.listener.close()

    def renew(self, *, watch: bool, reason: str = STOPPED) -> None:
        """Answer whoever waits, while no process takes requests; who comes from now on waits at another socket."""
        if self.listener.is_open:
            self.served()
            self._turn_away(Unavailable(reason, RETRY_AFTER), everybody=True)
            self.listener.close()
            with contextlib.suppress(Unavailable):  # the next one who asks is told
                self.ensure(watch=watch)

    def forget_gone(self) -> None:
        """Where nobody waits any more whose connection is in the queue, have an empty one; no process takes requests.

        A connection that has brought its client along is closed, and the client waits: it goes to the new queue.
        """
        if not self.listener.is_open or not callers.have_gone(self.listener.fileno()):
            return
        self.listener.withdraw()
        queue = os.dup(self.listener.fileno())
        try:
            is_left = callers.have_gone(queue)  # and nobody has come in the last moment
            if is_left:
                self.served()
                self.listener.close()
            with contextlib.suppress(Unavailable):
                self.ensure(watch=True)
            if is_left and self.takes_clients:
                self._move_clients(queue)
        finally:
            os.close(queue)

    def _move_clients(self, queue: int) -> None:
        move(queue, self.listener.path, BackendUnavailable(STOPPED, RETRY_AFTER))

    def _turn_away(self, told: Unavailable, everybody: bool = False) -> None:
        self.listener.withdraw()
        error = BackendUnavailable(told.reason, round(told.retry_after))
        error.incident = told.incident
        turned = turn_away(self.listener.fileno(), 2 * self.backlog + 2, error, everybody)
        if turned:
            self._logger.warning("%s waiting requests are answered with %s: %s", turned, error.status, told.reason)
