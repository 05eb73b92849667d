"""The smoke request, which a new process has to answer before it accepts other requests.

The process makes it itself, so that nothing has to be accepted for it, and it is not counted. The app sees a request
for the site's canonical domain, as from a front end on this machine.
"""

from __future__ import annotations

import io
import os

from .answer import WsgiAnswer
from .requesthead import TRUSTED_PEER, environ_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .handlers import AppCaller
    from .report import Notifier

NOT_WELL = 6  # exit status
FAILS_FROM = 500
LONGEST = 65536  # bytes of an answer that are read


class Smoke:
    """The request.

    Attributes:
        mount: where the site answers, "" at the root.
        path: counted from there.
    """

    def __init__(self, orders: dict[str, Any]) -> None:
        self.host: str = orders["host"]
        self.mount: str = orders.get("mount", "").rstrip("/")
        self.path: str = orders["path"]

    def __str__(self) -> str:
        return f"the smoke request GET {self.mount}{self.path}"

    def head(self) -> bytes:
        """The head of the request in HTTP/1."""
        lines = (f"GET {self.mount}{self.path} HTTP/1.1", f"Host: {self.host}", "User-Agent: multisite-smoke")
        return "\r\n".join((*lines, "Accept: */*", "Connection: close")).encode("latin-1")

    def environ(self) -> dict[str, Any]:
        """The request as a WSGI environ.

        Raises:
            ValueError: it cannot be made.
        """
        environ = environ_of(self.head(), True)
        if environ is None:
            raise ValueError("it cannot be written as a plain request")
        environ["SCRIPT_NAME"] = self.mount
        environ["PATH_INFO"] = environ["PATH_INFO"][len(self.mount) :]
        return environ

    def variables(self) -> dict[str, str]:
        """What an ASGI app gets besides the head, as from an envelope."""
        return {
            "wsgi.url_scheme": "http",
            "SCRIPT_NAME": self.mount,
            "SERVER_NAME": self.host,
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": TRUSTED_PEER,
        }


class Nobody:
    """A connection with nobody at the other end."""

    def __init__(self, smoke: Smoke) -> None:
        self.limit = 0.0
        self.environ: Any = {}
        self.gone = self.failed = self.is_taken = False
        self.received = self.sent = self.status = 0
        self.place: int | None = -1  # it is not among the requests in flight
        self._smoke = smoke

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send nothing."""

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send nothing; return how much would have been sent."""
        return count or 0

    def __str__(self) -> str:
        return str(self._smoke)


def ask_wsgi(smoke: Smoke, caller: AppCaller) -> str:
    """Call the app; return why its answer is not good, "" if it is."""
    try:
        environ = smoke.environ()
    except ValueError as error:
        return f"{smoke}: {error}"
    connection: Any = Nobody(smoke)
    answer = WsgiAnswer(connection, "GET", "HTTP/1.1")
    caller.serve(environ, io.BytesIO(), answer, connection)
    return why_unwell(smoke, answer.status)


def why_unwell(smoke: Smoke, status: int) -> str:
    """Why an answer with that status (0: none) is not good, "" if it is."""
    if status and status < FAILS_FROM:
        return ""
    return f"{smoke} was answered with {status}" if status else f"{smoke} got no answer"


def status_of(answer: bytes) -> int:
    """The status in the head of an answer, 0 if there is none."""
    version, _, rest = answer[:100].partition(b" ")
    return int(rest[:3]) if version.startswith(b"HTTP/1.") and rest[:3].isdigit() else 0


def leave_unless_well(reason: str, notifier: Notifier) -> None:
    """End the process if there is a reason: it must not serve."""
    if reason:
        notifier.failed(reason)
        os._exit(NOT_WELL)
