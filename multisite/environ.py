"""The environ of a site in the workers, where the server's own is not what the site would have in its own process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from multisite import keepalive, pages
from multisite.errors import BadRequest, ClientDisconnected, MultisiteError
from multisite.runner.body import Gone, answered
from multisite.runner.filewrapper import ReadFile

WSGI = Callable[..., Iterable[bytes]]
Environ = dict[str, Any]


def completed(app: WSGI, errors: Any = None) -> WSGI:
    """Return `app` with a body that is whole or raises, files that are read, and `errors` as ``wsgi.errors``."""

    def answer(environ: Environ, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.file_wrapper"] = ReadFile
        if errors is not None:
            environ["wsgi.errors"] = errors
        if "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ:
            refuse, end = partial(_refuse, environ, start_response), partial(keepalive.end, start_response)
            body: Iterable[bytes] = answered(app, environ, start_response, refuse, end)
            return body
        return app(environ, start_response)

    return answer


def _refuse(environ: Environ, start_response: Any, reason: str, is_cut: bool) -> Iterable[bytes]:
    """Answer a request whose body cannot be read: that is the client's mistake, and nothing of the site's."""
    error: MultisiteError = ClientDisconnected(reason) if is_cut else BadRequest(reason)
    if not keepalive.begin_anew(start_response):
        raise Gone(reason)
    return pages.for_error(error)(environ, start_response, sys.exc_info())
