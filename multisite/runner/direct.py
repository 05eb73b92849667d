"""WSGI: HTTP from a front end that comes straight to the site's socket, answered by gunicorn's sync worker.

gunicorn is imported by the first such request: most sites get none, and save 10 MiB.
"""

from __future__ import annotations

import sys
import threading

from .connection import Connection, Listener
from .settings import settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Direct:
    """Serves plain HTTP with a WSGI app."""

    def __init__(self, app: Any, listener: Listener, is_multithread: bool, processes: int, limit: float) -> None:
        self._app = app
        self._listener = listener
        self._is_multithread = is_multithread
        self._processes = processes
        self._limit = limit
        self._lock = threading.Lock()
        self._worker: Any = None

    def serve(self, connection: Connection) -> None:
        """Answer the request of this connection; the caller closes it."""
        with self._lock:
            self._worker = self._worker or self._new_worker()
        self._worker.handle(self._listener, connection, connection.getpeername())

    def _new_worker(self) -> Any:
        """A sync worker that has never been started: it handles connections, and does nothing else."""
        from gunicorn.workers.sync import SyncWorker

        worker = SyncWorker.__new__(SyncWorker)  # __init__ makes a file for the arbiter to watch
        worker.cfg, worker.log = settings(2 if self._is_multithread else 1, self._processes)
        worker.cfg.set("post_request", _note)
        worker.nr = 0
        worker.max_requests = sys.maxsize
        worker.alive = True
        worker.wsgi = self._call
        return worker

    def _call(self, environ: dict[str, Any], start_response: Any) -> Any:
        connection = environ["gunicorn.socket"]
        connection.limit = self._limit
        connection.environ = environ
        environ["wsgi.multithread"] = self._is_multithread
        return self._app(environ, start_response)


def _note(worker: Any, request: Any, environ: dict[str, Any], response: Any) -> None:
    """The hook ``post_request``: an answer that never came is the site's failure too."""
    status = getattr(response, "status_code", None)
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        connection.failed = status is None or status >= 500
