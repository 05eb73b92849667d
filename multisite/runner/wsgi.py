"""A backend of a WSGI site: who accepts, who answers, who counts and who watches."""

from __future__ import annotations

import logging  # noqa: F401  now, as under gunicorn: a site may have a file of that name
import os
import signal
from functools import partial

from .accept import Acceptor, Aside
from .connection import ListeningSocket, RequestConnection, threads_are_the_sites
from .envelope import FIRST, UWSGI, WITH_CLIENT, is_quiet
from .forks import leave_if_child, watch
from .handlers import AppCaller, EnvelopeHandler, HttpHandler
from .hangs import Watchdog
from .job import Job
from .report import SLOW, Notifier, report
from .smoke import Smoke, ask_wsgi, leave_unless_well

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .follow import Follower


class WsgiServer:
    """Serves one WSGI app until it is asked to stop."""

    def __init__(self, app: Any, job: Job, notifier: Notifier) -> None:
        listener = ListeningSocket(job.listen)
        threads = 1 if job.worker == "sync" or threads_are_the_sites() else job.threads
        caller = AppCaller(app, threads > 1, job.processes > 1, job.request_timeout, notifier, job.board.enter)
        self._smoke = Smoke(job.smoke) if job.smoke else None
        self._caller = caller
        self._envelopes = EnvelopeHandler(caller)
        self._http = HttpHandler(caller, listener, job)
        self._board = job.board
        self._acceptor = Acceptor(listener, self._handle, self._signalled, threads, job.max_requests, notifier.recycles)
        self._aside = (
            Aside(self._acceptor, self._handle) if job.aside and threads == 1 and not threads_are_the_sites() else None
        )
        self._notifier = notifier
        self._unfollowed = 0  # requests until the follower is called again
        self._watchdog = Watchdog(job.request_timeout, self._acceptor.active, self._acceptor.stop, notifier)

    def run(self, follower: Follower | None = None) -> None:
        """Return after the last request; SIGTERM, or the limit `max_requests`, makes one the last.

        Args:
            follower: learns what the site needs and does.
        """
        signal.signal(signal.SIGTERM, self._terminate)
        for number in (signal.SIGQUIT, signal.SIGINT):
            signal.signal(number, _quit)
        watch()
        self._watchdog.start()
        if follower:
            follower.begin()
        self._try()
        self._notifier.ready()
        if follower:
            if not self._acceptor.is_awaited():  # else the first visitor would wait for it
                follower.tell()
            self._acceptor.handle = partial(self._handle_followed, follower)
        self._acceptor.run()
        if follower:
            follower.end()

    def _try(self) -> None:
        """Answer the smoke request, if there is one; nothing has been accepted yet."""
        if self._smoke:
            self._notifier.status(f"{self._smoke} is not answered")
            leave_unless_well(ask_wsgi(self._smoke, self._caller), self._notifier)

    def _terminate(self, number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, _quit)
        self._acceptor.stop()
        self._notifier.stopping("finishing what is in flight")

    def _handle_followed(self, follower: Follower, connection: RequestConnection) -> None:
        (self._aside.answer if self._aside else self._handle)(connection)
        self._unfollowed -= 1
        if self._unfollowed > 0:
            return
        self._acceptor.handle, aside = self._handle, self._aside
        connection.close()  # the client waits for the end of the answer only, not for what follows
        self._unfollowed = follower.after(*((aside.answered, aside.failed) if aside else ()))
        if self._unfollowed:
            self._acceptor.handle = partial(self._handle_followed, follower)

    def _signalled(self, numbers: bytes) -> None:
        """Handle signals that have arrived; if the site has replaced our handler, its own has run."""
        if signal.SIGTERM in numbers and signal.getsignal(signal.SIGTERM) not in (self._terminate, _quit):
            self._terminate(signal.SIGTERM, None)

    def _handle(self, connection: RequestConnection) -> None:
        """Handle one connection; one that brings nothing (a probe) is not a request."""
        try:
            start, client = connection.first()
        except OSError:
            return
        if not start:
            return
        about = is_quiet(start), client < 0 and start.startswith(FIRST)  # by a worker
        began = connection.taken_at = self._board.begin(*about)
        connection.place = -1 if about[1] else None
        try:
            self._serve(connection, start, client)
        except Exception as error:  # not the app's, whose errors end below: gunicorn cannot be imported, or worse
            connection.failed = True
            report(error, f"MS620 Cannot answer {connection}")
        finally:
            leave_if_child()
            self._board.leave(-1 if connection.place is None else connection.place)
            sizes = connection.received, connection.sent
            ended = self._board.end(began, connection.failed, *sizes, *about, connection.status)
            if ended - began >= SLOW and not about[1] and not connection.is_taken:
                self._tell_slow(connection, (connection.begun_at or ended) - began)

    def _tell_slow(self, connection: RequestConnection, took: int) -> None:
        environ = connection.environ
        target = environ.get("RAW_URI") or environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        self._notifier.slow(environ.get("REQUEST_METHOD", ""), target, connection.status, took)

    def _serve(self, connection: RequestConnection, start: bytes, client: int) -> None:
        """Choose by the first byte, which a client cannot forge: its bytes never come first on this socket."""
        if client >= 0 and start.startswith(WITH_CLIENT):
            self._envelopes.serve_client(connection, start, client)
            return
        if client >= 0:
            os.close(client)  # nobody asked for it
        if start.startswith((FIRST, UWSGI)):
            self._envelopes.serve(connection, start)
        else:
            self._http.serve(connection, start)


def _quit(number: int, frame: object) -> None:
    """Exit at once, whatever is in flight."""
    os._exit(0)
