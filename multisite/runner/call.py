"""Calling a WSGI app: one request, one answer, and whatever the app raises ends here."""

from __future__ import annotations

import io
import sys

from .answer import Answer
from .connection import Connection
from .filewrapper import FileWrapper
from .forks import leave_if_child
from .report import STDERR, report
from .takeover import is_wanted, offered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Caller:
    """Calls `app` with what every environ has (PEP 3333).

    Args:
        app: the site's.
        is_multithread, is_multiprocess: what the environ says of that.
        limit: seconds that the client may take between two signs of life.
    """

    def __init__(self, app: Any, is_multithread: bool, is_multiprocess: bool, limit: float) -> None:
        self.app = app
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

    def serve(self, environ: dict[str, Any], body: Any, answer: Answer, connection: Connection) -> None:
        """Answer a request; what of its body nobody read does not cost the client the answer."""
        connection.limit = self.limit
        environ.update(self._constant)
        environ["wsgi.input"] = body
        environ["wsgi.errors"] = self._errors
        environ["wsgi.early_hints"] = answer.early_hints
        connection.environ = environ
        offer = offered(connection) if "HTTP_UPGRADE" in environ and is_wanted(environ) else None
        if offer:
            environ["gunicorn.socket"] = offer
        self._call(environ, answer, connection, body)
        connection.failed = answer.status >= 500 or answer.is_short
        if type(body) is not io.BytesIO or connection.is_taken:
            connection.linger()
        if offer:
            if connection.is_taken:
                connection.hang_up()
            offer.close()

    def _call(self, environ: dict[str, Any], answer: Answer, connection: Connection, body: Any) -> None:
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
            if connection.is_taken and isinstance(error, StopIteration):  # as gunicorn is told that it is over
                return
            connection.failed = True
            is_cut = getattr(getattr(body, "raw", None), "is_cut", False)
            if not (connection.gone or is_cut):
                report(error, f"Error handling {connection}")
            if connection.gone:
                return
            if answer.is_begun or connection.is_taken:
                answer.status = 500
                if answer.is_bare and not connection.is_taken:
                    connection.cut()
            else:
                _refuse(answer, "400 Bad Request" if is_cut else "500 Internal Server Error")


def _errors() -> Any:
    """``wsgi.errors``: what the site has made of ``sys.stderr``, if one can write there."""
    errors = sys.stderr
    if errors is None or getattr(errors, "closed", False):
        return open(STDERR, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    return errors


def _refuse(answer: Answer, status: str) -> None:
    try:
        answer.refuse(status)
    except OSError:
        pass
