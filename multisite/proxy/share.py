"""How many threads of the server one site may hold, where a thread has to wait for each of its requests.

The rule is that of dynamic thresholds in shared buffers: a site may take another thread while it holds fewer than are
free. One slow site comes to hold half of them, two a third each, and some are free always. A site whose answers are
quick may have more for a moment, up to a reserve.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from multisite.errors import SiteBusy
from multisite.sites.server import Threads

YOUNG = 0.5  # seconds; a site is slow if its oldest request is older
MOMENT = 0.25  # seconds to wait for a thread of a site that is not slow
RETRY_AFTER = 2


class Share:
    """The share of one site; without `threads` there is no bound."""

    def __init__(self, threads: Callable[[], Threads | None] = lambda: None) -> None:
        self._threads = threads
        self._since: dict[int, float] = {}  # when each of its requests began, by a number
        self._number = 0

    def take(self) -> Callable[[], None]:
        """Take a thread, the caller's; return what gives it back, to be called once or more often.

        Raises:
            SiteBusy: the site holds its share, and is slow.
        """
        threads = self._threads()
        if threads is None:
            return _nothing
        with threads.changed:
            threads.changed.wait_for(lambda: self._may(threads) or self._is_slow(), MOMENT)
            if not self._may(threads):
                raise SiteBusy("this site is slow, and has its share of the server's threads")
            self._number += 1
            number = self._number
            self._since[number] = time.monotonic()
            threads.held += 1

        def release() -> None:
            with threads.changed:
                if self._since.pop(number, None) is not None:
                    threads.held -= 1
                    threads.changed.notify_all()

        return release

    def _may(self, threads: Threads) -> bool:
        free = threads.count - threads.held
        return len(self._since) < free or (free > threads.reserve and not self._is_slow())

    def _is_slow(self) -> bool:
        return bool(self._since) and time.monotonic() - next(iter(self._since.values())) > YOUNG


def _nothing() -> None:
    pass
