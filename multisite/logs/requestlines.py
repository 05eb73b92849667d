"""A line for each request on standard error, for developers of sites, with `multisite serve`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from multisite.config.logformat import word
from multisite.logs.requests import RequestLog, RequestRecord

STDERR = 2
LONGEST = 300  # characters of a path with its query, or of a host
NOBODY = "-"  # instead of a site's name
COLOURS = {2: "\x1b[32m", 3: "\x1b[36m", 4: "\x1b[33m", 5: "\x1b[31m"}  # by the first digit of a status
PLAIN = "\x1b[0m"


class RequestLines:
    """Prints a line for each request of `site`.

    Args:
        site: its name, `NOBODY` for what no site has answered.
        log: writes down the same requests.
    """

    def __init__(self, site: str, log: RequestLog | None = None, write: Callable[[bytes], Any] | None = None) -> None:
        self._site, self._log = site, log
        self._write = write or _to_stderr
        self._coloured = is_coloured()

    def write(self, request: RequestRecord, status: int, sent: int, seconds: float, how: str) -> None:
        """Print the line of a request that has ended."""
        if self._log:
            self._log.write(request, status, sent, seconds, how)
        host = request.environ.get("HTTP_HOST")
        site = f"{self._site}, cut" if how.endswith(",cut") else self._site
        text = line(request.method, host, request.uri, status or 499, seconds, site, self._coloured)
        self._write(f"{time.strftime('%H:%M:%S')} {text}\n".encode())


def line(method: Any, host: Any, uri: Any, status: int, seconds: float, site: str, coloured: bool) -> str:
    """Return ``GET blog.localhost:8000 /path 200 3.1 ms blog``, in printable ASCII but for the colour."""
    sent = " ".join(_word(text) for text in (method, host, uri))
    colour = COLOURS.get(status // 100, "") if coloured else ""
    shown = f"{colour}{status}{PLAIN}" if colour else str(status)
    took = f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
    return f"{sent} {shown} {took} {site}"


def is_coloured() -> bool:
    """Tell whether standard error is a terminal whose user takes colour (no-color.org)."""
    return os.isatty(STDERR) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _word(text: object) -> str:
    """Return what a client has sent, with everything escaped that could steer a terminal or look like another line."""
    shown = text if isinstance(text, str) and text else "-"
    return word(shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}...")


def _to_stderr(data: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody looks on any more
        os.write(STDERR, data)
