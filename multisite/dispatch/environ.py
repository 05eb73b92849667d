"""The environ of a site in the workers, where the server's own is not what the site would have in its own process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from multisite.dispatch.patience import Patience, Waiting
from multisite.errors import BadRequest, ClientDisconnected, MultisiteError, pages
from multisite.runner.answer import ReadFile
from multisite.runner.body import Gone, answered

WSGI = Callable[..., Iterable[bytes]]
Environ = dict[str, Any]


class Completed:
    """An app with a body that is whole or raises, files that are read, and `errors` as ``wsgi.errors``.

    Attributes:
        bare: the app itself where a request without a body needs no more than `ReadFile`; for those in a hurry.
    """

    def __init__(self, app: WSGI, errors: Any = None, patience: Patience | None = None) -> None:
        self._app = app
        self._errors = errors
        self._patience = patience
        self.bare = app if errors is None else self._with_errors

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        environ["wsgi.file_wrapper"] = ReadFile
        if "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ:
            waiting = self._patience.begin(environ) if self._patience else None
            refuse, end = partial(_refuse, environ, start_response, waiting), partial(pages.close_after, start_response)
            over = waiting.end if waiting else _nothing
            body: Iterable[bytes] = answered(self.bare, environ, start_response, refuse, end, over)
            return body
        return self.bare(environ, start_response)

    def _with_errors(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.errors"] = self._errors
        return self._app(environ, start_response)


def _nothing() -> None:
    pass


def _refuse(
    environ: Environ, start_response: Any, waiting: Waiting | None, reason: str, is_cut: bool
) -> Iterable[bytes]:
    """Answer a request whose body cannot be read: that is the client's mistake, and nothing of the site's."""
    error: MultisiteError = ClientDisconnected(reason) if is_cut else BadRequest(reason)
    if waiting and waiting.failure:
        error = waiting.failure
    if not pages.begin_anew(start_response):
        raise Gone(reason)
    return pages.for_error(error)(environ, start_response, sys.exc_info())
