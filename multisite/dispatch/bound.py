"""How many requests one site may have in the threads of a worker at once.

A site in the workers that becomes slow would come to hold every thread of theirs. Those above its bound are answered
elsewhere: by a process of its own, for which no thread waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from multisite.dispatch.closing import Closing

WSGI = Callable[..., Iterable[bytes]]
Environ = dict[str, Any]


class Bound:
    """Lets `most` requests of one site in at once; `overflow` answers the others.

    A request is in until its answer has been made: with a list, when the call returns; with anything that makes
    its parts one by one, when the server closes it (PEP 3333).
    """

    def __init__(self, most: int, overflow: WSGI) -> None:
        free = [None] * most
        self.take, self.give = free.pop, free.append  # each atomic; `take` raises IndexError
        self.overflow = overflow

    def around(self, app: WSGI) -> WSGI:
        """Return `app` behind this bound; several share it."""
        take, give, overflow, release = self.take, self.give, self.overflow, self.release

        def bounded(environ: Environ, start_response: Any) -> Iterable[bytes]:
            try:
                take()
            except IndexError:
                return overflow(environ, start_response)
            try:
                body = app(environ, start_response)
            except BaseException:
                give(None)
                raise
            return release(environ, body)

        return bounded

    def release(self, environ: Environ, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return what a call has returned so that the request is out when its answer has been made."""
        kind = type(body)
        if kind is list or kind is tuple or kind is environ.get("wsgi.file_wrapper") or isinstance(body, list):
            self.give(None)  # what is left is the server's to send
            return body
        return _Held(body, self.give)


class _Held(Closing):
    """An answer that is still being made; after it the next request may come."""

    __slots__ = ("_give",)

    def __init__(self, body: Iterable[bytes], give: Callable[[None], None]) -> None:
        super().__init__(body)
        self._give: Callable[[None], None] | None = give

    def __del__(self) -> None:
        self._closed()  # a server that never closes must not use the site up

    def _closed(self) -> None:
        give, self._give = self._give, None
        if give:
            give(None)
