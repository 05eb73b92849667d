"""How slow a client may be with the body of its request. Pure.

What counts is the time in which it is waited for; a client that is held up by the site is not slow.
"""

from __future__ import annotations

SILENCE = 60.0  # seconds in which something has to come; nginx's client_body_timeout
GRACE = 20.0  # seconds that a body may take whatever its rate


class Tempo:
    """The body of one request.

    Args:
        rate: bytes a second that have to come, all in all; 0 for any number.
    """

    __slots__ = ("_rate", "_received", "_since", "_waited")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._received = 0
        self._waited = 0.0
        self._since: float | None = None

    def deadline(self, now: float) -> float:
        """Begin to wait, or go on; return the monotonic seconds by which something has to come."""
        if self._since is None:
            self._since = now
        if not self._rate:
            return self._since + SILENCE
        return self._since + min(SILENCE, GRACE + self._received / self._rate - self._waited)

    def came(self, size: int, now: float) -> None:
        """Note that so many bytes came, and wait no more."""
        self._received += size
        if self._since is not None:
            self._waited += now - self._since
            self._since = None

    def __str__(self) -> str:
        return f"{self._received} bytes of the request's body came in {self._waited:.0f} s"
