"""New backends beside old ones on the same socket: which are to go, and when."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from multisite.supervisor.backend import Backend
from multisite.supervisor.lifecycle import Event, State

PATIENCE = 5.0  # seconds that a replacement waits for room before its predecessor makes some
SERVING = (State.STARTING, State.RUNNING)  # a silent server may have taken requests before it is known to be ready


def mark_all(backends: Iterable[Backend], reason: str) -> bool:
    """Have all that serve replaced; tells whether there is any."""
    serving = [backend for backend in backends if backend.state in SERVING]
    for backend in serving:
        backend.obsolete = reason
    return bool(serving)


def mark_large(backends: Iterable[Backend], limit: int | None, log: logging.Logger) -> bool:
    """Have those replaced that use more than `limit` bytes; tells whether there is any."""
    large = [one for one in backends if limit and one.memory > limit and _may_go(one) and not one.obsolete]
    for backend in large:
        log.warning("process %s uses %s MiB, more than memory_limit; it is replaced", backend.pid, backend.memory >> 20)
        backend.obsolete = "memory"
    return bool(large)


def keep_all(backends: Iterable[Backend]) -> None:
    """Have none replaced after all."""
    for backend in backends:
        backend.obsolete = ""


def relieve(backends: Iterable[Backend], successor: Backend) -> None:
    """Let one old backend go, now that `successor` is ready."""
    old = next((one for one in backends if one.obsolete and one.state in SERVING), None)
    if old and not successor.obsolete:
        old.feed(Event.STOP, old.obsolete)


def make_room(backends: Sequence[Backend], waited: float) -> None:
    """Let a predecessor go first where there has been no room for two for `waited` seconds."""
    old = [backend for backend in backends if backend.obsolete and _may_go(backend)]
    if waited > PATIENCE and old and not any(backend.state is State.STARTING for backend in backends):
        old[0].feed(Event.STOP, old[0].obsolete)


def _may_go(backend: Backend) -> bool:
    return backend.state is State.RUNNING
