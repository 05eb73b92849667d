"""WSGI: HTTP from a front end that comes straight to the site's socket.

Requests as front ends write them are read here; all others are answered by gunicorn's sync worker, which is imported
by the first of them: most sites get none, and save 10 MiB.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import partial

from .answer import PAGE, Whole
from .body import Gone, answered
from .call import Caller
from .connection import Connection, Listener
from .envelope import BadEnvelope, sized_body
from .filewrapper import ReadFile
from .forks import leave_if_child
from .job import Job
from .request import END, bounds, environ_of, introduce
from .settings import Log, settings
from .target import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Direct:
    """Serves plain HTTP with a WSGI app.

    Args:
        job: says whether a front end is believed, and how large a head may be.
    """

    def __init__(self, caller: Caller, listener: Listener, job: Job) -> None:
        self._caller = caller
        self._listener = listener
        self._processes = job.processes
        self._is_trusted = job.trusts_front_end
        self._claims = frozenset(job.claims)
        self._head_limits = job.head_limits
        self._bounds = bounds(job.head_limits)
        self._software = _software()
        self._lock = threading.Lock()
        self._worker: Any = None

    def serve(self, connection: Connection, start: bytes) -> None:
        """Answer the request that begins with `start`; the caller closes the connection."""
        head, end, rest = start.partition(END)
        environ = environ_of(head, self._is_trusted, *self._bounds, self._claims) if end else None
        if environ is None or "SCRIPT_NAME" in os.environ:
            connection.ahead = start
            self._leave_to_gunicorn(connection)
            return
        environ["SERVER_SOFTWARE"] = self._software
        environ["gunicorn.socket"] = connection
        answer = Whole(connection, environ["REQUEST_METHOD"], environ["SERVER_PROTOCOL"])
        try:
            body = sized_body(environ.get("CONTENT_LENGTH", "0"), rest, connection)
        except BadEnvelope:  # a length that nobody means; the dispatcher says the same of it
            answer.refuse("400 Bad Request")
            connection.linger()
            return
        self._caller.serve(environ, body, answer, connection)

    def _leave_to_gunicorn(self, connection: Connection) -> None:
        with self._lock:
            self._worker = self._worker or self._new_worker()
        self._worker.handle(self._listener, connection, connection.getpeername())

    def _new_worker(self) -> Any:
        """A sync worker that has never been started: it handles connections, and does nothing else."""
        from gunicorn.workers.sync import SyncWorker

        worker = SyncWorker.__new__(SyncWorker)  # __init__ makes a file for the arbiter to watch
        worker.cfg = settings(
            self._processes, self._is_trusted, pre_request=_begin, post_request=_note, **self._head_limits
        )
        worker.log = Log()
        worker.nr = 0
        worker.max_requests = sys.maxsize
        worker.alive = True
        worker.wsgi = self._call
        return worker

    def _call(self, environ: dict[str, Any], start_response: Any) -> Any:
        connection = environ["gunicorn.socket"]
        connection.limit = self._caller.limit
        introduce(environ, self._is_trusted, self._claims)
        if not environ.get("HTTP_HOST") and environ["SERVER_PROTOCOL"] == "HTTP/1.1":
            return _refuse(start_response, "no Host", False)  # RFC 9112, section 3.2
        resolve(environ)
        connection.environ = environ
        environ["wsgi.multithread"] = self._caller.is_multithread
        environ["wsgi.file_wrapper"] = ReadFile
        try:
            return answered(self._caller.app, environ, start_response, partial(_refuse, start_response), _nothing)
        except BaseException:
            leave_if_child()
            raise


def _software() -> str:
    """What gunicorn calls itself; its package alone is small."""
    try:
        from gunicorn import SERVER_SOFTWARE
    except ImportError:  # a site's user may not read our installation
        return "gunicorn"
    return str(SERVER_SOFTWARE)


def _refuse(start_response: Any, reason: str, is_cut: bool) -> list[bytes]:
    """Answer a request whose body cannot be read, which is not the site's fault."""
    response = start_response.__self__
    if response.headers_sent:
        raise Gone(reason)
    response.headers, response.response_length = [], None  # gunicorn would add to them
    page = PAGE.format("Bad Request").encode()
    start_response(
        "400 Bad Request", [("Content-Type", "text/html"), ("Content-Length", str(len(page)))], sys.exc_info()
    )
    return [page]


def _nothing() -> None:
    """The connection ends with this request in any case."""


def _begin(worker: Any, request: Any) -> None:
    """The hook ``pre_request``."""


def _note(worker: Any, request: Any, environ: dict[str, Any], response: Any) -> None:
    """The hook ``post_request``: an answer that never came is the site's failure too."""
    status = getattr(response, "status_code", None)
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        connection.failed = status is None or status >= 500
