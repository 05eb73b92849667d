"""Requests that wait in a worker before they are sent, until a site may have them.

They wait in the relay loop, as cold starts do, with their bodies, and hold no thread. Where a server does not let us
have the connection, a thread waits, one of the site's share. Nothing of a request that has waited for too long, or
whose client leaves, has reached the site.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from multisite.errors import BackendUnavailable, MultisiteError, SiteBusy
from multisite.proxy.body import Upload
from multisite.proxy.destination import Destination, NotNow
from multisite.proxy.downstream import Environ
from multisite.proxy.upstream import Exchange

LOOK_EVERY = 0.1  # seconds

_log = logging.getLogger("multisite.held")


class Held(Destination):
    """Where one request goes that waits first.

    Args:
        of: where it goes then.
        patience: seconds that it waits at most.
        late: makes the error that answers it after that time.

    Attributes:
        deadline: monotonic seconds.
    """

    can_explain = True

    def __init__(self, of: Destination, patience: float, late: Callable[[], MultisiteError]) -> None:
        super().__init__(of.sends, of.upload_rate)
        self.queue, self.pace, self.share, self.places = of.queue, of.pace, of.share, of.places
        self.deadline = time.monotonic() + patience
        self._of, self._late = of, late
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._call: Callable[[], None] | None = None
        self._error: MultisiteError | None = None

    def __str__(self) -> str:
        return str(self._of)

    @property
    def is_waiting(self) -> bool:
        """Whether it still waits."""
        return not self._settled.is_set() and time.monotonic() < self.deadline

    def settle(self, error: MultisiteError | None = None) -> None:
        """Let the request go on, or answer it with an error; from any thread, and only the first time counts."""
        with self._lock:
            if self._settled.is_set():
                return
            self._error = error
            self._settled.set()
            call, self._call = self._call, None
        if call:
            call()

    def delay(self, call: Callable[[], None]) -> float:
        """Return how long the request may have to wait (see `Destination`)."""
        with self._lock:
            if self._settled.is_set():
                return 0.0
            self._call = call
        return max(0.001, self.deadline - time.monotonic())

    def begin(self, environ: Environ, upload: Upload, hurry: bool) -> Exchange:
        """Send the request, when it need not wait any more (see `Destination`)."""
        if not self._settled.is_set():
            if hurry:
                raise NotNow
            if not self._settled.wait(max(0.0, self.deadline - time.monotonic())):
                raise self._late()
        if self._error:
            raise self._error
        return self._of.begin(environ, upload, hurry)

    @property
    def late(self) -> MultisiteError:
        """What the request is answered with that has waited for as long as it may."""
        return self._of.late if self._settled.is_set() else self._late()

    def explain(self, error: MultisiteError) -> None:
        """Ask why there was no answer (see `Destination`)."""
        self._of.explain(error)


Waiter = TypeVar("Waiter", bound=Held)


class WaitingRoom(Generic[Waiter]):
    """The requests of one site that wait in this process, and a thread that looks after them while there are any.

    Args:
        most: how many may wait.
        look: settles those that need not wait any more; called in that thread, and may take time.
    """

    def __init__(self, most: int, look: Callable[[list[Waiter]], None]) -> None:
        self._most, self._look = most, look
        self._held: list[Waiter] = []
        self._changed = threading.Condition()
        self._is_kept = False

    def enter(self, held: Waiter) -> None:
        """Have a request wait.

        Raises:
            SiteBusy: as many wait as may.
            BackendUnavailable: the system has no thread left.
        """
        with self._changed:
            self._held = [one for one in self._held if one.is_waiting]
            if len(self._held) >= self._most:
                raise SiteBusy(f"{len(self._held)} requests are already waiting for this site")
            self._held.append(held)
            if self._is_kept:
                self._changed.notify()
                return
            try:
                threading.Thread(target=self._keep, name="multisite-waiting", daemon=True).start()
            except RuntimeError as error:
                self._held.clear()
                raise BackendUnavailable(f"requests cannot wait: {error}") from error
            self._is_kept = True

    def _keep(self) -> None:
        while True:
            with self._changed:
                self._held = [one for one in self._held if one.is_waiting]
                self._is_kept = bool(self._held)
                if not self._held:
                    return
                held = list(self._held)
            try:
                self._look(held)
            except Exception:  # those who wait have a deadline
                _log.exception("MS476 those who wait for a site cannot be looked after")
            with self._changed:
                if held[-1:] == self._held[-1:]:  # else somebody has come meanwhile
                    self._changed.wait(LOOK_EVERY)
