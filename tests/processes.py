"""What tests ask the system about processes."""

from __future__ import annotations

from pathlib import Path


def is_running(pid: int) -> bool:
    """Tell whether any thread of a process lives; one that only waits to be reaped does not.

    A process whose first thread has ended is called a zombie although others still hold all its descriptors: on a
    busy machine, a listener outlives a SIGKILL by the moment that the last thread needs to be scheduled.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    state, *_, threads = stat.rpartition(")")[2].split()[:18]
    return state != "Z" or int(threads) > 1
