"""Whether another request may come on a server's connection.

gunicorn keeps a connection open after an answer that was shorter than announced, so that it reads the next answer as
the rest; and after a field ``Connection: keep-alive, close``. Its response, which `start_response` belongs to, lets us
change that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from multisite.dispatch.closing import Closing
from multisite.proxy.headers import connection_options

Environ = dict[str, Any]

_BARE = (204, 304)


def checked(body: Iterable[bytes], environ: Environ, response: Any) -> Iterable[bytes]:
    """Return `body` so that the server closes the connection if no other request may come on it.

    Args:
        body: of an answer.
        environ: of the request.
        response: its start_response began the answer, or will; only gunicorn's is recognised here.
    """
    if getattr(response, "must_close", True):
        return body
    if "close" in connection_options(environ.get("HTTP_CONNECTION", "")):
        response.force_close()
    if type(body) is list or type(body) is tuple:
        _check(response, environ, response.sent + sum(map(len, body)))
    elif type(body) is environ.get("wsgi.file_wrapper"):
        _check(response, environ, _size(body))
    else:
        return _Checked(body, environ, response)
    return body


def _check(response: Any, environ: Environ, given: int) -> None:
    """Close the connection if fewer than this many bytes come."""
    length = response.response_length
    has_body = environ.get("REQUEST_METHOD") != "HEAD" and response.status_code not in _BARE
    if has_body and length is not None and given < length:
        response.force_close()


def _size(wrapper: Any) -> int:
    """Return how many bytes are left of a file that a server sends, 0 if that is not known."""
    try:
        descriptor = wrapper.filelike.fileno()
        return int(os.fstat(descriptor).st_size) - int(os.lseek(descriptor, 0, os.SEEK_CUR))
    except (AttributeError, OSError):
        return 0


class _Checked(Closing):
    """An answer that is checked when all of it has been sent."""

    __slots__ = ("_environ", "_response")

    def __init__(self, body: Iterable[bytes], environ: Environ, response: Any) -> None:
        super().__init__(body)
        self._environ, self._response = environ, response

    def _closed(self) -> None:
        _check(self._response, self._environ, self._response.sent)
