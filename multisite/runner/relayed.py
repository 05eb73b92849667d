"""WSGI: one request from the dispatcher to the app and back.

The app sees the environ that it would see in the dispatcher's own process under gunicorn, except for
``gunicorn.socket``: the connection is the dispatcher's and not the client's, so nobody may take it over.
"""

from __future__ import annotations

import io
import sys

from .answer import Answer, FileWrapper
from .connection import Connection
from .envelope import BadEnvelope, Gone, body_of, receive
from .report import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Relayed:
    """Serves envelopes with a WSGI app."""

    def __init__(self, app: Any, is_multithread: bool, is_multiprocess: bool, limit: float) -> None:
        self._app = app
        self._limit = limit
        self._constant = {
            "wsgi.version": (1, 0),
            "wsgi.multithread": is_multithread,
            "wsgi.multiprocess": is_multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }

    def serve(self, connection: Connection) -> None:
        """Answer the request of this connection; the caller closes it."""
        try:
            environ, start = receive(connection)
            body = body_of(environ, start, connection)
        except BadEnvelope as error:
            print(f"A request of the dispatcher cannot be read: {error}", file=sys.stderr)
            return
        except OSError:
            return
        connection.limit = self._limit
        answer = Answer(connection, environ["REQUEST_METHOD"], environ.get("SERVER_PROTOCOL", ""))
        environ.update(self._constant)
        environ["wsgi.input"] = body
        environ["wsgi.errors"] = sys.stderr
        environ["wsgi.early_hints"] = answer.early_hints
        connection.environ = environ
        self._answer(environ, answer, connection)
        connection.failed = answer.status >= 500 or answer.is_short
        if not isinstance(body, io.BytesIO):
            connection.linger()

    def _answer(self, environ: dict[str, Any], answer: Answer, connection: Connection) -> None:
        """Call the app; its errors, ``sys.exit()`` included, end here."""
        try:
            result = self._app(environ, answer.start_response)
            try:
                answer.send(result)
            finally:
                if hasattr(result, "close"):
                    result.close()
        except BaseException as error:
            connection.failed = True
            if connection.gone or isinstance(error, Gone):
                return
            report(error, f"Error handling {connection}")
            if not answer.is_begun:
                _refuse(answer)
            else:
                answer.status = 500


def _refuse(answer: Answer) -> None:
    try:
        answer.refuse("500 Internal Server Error")
    except OSError:
        pass
