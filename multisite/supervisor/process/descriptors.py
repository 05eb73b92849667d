"""How many descriptors a process may have, and how many we have left: the last are reserved for what must not fail."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from dataclasses import dataclass, field

RESERVE = 48  # to look at processes, files and connections, and to report what is wrong; at most a quarter
LOW = 128  # below this, sockets of resting sites are put away; at most half of all
_OWN = "/proc/self/fd"
EXHAUSTED = "the supervisor has no descriptors left; raise its limit (LimitNOFILE= of its systemd unit, ulimit -n)"


def are_low() -> bool:
    """Tell whether it is time to put something away."""
    return left() < min(LOW, _limit() // 2)


def _limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def left() -> int:
    """Return how many more this process may open."""
    try:
        used = os.stat(_OWN).st_size or len(os.listdir(_OWN)) - 1  # Linux before 6.2 must be asked for their names
    except OSError:
        return 0
    return max(0, _limit() - used)


def claim(count: int, share: int = 1) -> None:
    """Make sure that `count` more may be opened without touching the reserve, or this share of it.

    Raises:
        OSError: there are too few left.
    """
    if left() < min(RESERVE, _limit() // 4) // share + count:
        raise OSError(errno.EMFILE, EXHAUSTED)


def read(descriptor: int, most: int = 65536) -> bytes | None:
    """Return what has arrived on a non-blocking pipe; None for nothing, empty if the other end is closed."""
    try:
        return os.read(descriptor, most)
    except BlockingIOError:
        return None
    except OSError:
        return b""


@dataclass
class DescriptorLimits:
    """Limits of the machine as they were before the supervisor raised its own."""

    nofile: tuple[int, int] = field(default_factory=lambda: resource.getrlimit(resource.RLIMIT_NOFILE))

    def raise_own(self) -> None:
        """Give this process as many descriptors as it may have: it needs a listening socket for each site."""
        soft, hard = self.nofile
        if soft != hard:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def of(self, nofile: int | None) -> tuple[int, int]:
        """Return how many a process may have, now and at most; a site's file (`nofile`) cannot raise the latter."""
        soft, hard = self.nofile
        if nofile is None:
            return min(soft, hard), hard
        most = nofile if os.geteuid() == 0 else min(nofile, hard)
        return most, most
