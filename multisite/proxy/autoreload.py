"""A spawned site whose processes are never older than its code, for development.

Before a request, the processes are asked to end if the code has changed since they started; the request waits in the
site's listening socket, like any cold one, and gets the new code, or the page with the reason why it does not start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from multisite.config.model import Home, Site
from multisite.control.client import Client
from multisite.errors import MultisiteError
from multisite.sites import changes

LONGEST_WAIT = 3.0  # seconds for processes to end; requests in flight there may take longer, and continue

_log = logging.getLogger("multisite.fresh")


class AutoReload:
    """Calls `app` when no process with older code is serving any more."""

    def __init__(self, app: Callable[..., Iterable[bytes]], site: Site, home: Home) -> None:
        self._app, self._site = app, site
        self._client = Client(home)
        self._lock = threading.Lock()
        self._times = changes.times(site)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        with self._lock:
            times = changes.times(self._site)
            if times != self._times:
                self._times = times
                self._end()
        return self._app(environ, start_response)

    def _end(self) -> None:
        _log.info("site %s: its code changed, so its processes end", self._site.name)
        whom = {"site": self._site.entry_name, "host": self._site.host}
        with contextlib.suppress(MultisiteError, OSError):
            pids = self._client.ask({"do": "stop", "why": "newer code", **whom}).get("pids", ())
            self._client.ask(
                {"do": "restart", **whom}
            )  # no process is running that it could replace; failures are forgotten
            _await_end(pids)


def _await_end(pids: Iterable[int]) -> None:
    until = time.monotonic() + LONGEST_WAIT
    for pid in pids:
        with contextlib.suppress(OSError):  # it is gone already
            descriptor = os.pidfd_open(pid)
            try:
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                poll.poll(max(0.0, until - time.monotonic()) * 1000)
            finally:
                os.close(descriptor)
