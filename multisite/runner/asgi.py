"""A backend of an ASGI site: gunicorn's asgi worker, on our socket and with nobody above it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from threading import get_ident
from time import monotonic

from gunicorn.asgi import protocol as gunicorn_protocol
from gunicorn.asgi.lifespan import LifespanManager, LifespanStartupFailed
from gunicorn.workers.gasgi import ASGIWorker

from .arrivals import Arrivals
from .asgiprotocol import Protocol
from .forks import watch
from .job import Job
from .report import Notifier, say
from .settings import WITHOUT_LIMITS, Log, settings
from .smoke import LONGEST, Smoke, leave_unless_well, status_of, verdict
from .watchdog import Watchdog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .follow import Follower

NOT_STARTED = 3
PULSE = 0.5
NEVER = 10 * 365 * 24 * 3600.0  # seconds
LEARN_AFTER = 1.0  # seconds, in which a first request has come or not

# 16,384 short strings, which gunicorn makes to save the making of one: two MiB. It does without where one is missing.
getattr(gunicorn_protocol, "_CHUNK_PREFIXES", {}).clear()


class Pulse:
    """What the watchdog looks at: an event loop that runs stamps `since`."""

    def __init__(self) -> None:
        self.since = monotonic()

    def beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stamp it, and again in a while."""
        self.since = monotonic()
        loop.call_later(PULSE, self.beat, loop)

    def __str__(self) -> str:
        return "the event loop"


class Backend(ASGIWorker):  # type: ignore[misc]
    """Serves one ASGI app until it is told to stop."""

    def __init__(self, app: Any, job: Job, notifier: Notifier) -> None:
        # Not the worker's own __init__, which makes a file for the arbiter to watch.
        self.asgi = app
        hooks: dict[str, Any] = {"pre_request": None, "post_request": None}
        hooks["asgi_disconnect_grace_period"] = job.request_timeout or NEVER
        self.cfg = settings(job.processes, job.trusts_front_end, **hooks, **job.head_limits)
        # The server in front has had a look at it.
        self.cfg_relayed = settings(job.processes, True, header_map="dangerous", **hooks, **WITHOUT_LIMITS)
        self.log = Log()
        self.trusts_front_end = job.trusts_front_end
        self.claims = frozenset(key[5:].replace("_", "-").lower().encode() for key in job.claims)
        self.board = job.board
        self.nr = self.nr_conns = 0
        self.max_requests = job.max_requests or sys.maxsize
        self.state: dict[str, Any] = {}
        self.lifespan: Any = None
        self.servers: list[Any] = []
        self.sockets: list[Any] = []
        self._arrivals = Arrivals(job.listen, lambda start, is_client: Protocol(self, start, is_client))
        self._smoke = Smoke(job.smoke) if job.smoke else None
        self._quick_shutdown = False
        self._stopped: asyncio.Event | None = None
        self._alive = True
        self._notifier = notifier
        self._pulse = Pulse()
        self._thread = get_ident()
        active: Any = {0: self._pulse}
        self._watchdog = Watchdog(job.request_timeout, active, lambda: None, notifier)

    @property
    def alive(self) -> bool:
        """Whether it goes on; the protocol ends it after `max_requests`."""
        return self._alive

    @alive.setter
    def alive(self, alive: bool) -> None:
        if alive or not self._alive:
            return
        self._notifier.recycles()
        self._stop()

    def _stop(self) -> None:
        self._alive = False
        if self._stopped is not None:
            self._stopped.set()

    def run(self, follower: Follower | None = None) -> None:
        """Returns after the last request.

        Args:
            follower: learns what the site needs.
        """
        self._set_up_loop()
        if follower:
            self.loop.call_later(LEARN_AFTER, follower.after)
        watch(self._in_child)
        try:
            self.loop.run_until_complete(self._serve())
        finally:
            self._cleanup()
        if follower:
            follower.end()

    def _in_child(self) -> None:
        """A child that comes back to the loop would take the parent's events out of it: it ends at the next turn."""
        if get_ident() == self._thread:
            self.loop.call_soon(os._exit, 0)

    def _set_up_loop(self) -> None:
        if sys.version_info < (3, 10):  # locks that the site made while it was imported belong to the loop of then
            self.loop = asyncio.get_event_loop()
        else:
            self._setup_event_loop()
        self.loop.add_signal_handler(signal.SIGTERM, self._terminate)
        for number in (signal.SIGQUIT, signal.SIGINT):
            self.loop.add_signal_handler(number, os._exit, 0)

    def _terminate(self) -> None:
        self.loop.add_signal_handler(signal.SIGTERM, os._exit, 0)
        self._stop()
        self._notifier.stopping("finishing what is in flight")

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        await self._start_lifespan()
        await self._try()
        self._arrivals.start(self.loop)
        self._pulse.beat(self.loop)
        self._watchdog.start()
        self._notifier.ready()
        await self._stopped.wait()
        await self._arrivals.stop()
        await self._shutdown()

    async def _try(self) -> None:
        """Answer the smoke request, if there is one; nothing has been accepted yet."""
        smoke = self._smoke
        if not smoke:
            return
        self._notifier.status(f"{smoke} is not answered")
        near, far = socket.socketpair()
        far.setblocking(False)
        near.setblocking(False)
        await self.loop.connect_accepted_socket(lambda: Protocol.of_smoke(self, smoke), near)
        start = answer = await self.loop.sock_recv(far, LONGEST)
        while answer:  # to its end, since the app may still fail
            answer = await self.loop.sock_recv(far, LONGEST)
        far.close()
        self.nr = 0
        leave_unless_well(verdict(smoke, status_of(start)), self._notifier)

    async def _start_lifespan(self) -> None:
        """Tell the app that it starts; most know nothing of that, and one that refuses is not served."""
        self.lifespan = LifespanManager(self.asgi, self.log, self.state)
        try:
            await self.lifespan.startup()
        except LifespanStartupFailed as error:
            say(f"The application refuses to start: {error}")
            self._notifier.failed(f"the application refuses to start: {error}")
            os._exit(NOT_STARTED)
        except Exception:  # the app has no lifespan: gunicorn's manager raises RuntimeError for whatever it raised
            self.lifespan = None
