"""Which requests of one site wait in the queue of its socket.

Only the kernel knows whether a backend has read what was sent to it (`Exchange.is_taken`). A request that nobody has
read has been seen by no application: it can be refused honestly, and the client may repeat it.
"""

from __future__ import annotations

from multisite.errors import MultisiteError, SiteBusy
from multisite.proxy.upstream import Exchange


class Queued:
    """The requests of one site in this process that may still wait; any thread may ask.

    Args:
        most: how many may; 0 where nothing is known of them, as of a foreign server's.
    """

    def __init__(self, most: int = 0) -> None:
        self._most = most
        self._waiting: set[Exchange] = set()  # its single operations are atomic

    def __len__(self) -> int:
        return len(self._waiting)

    def check(self) -> None:
        """Look whether there is room for one more.

        Raises:
            SiteBusy: as many wait as may.
        """
        if self._most and len(self._waiting) >= self._most:
            for exchange in list(self._waiting):
                self.look(exchange)
            if len(self._waiting) >= self._most:
                raise SiteBusy(f"{len(self._waiting)} requests are waiting for this site already")

    def enter(self, exchange: Exchange) -> None:
        """Note one that was sent."""
        if self._most:
            self._waiting.add(exchange)

    def leave(self, exchange: Exchange) -> None:
        """Forget one."""
        self._waiting.discard(exchange)

    def is_waiting(self, exchange: Exchange) -> bool:
        """Tell whether it has not been seen to be taken."""
        return exchange in self._waiting

    def look(self, exchange: Exchange) -> bool:
        """Look whether it has been taken."""
        taken = exchange.is_taken()
        if taken:
            self._waiting.discard(exchange)
        return taken

    def late(self, exchange: Exchange) -> MultisiteError:
        """Return the error for one whose time is over."""
        if self.is_waiting(exchange) and not self.look(exchange):
            return SiteBusy(f"no process of this site took the request within {exchange.timeout:g} s")
        return exchange.late()
