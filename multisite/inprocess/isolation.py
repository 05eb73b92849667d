"""Keeps a site's import from changing the process that it shares, and restores what it has changed.

`multisite.runner.state` reads what a whole process shares. Signal handlers are set in the main thread alone: only there
can Python set them (library reference, "signal: Signals and threads"). Django keeps settings, applications and routes
once, in its own modules, so an interpreter has one Django project.
"""

from __future__ import annotations

import locale
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from multisite.errors import NeedsProcess
from multisite.inprocess import workdir
from multisite.logs import servicelog
from multisite.runner.state import ProcessState, added_paths, changed_handlers, differences
from multisite.sites import claims

Steps = Iterable[tuple[str, Callable[[], object]]]  # in words and as a call


def restore_shared(state: ProcessState, now: ProcessState) -> list[str]:
    """Restore to `state` what all threads share; return a phrase for each part that could not be restored."""
    return _undo(_shared(state, now))


def restore_place(state: ProcessState, now: ProcessState) -> list[str]:
    """Restore the working directory and the umask, which may belong to this thread alone."""
    steps: list[tuple[str, Callable[[], object]]] = []
    if state.cwd != now.cwd:
        steps.append((f"the working directory {state.cwd}", lambda: os.chdir(state.cwd)))
    if state.umask != now.umask:
        steps.append(("the umask", lambda: os.umask(state.umask)))
    return _undo(steps)


def restore_handlers(state: ProcessState, now: ProcessState) -> list[str]:
    """Restore the signal handlers. In the main thread."""
    changed = changed_handlers(state, now)
    return _undo((f"signal {n}", partial(signal.signal, n, state.handlers[n])) for n in changed)


def _shared(state: ProcessState, now: ProcessState) -> Steps:
    if state.environ_object is not now.environ_object or state.environ != now.environ:
        yield "os.environ", lambda: _restore_environ(state)
    if state.path_object is not now.path_object or state.path != now.path:
        yield "sys.path", lambda: _restore_path(state)
    if state.locale != now.locale:
        yield "the locale", lambda: locale.setlocale(locale.LC_ALL, state.locale)
    if state.filters != now.filters:
        yield "the warnings filters", lambda: _restore_filters(state)
    if state.recursion_limit != now.recursion_limit:
        yield "the recursion limit", lambda: sys.setrecursionlimit(state.recursion_limit)


def _undo(steps: Steps) -> list[str]:
    failed = []
    for name, act in steps:
        try:
            act()
        except (OSError, ValueError, TypeError, RecursionError, locale.Error) as error:
            failed.append(f"{name} could not be restored ({error})")
    return failed


def _restore_environ(state: ProcessState) -> None:
    """Restore only what differs, so that a thread that reads meanwhile never finds it empty."""
    os.environ = state.environ_object  # noqa: B003  the very object that was there before
    for name in os.environ.keys() - state.environ.keys():
        with suppress(KeyError):
            del os.environ[name]
    for name, value in state.environ.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    time.tzset()


def _restore_path(state: ProcessState) -> None:
    sys.path = state.path_object
    sys.path[:] = state.path


def _restore_filters(state: ProcessState) -> None:
    warnings.filters[:] = state.filters  # type: ignore[index]  # a list in every CPython, typed as a Sequence


def is_django_configured() -> bool:
    """Tell whether a Django project lives in this interpreter."""
    # Another thread may be in the middle of importing it; and the truth of the settings themselves would set Django up.
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    return settings is not None and bool(settings.configured)


def fence_django(owner: str) -> None:
    """Make every other site's ``django.setup()`` fail.

    Without this a second project would silently be served with the first one's
    settings and database, since Django keeps both once per interpreter.
    """
    django = sys.modules.get("django")
    if django is None or getattr(django.setup, "multisite_owner", "") == owner:
        return
    original = getattr(django.setup, "multisite_original", django.setup)

    def setup(*args: Any, **kwargs: Any) -> None:
        if servicelog.current_site.get() not in ("", owner):
            raise NeedsProcess(claims.conflict({claims.DJANGO: ""}, {owner: {claims.DJANGO: ""}}))
        original(*args, **kwargs)

    setup.multisite_owner, setup.multisite_original = owner, original  # type: ignore[attr-defined]
    django.setup = setup  # type: ignore[attr-defined]


STRAGGLER_AFTER = 30.0
"""Seconds after which an import no longer delays the undoing of the others' changes."""

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


@dataclass(slots=True, eq=False)
class _Watch:
    """One import under way."""

    site_name: str
    since: float
    before: ProcessState
    others: set[str]
    changes: Changes = field(default_factory=Changes)


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
            before = ProcessState()
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
            now = ProcessState()
            watch.changes += differences(watch.before, now)
            watch.changes.paths = added_paths(watch.before, now)
            watch.changes.others = tuple(sorted(watch.others))
            watch.changes += restore_handlers(watch.before, now)
            is_last = all(self._clock() - each.since > STRAGGLER_AFTER for each in self._running)
            if workdir.is_own():
                watch.changes += restore_place(watch.before, now)
            elif is_last and self._baseline is not None:
                watch.changes += restore_place(self._baseline, now)
            if is_last and self._baseline is not None:
                watch.changes += restore_shared(self._baseline, now)


def _report(watch: _Watch) -> None:
    if not watch.changes:
        return
    meanwhile = f" (or {', '.join(watch.changes.others)}, imported meanwhile)" if watch.changes.others else ""
    _log.warning(
        "MS247 the import of site %s%s changed what the whole process shares (restored): %s",
        watch.site_name,
        meanwhile,
        "; ".join(watch.changes),
    )
