"""From a connection to the WSGI app and back: one request, one answer.

`EnvelopeHandler` reads what the dispatcher sends, `HttpHandler` what a front end sends straight to the site's socket;
`AppCaller` calls the app and handles all that it raises.
"""

from __future__ import annotations

import io
import os
import socket
import sys
import threading
from functools import partial
from time import monotonic_ns

from .answer import PAGE, FileWrapper, ReadFile, TimedAnswer, WholeAnswer, WsgiAnswer
from .body import Gone, answered
from .connection import ListeningSocket, RequestConnection
from .envelope import TIMED, UWSGI, BadEnvelope, body_of, receive, size_of_body, sized_body, tell_apart
from .forks import leave_if_child
from .gunicorn_setup import Log, settings
from .job import Job
from .report import STDERR, Notifier, say
from .requesthead import END, bounds, environ_of, introduce, resolve_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
_kinds: dict[type, type] = {}


class AppCaller:
    """Calls `app` with the part that every environ has (PEP 3333).

    Args:
        app: the site's.
        is_multithread, is_multiprocess: as in the environ.
        limit: seconds that the client may take between two signs of life.
        notifier: is told what the app raises.
        enter: shows a request as being in flight (`board.Flights`).
    """

    def __init__(
        self,
        app: Any,
        is_multithread: bool,
        is_multiprocess: bool,
        limit: float,
        notifier: Notifier,
        enter: Any = None,
    ) -> None:
        self.app = app
        self._notifier = notifier
        self._enter = enter
        self._errors = _errors()
        self.is_multithread = is_multithread
        self.limit = limit
        self._constant = {
            "wsgi.version": (1, 0),
            "wsgi.multithread": is_multithread,
            "wsgi.multiprocess": is_multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }

    def serve(self, environ: dict[str, Any], body: Any, answer: WsgiAnswer, connection: RequestConnection) -> None:
        """Answer a request; the client gets the answer even if nobody has read the body."""
        connection.limit = self.limit
        environ.update(self._constant)
        environ["wsgi.input"] = body
        environ["wsgi.errors"] = self._errors
        environ["wsgi.early_hints"] = answer.early_hints
        connection.environ = environ
        self.show(connection)
        offer = _offered(environ, connection) if "HTTP_UPGRADE" in environ else None
        if offer:
            environ["gunicorn.socket"] = offer
        self._call(environ, answer, connection, body)
        connection.status = 101 if connection.is_taken else answer.status
        connection.received, connection.sent = size_of_body(environ, body), connection.sent + answer.size
        connection.failed, connection.begun_at = answer.status >= 500 or answer.is_short, answer.begun_at
        if type(body) is not io.BytesIO or connection.is_taken:
            connection.linger()
        if offer:
            if connection.is_taken:
                connection.hang_up()
            offer.close()

    def show(self, connection: RequestConnection) -> None:
        """Show a request as being in flight, if nobody else does."""
        if connection.place is None and self._enter:
            environ = connection.environ
            target = environ.get("RAW_URI") or environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
            connection.place = self._enter(monotonic_ns(), environ["REQUEST_METHOD"], target)

    def _call(self, environ: dict[str, Any], answer: WsgiAnswer, connection: RequestConnection, body: Any) -> None:
        """Call the app; its errors, ``sys.exit()`` included, end here."""
        try:
            result = self.app(environ, answer.start_response)
            try:
                if not connection.is_taken:
                    answer.send(result)
            finally:
                if hasattr(result, "close"):
                    result.close()
        except BaseException as error:
            leave_if_child()
            if connection.is_taken and isinstance(error, StopIteration):  # the sign for gunicorn that it is over
                return
            connection.failed = True
            is_cut = getattr(getattr(body, "raw", None), "is_cut", False)
            incident = ""
            if not (connection.gone or is_cut):
                path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
                host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME", "")
                incident = self._notifier.raised(error, str(environ.get("REQUEST_METHOD")), str(host), path)
            if connection.gone:
                return
            if answer.is_begun or connection.is_taken:
                answer.status = 500
                if answer.is_bare and not connection.is_taken:
                    connection.cut()
            else:
                _refuse(answer, "400 Bad Request" if is_cut else "500 Internal Server Error", incident)


