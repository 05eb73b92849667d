"""The lease of one site that must not run twice, as far as this node knows."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from multisite.runner import leaseguard
from multisite.supervisor.process import descriptors
from multisite.supervisor.reexec import DESCRIPTOR, Handed, kept

OVER = "this node had it, and could not renew it before its end"

Answer = dict[str, Any]


class Asker(Protocol):
    """A connection of a worker that waits for an answer."""

    on_close: list[Callable[[], None]]

    def send(self, answer: Answer) -> None:
        """Send it."""


class Lease(Handed):
    """The lease of one site, as far as this node knows.

    Attributes:
        number: grows with each new holder, wherever it is; 0: we do not have it.
        since: Unix time at which we got it.
        fence: descriptor of the file with the moment until which it is valid, -1 while we do not have it.
        shown: the same, for reading only: what its processes get.
        owner: address of the node that had it when it was last asked for, "" if none did.
        failure: why it is not known who has it.
        is_asked_for: the registry has not answered yet.
        is_asked_again: it was free when it was last asked for, and is asked for once more.
        leaves_since: monotonic seconds since which the site leaves for another node, None: it stays.
    """

    KEPT = kept("number since", fence=DESCRIPTOR, shown=DESCRIPTOR)
    ANEW = (
        "owner",
        "failure",
        "is_asked_for",
        "callers",
        "later",
        "is_asked_again",
        "known_at",
        "quiet_since",
        "leaves_since",
    )

    def __init__(self) -> None:
        self.number, self.since = 0, 0.0
        self.fence = self.shown = -1
        self.owner = self.failure = ""
        self.is_asked_for = self.is_asked_again = False
        self.callers: list[Asker] = []  # connections of workers that wait for the answer
        self.later: list[Asker] = []  # that wait for the next one: what is known or was asked may be old news
        self.known_at = 0.0  # monotonic seconds of the last answer
        self.quiet_since: float | None = None  # monotonic seconds since which nothing runs and nobody waits
        self.leaves_since: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether it is ours as far as we know, but was not renewed in time, so that another node may have it."""
        return bool(self.number) and self._left <= 0

    @property
    def _left(self) -> float:
        """Seconds until it is over, unless it is renewed."""
        until = int.from_bytes(os.pread(self.fence, leaseguard.SIZE, 0), sys.byteorder)
        return (until - leaseguard.now()) / 1e9

    @property
    def may_start(self) -> bool:
        """Whether a process of the site may be started here."""
        return bool(self.number) and self.leaves_since is None and not self.is_over

    @property
    def is_awaited(self) -> bool:
        """Whether a worker waits for an answer."""
        return bool(self.callers or self.later)

    def hold(self, number: int, until: int) -> None:
        """Note that it is ours. Each number has its own file: processes of an earlier one gain nothing by it.

        Raises:
            OSError: there is no memory or no descriptor left.
        """
        self.drop()
        descriptors.claim(2)
        self.fence = os.memfd_create("fence", os.MFD_CLOEXEC)
        os.pwrite(self.fence, until.to_bytes(leaseguard.SIZE, sys.byteorder), 0)
        self.shown = os.open(f"/proc/self/fd/{self.fence}", os.O_RDONLY | os.O_CLOEXEC)
        os.fchmod(self.fence, 0)  # nobody opens it once more, for writing
        self.number, self.since = number, time.time()
        self.owner = self.failure = ""

    def drop(self) -> None:
        """Note that it is not ours any more."""
        for descriptor in filter(lambda number: number >= 0, (self.fence, self.shown)):
            os.close(descriptor)
        self.number, self.since, self.quiet_since, self.leaves_since = 0, 0.0, None, None
        self.fence = self.shown = -1

    def as_dict(self, node: str) -> Answer | None:
        """Describe it for ``status``; None: nobody has asked for it yet.

        `since` is the Unix time at which this node got or lost it, or at which it was last known that another has it.
        """
        if self.is_over:
            since = round(time.time() + self._left, 3)
            return {"holder": "", "here": False, "number": 0, "since": since, "failure": OVER}
        if self.number:
            return {"holder": node, "here": True, "number": self.number, "since": round(self.since, 3), "failure": ""}
        if not self.owner and not self.failure:
            return None
        known = round(time.time() - (time.monotonic() - self.known_at), 3)
        return {"holder": self.owner, "here": False, "number": 0, "since": known, "failure": self.failure}
