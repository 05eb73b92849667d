"""Waiting as the site's own modules would.

A site may put functions of its own in the place of the standard library's, which run its greenlets while they wait
(gevent, eventlet). Where it has, we wait by its `select.select` as well: what it has begun goes on between two
requests, as it does under gunicorn's sync worker. This module has to be imported before the site.
"""

from __future__ import annotations

import _thread
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SELECT, _START = select.select, _thread.start_new_thread


def are_the_sites() -> bool:
    """Whether the site has put something else in the place of `select.select`."""
    return select.select is not _SELECT


def threads_are_the_sites() -> bool:
    """Whether it has put something else in the place of threads: greenlets that would wait for each other.

    Who only looks on, as an examination does, starts a thread all the same.
    """
    start = _thread.start_new_thread
    return getattr(start, "__wrapped__", start) is not _START


def wait(reads: Any = None, writes: Any = None, seconds: float = 0) -> bool:
    """Wait, by what the site has in the place of `select.select`, until one of them is ready; returns whether it is.

    Args:
        reads, writes: what has a descriptor that is to be read from, or written to.
        seconds: at most; 0 for ever.
    """
    to_read, to_write = ([each.fileno()] if each is not None else [] for each in (reads, writes))
    ready = select.select(to_read, to_write, [], seconds or None)
    return bool(ready[0] or ready[1])
