"""Keeps a site's import from changing the process that it shares with its neighbours."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from multisite.inprocess import process_state, workdir
from multisite.inprocess.process_state import ProcessState

STRAGGLER_AFTER = 30.0
"""Seconds after which an import no longer holds back that the others' changes are undone."""

_log = logging.getLogger("multisite.guard")


class Changes(list[str]):
    """What an import changed, one phrase each: "the working directory (/x → /y)", "os.environ['A'] (set)".

    Attributes:
        paths: the directories that it added to `sys.path`, in their order.
        others: the sites that were being imported at the same time. What one of them changed cannot
            be told from this site's doing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.paths: tuple[str, ...] = ()
        self.others: tuple[str, ...] = ()


class _Watch:
    """One import under way."""

    def __init__(self, site_name: str, since: float, before: ProcessState, others: set[str]) -> None:
        self.site_name = site_name
        self.since = since
        self.before = before
        self.others = others
        self.changes = Changes()


class Guard:
    """Process-wide state around imports: one per process.

    Several sites may be imported at once, in threads that never wait for each other: the lock is held while the
    state is read or put back, never during an import. The *baseline* is read when no import runs; the last import
    to end puts everything back to it. One that has run for more than `STRAGGLER_AFTER` seconds does not count
    as running for that, or a hanging site would keep a neighbour's working directory for good. Signal handlers are put
    back by the main thread at the end of its own import, since no other thread can have set them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running: list[_Watch] = []
        self._baseline: ProcessState | None = None

    @contextmanager
    def watch(self, site_name: str) -> Iterator[Changes]:
        """Watch the import in the block; after it the list says what was changed, and a warning was logged.

        Also when the block raises.
        """
        watch = self._enter(site_name)
        try:
            yield watch.changes
        finally:
            self._leave(watch)
            _report(watch)

    def _enter(self, site_name: str) -> _Watch:
        with self._lock:
            before = process_state.read()
            if not self._running:
                self._baseline = before
            watch = _Watch(site_name, self._clock(), before, {each.site_name for each in self._running})
            for each in self._running:
                each.others.add(site_name)
            self._running.append(watch)
        return watch

    def _leave(self, watch: _Watch) -> None:
        with self._lock:
            self._running.remove(watch)
            now = process_state.read()
            _note(watch, now)
            watch.changes += process_state.restore_handlers(watch.before, now)
            is_last = not any(map(self._is_fresh, self._running))
            if workdir.is_own():
                watch.changes += process_state.restore_place(watch.before, now)
            elif is_last and self._baseline is not None:
                watch.changes += process_state.restore_place(self._baseline, now)
            if is_last and self._baseline is not None:
                watch.changes += process_state.restore_shared(self._baseline, now)

    def _is_fresh(self, watch: _Watch) -> bool:
        return self._clock() - watch.since <= STRAGGLER_AFTER


def _note(watch: _Watch, now: ProcessState) -> None:
    watch.changes += process_state.differences(watch.before, now)
    watch.changes.paths = process_state.added_paths(watch.before, now)
    watch.changes.others = tuple(sorted(watch.others))


def _report(watch: _Watch) -> None:
    if not watch.changes:
        return
    meanwhile = f" (or {', '.join(watch.changes.others)}, imported meanwhile)" if watch.changes.others else ""
    _log.warning(
        "the import of site %s%s changed what the whole process shares (it is put back): %s",
        watch.site_name,
        meanwhile,
        "; ".join(watch.changes),
    )
