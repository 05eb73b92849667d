"""The end of a backend that loses nothing of what it has accepted."""

from __future__ import annotations

from collections.abc import Callable

from multisite.supervisor.lifecycle import Event, State
from multisite.supervisor.process.kernel import Connections
from multisite.supervisor.site.backend import Backend


def end_if_drained(backend: Backend, connected: Connections, look: Callable[[], Connections]) -> None:
    """End a draining server of the kind that would lose connections: freeze it, look again, and only then end it.

    Args:
        backend: in any state; what ends by itself when it is drained is left to do so.
        connected: the site's connections as they were a moment ago.
        look: asks the kernel for them as they are now.
    """
    if backend.state is not State.DRAINING or backend.graceful or connected.open:
        return
    backend.freeze()
    is_drained = False
    try:
        is_drained = not look().open
    finally:
        if not is_drained:
            backend.thaw()
    if is_drained:
        backend.feed(Event.DRAINED, backend.reason)
