"""How many descriptors are left; the last of them are kept for what must not fail."""

from __future__ import annotations

import errno
import os
import resource

RESERVE = 48  # for looking at processes, files and connections, and for telling what is wrong; at most a quarter
LOW = 128  # below this, sockets of sites that rest are put away; at most half of all


def are_low() -> bool:
    """Tell whether it is time to put something away."""
    return left() < min(LOW, _limit() // 2)


def _limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def left() -> int:
    """Return how many more this process may open."""
    try:
        used = os.stat(_OWN).st_size or len(os.listdir(_OWN)) - 1  # Linux before 6.2 has to be asked for their names
    except OSError:
        return 0
    return max(0, _limit() - used)


_OWN = "/proc/self/fd"


def claim(count: int, share: int = 1) -> None:
    """Make sure that `count` more may be opened without touching the reserve, or one of so many shares of it.

    Raises:
        OSError: there are too few left.
    """
    if left() < min(RESERVE, _limit() // 4) // share + count:
        raise OSError(errno.EMFILE, EXHAUSTED)


EXHAUSTED = "the supervisor has no descriptors left; raise its limit (LimitNOFILE= of its systemd unit, ulimit -n)"
