"""Requests for an exclusive site that another node has relayed: its signature is checked before anything else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from multisite.cluster import nodes
from multisite.cluster.keyfile import read_key
from multisite.cluster.relaying import FIELD, BadSignature, receive
from multisite.config.model import Home, Site
from multisite.config.safefiles import Unusable
from multisite.errors import Forbidden
from multisite.logs import servicelog

TOLD_EVERY = 60.0  # seconds between two lines of the log about the same site

WSGI = Callable[..., Iterable[bytes]]
Environ = dict[str, Any]


def behind_check(site: Site, home: Home, place: Callable[[WSGI], None]) -> Callable[[WSGI], None]:
    """Return what places an app of `site` as `place` does, behind the check; requests of clients pass it untouched."""
    told_at = 0.0
    own = cache(lambda: str(nodes.own(home)))  # it may ask the system's resolver

    def check(environ: Environ) -> None:
        """Raises Forbidden: the signature is not good."""
        nonlocal told_at
        field = environ.pop(FIELD)
        try:
            receive(environ, str(field), read_key(home), own(), time.time())
        except (BadSignature, Unusable, nodes.UnknownNode) as error:
            now = time.monotonic()
            if now - told_at >= TOLD_EVERY:
                told_at = now
                peer = environ.get("REMOTE_ADDR", "")
                logger = servicelog.site_logger(site.name)
                logger.warning("MS327 refused a request that %s has sent in the name of a node: %s", peer, error)
            raise Forbidden("This request does not come from a node of this cluster") from None

    def place_behind(app: WSGI) -> None:
        def received(environ: Environ, start_response: Any) -> Iterable[bytes]:
            if FIELD in environ:
                check(environ)
            return app(environ, start_response)

        place(received)

    return place_behind
