"""Wrong tokens of the status pages: after some of them, an address has to wait, whatever it shows next.

All workers of a home count together, in a document of its state directory. A right token costs one look at it.
"""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING

from multisite.errors import MultisiteError, one_line
from multisite.supervisor import wakes

if TYPE_CHECKING:
    from multisite.sites.statefile import StateFile

    Known = dict[str, tuple[int, float]]  # by client: wrong tokens, and the time of the first in Unix seconds

KIND = "attempts"  # of the document
WINDOW = 300.0  # seconds from its first wrong token in which those of a client add up
MOST = 10  # wrong tokens of a client, after which it has to wait until its window is over
MOST_OF_ALL = 100  # of all clients; while there are so many, a client has to wait after its first one
MOST_CLIENTS = 1000  # remembered; those whose first wrong token was longest ago are forgotten first
_log = logging.getLogger("multisite.status")


class TooManyAttempts(MultisiteError):
    """This client has shown too many wrong tokens, and its next one was not looked at."""

    id = "MS825"
    status = 429

    def __init__(self, wait: int) -> None:
        super().__init__("Too many wrong tokens have come from this address. Try again later.")
        self.retry_after = wait


class Attempts:
    """Counts wrong tokens.

    Args:
        file: for all workers of a home; without one, or if it cannot be written, this process counts alone.
    """

    def __init__(self, file: StateFile | None = None) -> None:
        self._file = file
        self._own: Known = {}

    def judge(self, address: str, is_right: bool, now: float) -> bool:
        """Return whether a token was right; a wrong one is counted and logged.

        Args:
            address: of the client, "" on a unix socket.
            is_right: what a comparison said.
            now: Unix seconds.

        Raises:
            TooManyAttempts: it does not matter any more.
        """
        client = wakes.client_of(address)  # for IPv6 a whole /64, of which one subscriber has all addresses
        if is_right:
            _refuse(self._load(now), client, now)
            return True
        with self._file.locked() if self._file else contextlib.nullcontext():
            known = self._load(now)
            _refuse(known, client, now)
            known = one_more(known, client, now)
            self._store(known)
        self._tell(known, client, one_line(address or "a local process")[:60], now)
        return False

    def _tell(self, known: Known, client: str, name: str, now: float) -> None:
        _log.warning("MS820 status page: a wrong token from %s", name)
        if sum(count for count, _ in known.values()) == MOST_OF_ALL:
            _log.warning(
                "MS823 status page: %s wrong tokens within minutes, so each address has one attempt", MOST_OF_ALL
            )
        pause = wait(known, client, now)
        if pause:
            _log.warning("MS824 status page: tokens from %s are refused for the next %s seconds", name, pause)

    def _load(self, now: float) -> Known:
        rows = self._file.rows() if self._file else {}
        try:
            known = {client: (int(count), float(since)) for client, (count, since) in rows.items()}
        except (TypeError, ValueError):
            known = {}
        merged = {**known, **{one: row for one, row in self._own.items() if row > known.get(one, (0, 0.0))}}
        return {client: row for client, row in merged.items() if 0 <= now - row[1] < WINDOW}

    def _store(self, known: Known) -> None:
        if not (self._file and self._file.store(known)):
            self._own = known


def wait(known: Known, client: str, now: float) -> int:
    """Return the seconds that a client has to wait, 0 if it may show a token (pure)."""
    count, since = known.get(client, (0, now))
    most = MOST if sum(count for count, _ in known.values()) < MOST_OF_ALL else 1
    return max(1, math.ceil(since + WINDOW - now)) if count >= most else 0


def one_more(known: Known, client: str, now: float) -> Known:
    """Return what is known with one more wrong token of a client (pure)."""
    count, since = known.get(client, (0, now))
    newest = sorted({**known, client: (count + 1, since)}.items(), key=lambda item: item[1][1])
    return dict(newest[-MOST_CLIENTS:])


def _refuse(known: Known, client: str, now: float) -> None:
    pause = wait(known, client, now)
    if pause:
        raise TooManyAttempts(pause)
