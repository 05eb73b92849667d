"""Several endpoints for one site: each in turn, and another one where one cannot be reached."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from multisite.errors import BackendUnavailable, ConnectFailed
from multisite.proxy import Environ, Proxy
from multisite.upload import Upload

AVOIDED = 10.0  # seconds in which an endpoint that could not be reached is asked last


class Balancer:
    """A WSGI callable over `proxies`. A request goes to another endpoint only while nothing of it was sent."""

    def __init__(self, proxies: Sequence[Proxy], clock: Callable[[], float] = time.monotonic) -> None:
        self._proxies = proxies
        self._clock = clock
        self._turn = itertools.count()  # its next() is atomic
        self._avoided = [0.0] * len(proxies)  # until when

    def __repr__(self) -> str:
        return f"<Balancer over {', '.join(str(proxy.endpoint) for proxy in self._proxies)}>"

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Relay one request (PEP 3333).

        Raises:
            MultisiteError: there is no answer; of several failures to connect, the last.
        """
        upload = Upload(environ)
        try:
            return self._relay(environ, start_response, upload)
        except BaseException:
            upload.close()
            raise

    def _relay(self, environ: Environ, start_response: Any, upload: Upload) -> Iterable[bytes]:
        *others, last = self._order()
        for number in others:
            try:
                return self._proxies[number].relay(environ, start_response, upload)
            except (ConnectFailed, BackendUnavailable):
                self._avoided[number] = self._clock() + AVOIDED
        return self._proxies[last].relay(environ, start_response, upload)

    def _order(self) -> list[int]:
        now = self._clock()
        live = [number for number, until in enumerate(self._avoided) if until <= now]
        first = next(self._turn) % (len(live) or 1)
        return live[first:] + live[:first] + [number for number, until in enumerate(self._avoided) if until > now]
