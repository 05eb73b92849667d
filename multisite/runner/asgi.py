"""A backend of an ASGI site: gunicorn's asgi worker, on our socket and without an arbiter."""

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

from .asgiprotocol import Protocol
from .connection import HEAD_LIMIT, ON_EXEC, ONE_DESCRIPTOR, RECEIVE, descriptor_in
from .envelope import BUFFER, LARGEST, WITH_CLIENT
from .forks import watch
from .gunicorn_setup import WITHOUT_LIMITS, Log, settings
from .hangs import Watchdog
from .job import Job
from .report import Notifier, say
from .smoke import LONGEST, Smoke, leave_unless_well, status_of, why_unwell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .follow import Follower


NOT_STARTED = 3
PULSE = 0.5
NEVER = 10 * 365 * 24 * 3600.0  # seconds
LEARN_AFTER = 1.0  # seconds to wait for a first request
PAUSE = 0.5  # seconds, when nothing can be accepted
AT_ONCE = 100

# 16,384 short strings, two MiB, which gunicorn makes in advance; where one is missing, it makes it.
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


class AsgiServer(ASGIWorker):  # type: ignore[misc]
    """Serves one ASGI app until it is asked to stop."""

    def __init__(self, app: Any, job: Job, notifier: Notifier) -> None:
        # Not the worker's own __init__, which makes a file for the arbiter to watch.
        self.asgi = app
        hooks: dict[str, Any] = {"pre_request": None, "post_request": None}
        hooks["asgi_disconnect_grace_period"] = job.request_timeout or NEVER
        self.cfg = settings(job.processes, job.trusts_front_end, **hooks, **job.head_limits)
        # The server in front has already checked it.
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
        """Whether it keeps running; the protocol sets this to False after `max_requests`."""
        return self._alive

    @alive.setter
    def alive(self, alive: bool) -> None:
        if alive or not self._alive:
            return
        self._notifier.recycles()
        self._stop()

    def tell_slow(self, request: Any, status: int, took: int) -> None:
        """Report a request whose answer began `took` nanoseconds after it."""
        self._notifier.slow(request.method, request.uri or "", status, took)

    def tell_raised(self, error: Exception, scope: dict[str, Any]) -> str:
        """Report an exception of the app; return the incident."""
        host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
        path = scope["path"].encode("utf-8", "replace").decode("latin-1")
        return self._notifier.raised(error, scope.get("method", "GET"), host, path)

    async def serve_socket(self, app: Any, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Call the app for a WebSocket, and report what it raises, unless the client has left."""
        is_accepted = is_gone = False

        async def heard() -> dict[str, Any]:
            nonlocal is_gone
            message: dict[str, Any] = await receive()
            is_gone = is_gone or message["type"] == "websocket.disconnect"
            return message

        async def sent(message: dict[str, Any]) -> None:
            nonlocal is_accepted, is_gone
            try:
                await send(message)
            except OSError:
                is_gone = True
                raise
            is_accepted = is_accepted or message["type"] == "websocket.accept"

        try:
            await app(scope, heard, sent)
        except Exception as error:
            if is_gone:
                raise
            self.tell_raised(error, scope)
            if not is_accepted:
                raise  # gunicorn refuses the handshake with 500; later, it closes with 1011 in any case

    def _stop(self) -> None:
        self._alive = False
        if self._stopped is not None:
            self._stopped.set()

    def run(self, follower: Follower | None = None) -> None:
        """Return after the last request.

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
        """End a forked child at the next turn of the loop, from which it would take the parent's events."""
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
        leave_unless_well(why_unwell(smoke, status_of(start)), self._notifier)

    async def _start_lifespan(self) -> None:
        """Send the app its lifespan startup event; most apps ignore it, and one that refuses is not served."""
        self.lifespan = LifespanManager(self.asgi, self.log, self.state)
        try:
            await self.lifespan.startup()
        except LifespanStartupFailed as error:
            say(f"MS618 The application refuses to start: {error}")
            self._notifier.failed(f"the application refuses to start: {error}")
            os._exit(NOT_STARTED)
        except Exception:  # the app has no lifespan: gunicorn's manager raises RuntimeError for whatever it raised
            self.lifespan = None


class Arrivals:
    """Accepts connections and gives each to its own protocol, when the first bytes show what it is for.

    asyncio's own servers would reset the length of the queue and remove the socket's path, and its transports lose a
    descriptor that comes with the first bytes.

    Args:
        listen: descriptor of the listening socket.
        new_protocol: makes a protocol, from the first bytes and whether they came with the client's connection.
    """

    def __init__(self, listen: int, new_protocol: Callable[[bytes, bool], asyncio.BaseProtocol]) -> None:
        self._listener = socket.socket(fileno=listen)
        self._listener.setblocking(False)
        self._new_protocol = new_protocol
        self._arriving: set[asyncio.Task[None]] = set()
        self._loop: Any = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Accept from now on."""
        self._loop = loop
        self._resume()

    async def stop(self) -> None:
        """Accept nothing more; returns when each connection has its protocol."""
        loop, self._loop = self._loop, None
        loop.remove_reader(self._listener)
        if self._arriving:
            await asyncio.wait(self._arriving)

    def _resume(self) -> None:
        if self._loop:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Take what has arrived."""
        loop = self._loop
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                say(f"MS619 Cannot accept a connection: {error}")
                loop.remove_reader(self._listener)
                loop.call_later(PAUSE, self._resume)
                return
            connection.setblocking(False)
            task = loop.create_task(self._arrive(connection, loop))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _arrive(self, connection: socket.socket, loop: Any) -> None:
        """See what has come; a connection that brings nothing (a probe) ends here."""
        try:
            data, client = await _first(connection, loop)
        except (OSError, asyncio.TimeoutError):
            connection.close()
            return
        if not data.startswith(WITH_CLIENT):
            await loop.connect_accepted_socket(lambda: self._new_protocol(data, False), connection)
            return
        connection.close()
        if client:
            await loop.connect_accepted_socket(lambda: self._new_protocol(data, True), client)


async def _first(connection: socket.socket, loop: Any) -> tuple[bytes, socket.socket | None]:
    """The first bytes, all of them where a client is handed over, and that client."""
    try:
        message = connection.recvmsg(RECEIVE, ONE_DESCRIPTOR, ON_EXEC)
    except BlockingIOError:
        await _readable(connection, loop)
        message = connection.recvmsg(RECEIVE, ONE_DESCRIPTOR, ON_EXEC)
    data, client = message[0], descriptor_in(message[1])
    if not data:
        raise ConnectionResetError
    if client < 0:
        return data, None
    if not data.startswith(WITH_CLIENT):
        os.close(client)  # nobody asked for it
        return data, None
    handed = socket.socket(fileno=client)
    handed.setblocking(False)
    try:
        return await _rest(data, connection, loop), handed
    except BaseException:
        handed.close()
        raise


async def _rest(data: bytes, connection: socket.socket, loop: Any) -> bytes:
    """All that the dispatcher sends, up to its leaving."""
    while len(data) <= 2 * LARGEST:
        try:
            more = connection.recv(BUFFER)
        except BlockingIOError:
            await _readable(connection, loop)
            continue
        if not more:
            return data
        data += more
    raise ConnectionResetError


async def _readable(connection: socket.socket, loop: Any) -> None:
    """Wait until there is something to read.

    Raises:
        asyncio.TimeoutError: nothing came for `HEAD_LIMIT` seconds.
    """
    ready = loop.create_future()
    loop.add_reader(connection, _wake, ready)
    try:
        await asyncio.wait_for(ready, HEAD_LIMIT)
    finally:
        loop.remove_reader(connection)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
