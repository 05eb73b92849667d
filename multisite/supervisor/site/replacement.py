"""New backends beside old ones on the same socket: which are to go, and when."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from multisite.supervisor.lifecycle import Event, State
from multisite.supervisor.site.backend import Backend

PATIENCE = 5.0  # seconds that a replacement waits for room before its predecessor makes some
SERVING = (State.STARTING, State.RUNNING)  # a silent server may have taken requests before it is known to be ready


def mark_all(backends: Iterable[Backend], reason: str) -> bool:
    """Have all that serve replaced; tells whether there is any. What is not ready yet, and says so itself, ends."""
    serving = [backend for backend in backends if backend.state in SERVING]
    for backend in serving:
        backend.obsolete = reason
        if backend.state is State.STARTING and backend.told:
            backend.feed(Event.STOP, reason)
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


def is_first(backends: Iterable[Backend]) -> bool:
    """Tell whether the next to be started is the first of a new version: it is tried alone."""
    return any(backend.obsolete and backend.state in SERVING for backend in backends) and not is_proven(backends)


def is_proven(backends: Iterable[Backend]) -> bool:
    """Tell whether a new one serves already."""
    return any(not backend.obsolete and backend.state is State.RUNNING for backend in backends)


def relieve(backends: Sequence[Backend], wanted: int) -> None:
    """Let as many old backends go as there are more than `wanted`, now that a new one is ready."""
    serving = [backend for backend in backends if backend.state is State.RUNNING]
    old = [backend for backend in serving if backend.obsolete]
    if len(old) < len(serving):
        for backend in old[: max(0, len(serving) - wanted)]:
            backend.feed(Event.STOP, backend.obsolete)


def make_room(backends: Sequence[Backend], waited: float) -> None:
    """Let a predecessor go first where there has been no room for two for `waited` seconds."""
    old = [backend for backend in backends if backend.obsolete and _may_go(backend)]
    if waited > PATIENCE and old and not any(backend.state is State.STARTING for backend in backends):
        old[0].feed(Event.STOP, old[0].obsolete)


def _may_go(backend: Backend) -> bool:
    return backend.state is State.RUNNING
