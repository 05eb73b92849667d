"""The end of a request that is counted but not measured: the class of its status, and whether it failed.

Most requests of a busy site in the workers come this way, so it takes no object and no call of Python's for an answer
that is a list: the server's own response knows its status when the app has returned (gunicorn, wsgiref). Under other
servers a `Told` stands in for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import MethodType
from typing import Any

from multisite.dispatch.closing import Closing
from multisite.errors import pages
from multisite.logs.requests import Rescue, raise_again
from multisite.runner import board
from multisite.sites.usage import Counts

Environ = dict[str, Any]
WSGI = Callable[..., Iterable[bytes]]

MOST_KNOWN = 100  # statuses; a site may invent any number of them
PLACES: dict[str, int] = {}  # the cells of statuses that are not errors


def tells(start_response: Any) -> bool:
    """Tell whether a server's response knows its status."""
    return type(start_response) is MethodType and hasattr(start_response.__self__, "status")


class Told:
    """Stands in for a response that does not show its status: `start` is the start_response (PEP 3333)."""

    __slots__ = ("_start", "status")

    def __init__(self, start_response: Any) -> None:
        self._start = start_response
        self.status: str | None = None

    def start(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        """Pass on how the answer begins, and note it."""
        self.status = status
        return self._start(status, headers, exc_info) if exc_info else self._start(status, headers)

    def force_close(self) -> None:
        """Make the server close the connection after this answer."""
        pages.close_after(self._start)

    def begin_anew(self) -> bool:
        """Forget how the answer began; tell whether nothing of it was sent."""
        return pages.begin_anew(self._start)


def told(app: WSGI) -> WSGI:
    """Return `app` for servers whose responses do not show their status."""

    def answer(environ: Environ, start_response: Any) -> Iterable[bytes]:
        return app(environ, Told(start_response).start)

    return answer


def ended(counts: Counts, status: str | None, failed: bool = False) -> None:
    """Count the end of a request; `status` as the app gave it, None if it gave none."""
    code = int(status[:3]) if status and status[:3].isdecimal() else 0
    if status and 100 <= code < 500 and len(PLACES) < MOST_KNOWN:
        PLACES[status] = board.status_cell(code)
    counts.ended(code, failed or code >= 500)


def followed(
    counts: Counts, environ: Environ, start_response: Any, body: Any, rescue: Rescue | None = None
) -> Iterable[bytes]:
    """Return an answer that is not a list so that its end is counted; one that the server sends as a file stays one.

    `rescue` answers for one that raises while it is made, or raises again where it has begun.
    """
    response, wrapper = start_response.__self__, environ.get("wsgi.file_wrapper")
    is_file = type(body) is wrapper or (wrapper and not isinstance(wrapper, type) and hasattr(body, "read"))
    if is_file or isinstance(body, (list, tuple)):
        ended(counts, response.status)
        whole: Iterable[bytes] = body
        return whole
    return _Made(counts, response, body, rescue and partial(rescue, environ=environ, start=start_response))


class _Made(Closing):
    """An answer that is still being made."""

    __slots__ = ("_counts", "_failed", "_next", "_rescue", "_response", "_whole")

    def __init__(
        self, counts: Counts, response: Any, body: Iterable[bytes], rescue: Callable[..., Iterable[bytes]] | None
    ) -> None:
        super().__init__(body)
        self._counts: Counts | None = counts
        self._response, self._rescue = response, rescue
        self._next: Callable[[], bytes] | None = None
        self._failed = self._whole = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        following = self._next
        try:
            if following is None:
                following = iter(self._body).__next__
                data = following()
                self._next = following
                return data
            return following()
        except StopIteration:
            self._whole = True
            raise
        except BaseException as error:
            self._failed = True
            rescue, self._rescue = self._rescue, None
            if not rescue:
                raise
            page = rescue(error, start=raise_again) if self._next else rescue(error)
            self._next = iter(page).__next__
            return next(self)

    def __del__(self) -> None:
        self._closed()

    def _closed(self) -> None:
        counts, self._counts = self._counts, None
        if counts:
            response = self._response
            length = getattr(response, "response_length", None)
            is_sent = self._whole or (length is not None and getattr(response, "sent", 0) >= length)
            ended(counts, response.status, self._failed or (response.status is not None and not is_sent))
