"""Every request of a worker with its own line, including those that no site answers: pages, redirects, nodes."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic_ns
from types import MethodType
from typing import Any

from multisite.dispatch.keepalive import checked
from multisite.inprocess.generation import WSGI
from multisite.logs.requestlines import NOBODY, RequestLines
from multisite.logs.requests import KEY, PAGE, RequestLog, RequestRecord

Environ = dict[str, Any]


class _Uncounted:
    """Counts nothing: requests that no site answers are in no site's figures."""

    left, site = 0, ""

    def count(self) -> int:
        return monotonic_ns()

    begin = count

    def enter(self, began: int, method: str, target: str) -> int:
        return -1

    def leave(self, place: int) -> None:
        pass

    def ended(self, status: int, failed: bool) -> None:
        pass

    def end(self, began: int, failed: bool, sent: int, status: int, received: int, cpu: int) -> int:
        return 0

    def relayed(self, took: int) -> None:
        pass

    def withdraw(self) -> None:
        pass


def watched(app: WSGI, lines: RequestLog | None = None) -> WSGI:
    """Return `app`, the dispatcher, with a record of each request, until a site makes its own record of it."""
    log, counts = lines or RequestLines(NOBODY), _Uncounted()

    def answer(environ: Environ, start_response: Any) -> Iterable[bytes]:
        this = RequestRecord(counts, log, environ, start_response, PAGE)
        environ[KEY] = this
        try:
            body = app(environ, this.start)
        except StopIteration:  # the new owner of the connection ends the request
            raise
        except BaseException:
            this.end()
            raise
        body = this.around(body) if this.is_open else body
        return checked(body, environ, start_response.__self__) if type(start_response) is MethodType else body

    return answer
