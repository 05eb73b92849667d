"""A neighbour under constant load while something else happens.

Each client draws breath between two requests: without that, what is looked at gets no processor.
"""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field

from .harness import Client

BREATH = 0.02  # seconds


@dataclass
class Load:
    """Threads that ask one site again and again and keep whatever was not the right answer."""

    port: int
    host: str
    right: str
    threads: int = 4
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    begun: list[float] = field(default_factory=list)  # monotonic seconds, of each failed request
    opened: list[float] = field(default_factory=list)  # and of the first on its connection
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Load:
        self._running = [threading.Thread(target=self._ask, daemon=True) for _ in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join()

    def _ask(self) -> None:
        client, opened = Client(self.port), 0.0
        while not self._stop.wait(BREATH):
            begun = time.monotonic()
            if not client.connection.sock:
                opened = begun
            try:
                answer = client.ask(self.host)
                wrong = "" if (answer.status, answer.text) == (200, self.right) else f"{answer.status} {answer.text}"
            except (OSError, http.client.HTTPException) as error:
                wrong = repr(error)
                client.close()
                client = Client(self.port)
            with self._lock:
                self.asked += 1
                if wrong:
                    self.failures.append(wrong)
                    self.begun.append(begun)
                    self.opened.append(opened)
        client.close()
