"""What the server gives a site in the workers: the environ as in its own process, and patience for its clients' bodies.

The threads of a site with its own process do not wait for a client: the relay loop does. In the workers they must wait,
as under any server; so a site gets its share of the threads for that, and a client must keep a minimum rate. Both are
checked where gunicorn receives from the client, because one `read` of an application is many receives.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from multisite.errors import BadRequest, ClientDisconnected, MultisiteError, SiteBusy, TooSlow, pages
from multisite.proxy import downstream
from multisite.proxy.body import Tempo
from multisite.proxy.limits import Share
from multisite.runner.answer import ReadFile
from multisite.runner.body import Gone, answered

WSGI = Callable[..., Iterable[bytes]]
Environ = dict[str, Any]


class Completed:
    """An app with a body that is complete or raises, files that are read, and `errors` as ``wsgi.errors``.

    Attributes:
        bare: the app itself if a request without a body needs nothing but `ReadFile`; a short cut.
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
    """Answer a request whose body cannot be read: that is the client's mistake, not the site's."""
    error: MultisiteError = ClientDisconnected(reason) if is_cut else BadRequest(reason)
    if waiting and waiting.failure:
        error = waiting.failure
    if not pages.begin_anew(start_response):
        raise Gone(reason)
    return pages.for_error(error)(environ, start_response, sys.exc_info())


_AT_ONCE = int(socket.MSG_DONTWAIT)


class Patience:
    """What the requests of one site share.

    Args:
        rate: bytes of a body that must arrive in a second; 0 for any number.
        share: of the server's threads.
    """

    def __init__(self, rate: float, share: Share) -> None:
        self._rate = rate
        self._share = share

    def begin(self, environ: Environ) -> Waiting | None:
        """Watch over the body of a request; None under servers that do not allow it."""
        unreader = downstream.unreader(environ)
        return Waiting(unreader, Tempo(self._rate), self._share) if unreader else None


class Waiting:
    """Stands between gunicorn and a client's connection until the body has been read or is no longer needed.

    Attributes:
        failure: why the site no longer waits.
    """

    def __init__(self, unreader: Any, tempo: Tempo, share: Share) -> None:
        self.failure: MultisiteError | None = None
        self._unreader = unreader
        self._sock = unreader.sock
        self._is_plain = type(self._sock).__module__ == "socket"  # not gevent's, nor of TLS
        self._tempo = tempo
        self._share = share
        self._release: Callable[[], None] | None = None
        unreader.sock = self

    def recv(self, size: int) -> bytes:
        """Return what arrives.

        Raises:
            OSError: nothing arrives in time, or too many threads already wait for this site's clients.
        """
        if self._is_plain:
            try:
                return self._came(self._sock.recv(size, _AT_ONCE))
            except BlockingIOError:
                pass
        self._hold()
        now = time.monotonic()
        left = self._tempo.deadline(now) - now
        if left <= 0:
            raise self._failed(TooSlow(f"The request came too slowly: {self._tempo}"))
        try:
            self._sock.settimeout(left)
            return self._came(self._sock.recv(size))
        except TimeoutError:
            self._tempo.came(0, time.monotonic())
            raise self._failed(TooSlow(f"The request came too slowly: {self._tempo}")) from None
        finally:
            self._sock.settimeout(None)

    def end(self) -> None:
        """Return the connection to gunicorn."""
        self._unreader.sock = self._sock
        release, self._release = self._release, None
        if release:
            release()

    def _came(self, data: bytes) -> bytes:
        self._tempo.came(len(data), time.monotonic())
        return data

    def _hold(self) -> None:
        """Count this thread as one of the site's, from its first wait on."""
        if self._release is None:
            try:
                self._release = self._share.take_thread()
            except SiteBusy as busy:
                raise self._failed(busy) from None

    def _failed(self, failure: MultisiteError) -> OSError:
        self.failure = failure
        return OSError(failure.reason)