def _errors() -> Any:
    """Return ``wsgi.errors``: the site's ``sys.stderr``, if it can be written."""
    errors = sys.stderr
    if errors is None or getattr(errors, "closed", False):
        return open(STDERR, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    return errors


def _refuse(answer: WsgiAnswer, status: str, incident: str) -> None:
    try:
        answer.refuse(status, incident)
    except OSError:
        pass


def _offered(environ: dict[str, Any], connection: RequestConnection) -> Any:
    """Return ``gunicorn.socket`` for a request that asks for a WebSocket (RFC 6455, section 4.1), else None.

    simple-websocket (flask-sock, Flask-SocketIO) takes it from there, answers the handshake itself, and speaks its own
    protocol for as long as it likes. From the first byte that the site sends, the connection belongs to the site: it
    has no time limit, and we send nothing on it. The socket is of the site's own class: gevent replaces it.
    """
    if environ.get("HTTP_UPGRADE", "").lower() != "websocket":
        return None
    if "upgrade" not in environ.get("HTTP_CONNECTION", "").lower():
        return None
    kind = socket.socket
    if kind not in _kinds:
        _kinds[kind] = type("ClientSocket", (_Taking, kind), {})
    connection.forget_limits()
    copy = os.dup(connection.fileno())
    offered: Any = _kinds[kind](connection.family, connection.type, connection.proto, fileno=copy)
    offered.connection = connection
    return offered


class _Taking:
    """Adds to such a socket: its first `send` takes the connection, and from then on the site ends it."""

    connection: Any = None

    def send(self, *args: Any) -> int:
        self.connection.be_taken()
        sent: int = super().send(*args)  # type: ignore[misc]
        self.connection.sent += sent
        return sent

    def sendall(self, data: Any, *args: Any) -> None:
        self.connection.be_taken()
        super().sendall(data, *args)  # type: ignore[misc]
        self.connection.sent += len(data)

    def _real_close(self, *args: Any, **kwargs: Any) -> None:
        super()._real_close(*args, **kwargs)  # type: ignore[misc]
        if self.connection and self.connection.is_taken:
            self.connection.close()


class EnvelopeHandler:
    """Serves envelopes with a WSGI app.

    The app sees the environ that it would see in the dispatcher's own process under gunicorn, except for
    ``gunicorn.socket``: the connection is the dispatcher's, not the client's, so it is there only for requests for a
    WebSocket, whose answer the dispatcher passes on unchanged. A request that was handed over brings the client's own
    connection; it gets the complete answer there, and the connection is closed.
    """

    def __init__(self, caller: AppCaller) -> None:
        self._caller = caller

    def serve(self, connection: RequestConnection, start: bytes) -> None:
        """Answer the request that begins with `start`; the caller closes the connection."""
        read = self._read(connection, start)
        if not read:
            return
        environ, body = read
        method, protocol = environ["REQUEST_METHOD"], environ.get("SERVER_PROTOCOL", "")
        if start.startswith(UWSGI):  # an answer in that protocol ends with the connection
            environ.setdefault("SERVER_SOFTWARE", _software())
            answer: WsgiAnswer = WholeAnswer(connection, method, "HTTP/1.0")
        elif environ.pop(TIMED, ""):
            answer = TimedAnswer(connection, method, protocol)
            answer.taken_at = connection.taken_at
        else:
            answer = WsgiAnswer(connection, method, protocol)
        self._caller.serve(environ, body, answer, connection)

    def serve_client(self, connection: RequestConnection, start: bytes, client: int) -> None:
        """Answer on the connection `client`, which `connection` becomes."""
        read = self._read(connection, start)
        if not read:
            os.close(client)
            return
        environ, body = read
        try:
            body = io.BytesIO(body.read())  # before it is the client that is read from
        except OSError:
            os.close(client)
            return
        connection.become(client)
        answer = WholeAnswer(connection, environ["REQUEST_METHOD"], environ.get("SERVER_PROTOCOL", ""))
        self._caller.serve(environ, body, answer, connection)
        if connection.has_more:  # closing now would reset the connection, and the answer might be lost with it
            connection.linger()

    def _read(self, connection: RequestConnection, start: bytes) -> tuple[dict[str, Any], Any] | None:
        try:
            environ, rest = receive(connection, start)
            is_chunked = tell_apart(environ)
            body = body_of(environ, is_chunked, rest, connection)
        except BadEnvelope as error:
            say(f"MS615 Cannot read a request from the dispatcher: {error}")
            return None
        except OSError:
            return None
        return environ, body


class HttpHandler:
    """Serves plain HTTP with a WSGI app.

    Requests as front ends write them are read here; gunicorn's sync worker answers all others. It is imported with the
    first of them: most sites get none, and save 10 MiB.

    Args:
        job: says whether a front end is believed, and how large a head may be.
    """

    def __init__(self, caller: AppCaller, listener: ListeningSocket, job: Job) -> None:
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

    def serve(self, connection: RequestConnection, start: bytes) -> None:
        """Answer the request that begins with `start`; the caller closes the connection."""
        head, end, rest = start.partition(END)
        environ = environ_of(head, self._is_trusted, *self._bounds, self._claims) if end else None
        if environ is None or "SCRIPT_NAME" in os.environ:
            connection.ahead = start
            with self._lock:
                self._worker = self._worker or self._new_worker()
            self._worker.handle(self._listener, connection, connection.getpeername())
            return
        environ["SERVER_SOFTWARE"] = self._software
        environ["gunicorn.socket"] = connection
        answer = WholeAnswer(connection, environ["REQUEST_METHOD"], environ["SERVER_PROTOCOL"])
        try:
            body = sized_body(environ.get("CONTENT_LENGTH", "0"), rest, connection)
        except BadEnvelope:  # a length that nobody sends on purpose; the dispatcher answers the same
            answer.refuse("400 Bad Request")
            connection.status, connection.sent = answer.status, answer.size
            connection.linger()
            return
        self._caller.serve(environ, body, answer, connection)

    def _new_worker(self) -> Any:
        """Return a sync worker that is never started: it only handles connections."""
        from gunicorn.workers.sync import SyncWorker

        worker = SyncWorker.__new__(SyncWorker)  # __init__ makes a file for the arbiter to watch
        worker.cfg = settings(
            self._processes, self._is_trusted, pre_request=lambda *_: None, post_request=_note, **self._head_limits
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
            return _refuse_body(start_response, "no Host", False)  # RFC 9112, section 3.2
        resolve_target(environ)
        connection.environ = environ
        self._caller.show(connection)
        environ["wsgi.multithread"] = self._caller.is_multithread
        environ["wsgi.file_wrapper"] = ReadFile
        refuse = partial(_refuse_body, start_response)
        try:  # the connection ends with this request in any case
            return answered(self._caller.app, environ, start_response, refuse, when_failed=lambda: None)
        except BaseException:
            leave_if_child()
            raise


def _software() -> str:
    """Return the name and version of gunicorn; its package alone is small."""
    try:
        from gunicorn import SERVER_SOFTWARE
    except ImportError:  # a site's user may not read our installation
        return "gunicorn"
    return str(SERVER_SOFTWARE)


def _refuse_body(start_response: Any, reason: str, is_cut: bool) -> list[bytes]:
    """Answer a request whose body cannot be read, which is not the site's fault."""
    response = start_response.__self__
    if response.headers_sent:
        raise Gone(reason)
    response.headers, response.response_length = [], None  # gunicorn would add to them
    page = PAGE.format("Bad Request", "").encode()
    start_response(
        "400 Bad Request", [("Content-Type", "text/html"), ("Content-Length", str(len(page)))], sys.exc_info()
    )
    return [page]


def _note(worker: Any, request: Any, environ: dict[str, Any], response: Any) -> None:
    """The hook ``post_request``: an answer that never came is the site's failure too."""
    status = getattr(response, "status_code", None)
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        connection.failed = status is None or status >= 500
        connection.status, connection.sent = status or 0, connection.sent + getattr(response, "sent", 0)
        connection.received = size_of_body(environ, environ.get("wsgi.input"))
