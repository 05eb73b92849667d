"""How many descriptors processes may have: the supervisor itself, and those that it starts."""

from __future__ import annotations

import contextlib
import os
import resource
from dataclasses import dataclass, field


@dataclass
class Limits:
    """Limits of the machine as they were before the supervisor raised its own."""

    nofile: tuple[int, int] = field(default_factory=lambda: resource.getrlimit(resource.RLIMIT_NOFILE))

    def raise_own(self) -> None:
        """Let this process have as many descriptors as it may: a listening socket for each site."""
        soft, hard = self.nofile
        if soft != hard:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def of(self, nofile: int | None) -> tuple[int, int]:
        """Return how many descriptors a process may have, now and at most; what its file says it cannot raise itself.

        `nofile`: what its file says.
        """
        soft, hard = self.nofile
        if nofile is None:
            return min(soft, hard), hard
        most = nofile if os.geteuid() == 0 else min(nofile, hard)
        return most, most
