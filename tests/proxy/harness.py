"""A destination that tests relay to, as a site's callable does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from multisite.config.endpoint import Endpoint
from multisite.errors import MultisiteError, NoAnswer
from multisite.proxy.body import Upload
from multisite.proxy.destination import Destination, Proxy
from multisite.proxy.limits import Share
from multisite.proxy.relay import relay
from multisite.proxy.upstream import Exchange


class Relayed(Destination):
    """One endpoint, and the WSGI callable that relays to it; `options` are those of its `Proxy`."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        most_waiting: int = 0,
        upload_rate: float = 0.0,
        stall_timeout: float = 300.0,
        share: Share | None = None,
        reconnect: Callable[[], object] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(upload_rate=upload_rate, most_waiting=most_waiting)
        self.proxy = Proxy(endpoint, reconnect=reconnect, **options)
        self.share = share or Share()
        self.stall_timeout = stall_timeout
        self.can_explain = reconnect is not None
        self._reconnect = reconnect

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return relay(self, environ, start_response)

    def begin(self, environ: dict[str, Any], upload: Upload, hurry: bool) -> Exchange:
        return self.proxy.begin(environ, upload, hurry)

    def explain(self, error: MultisiteError) -> None:
        if isinstance(error, NoAnswer) and self._reconnect:
            self._reconnect()
