"""Puts back what a whole process shares and an import has changed; `multisite.runner.state` reads it.

Signal handlers are set in the main thread alone: only there can Python set them (library reference, "signal: Signals
and threads").
"""

from __future__ import annotations

import locale
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress

from multisite.runner.state import ProcessState, added_paths, changed_handlers, differences, read

__all__ = [
    "ProcessState",
    "added_paths",
    "changed_handlers",
    "differences",
    "read",
    "restore",
    "restore_handlers",
    "restore_place",
    "restore_shared",
]


def restore(state: ProcessState, now: ProcessState) -> list[str]:
    """Put everything but the signal handlers back to `state`; returns a phrase for each thing that could not be."""
    return restore_place(state, now) + restore_shared(state, now)


def restore_shared(state: ProcessState, now: ProcessState) -> list[str]:
    """Put back what all threads have in common in any case."""
    return list(filter(None, (_attempt(*step) for step in _steps(state, now))))


def restore_place(state: ProcessState, now: ProcessState) -> list[str]:
    """Put back the working directory and the umask, which may be those of this thread alone."""
    steps: list[tuple[str, Callable[[], object]]] = []
    if state.cwd != now.cwd:
        steps.append((f"the working directory {state.cwd}", lambda: os.chdir(state.cwd)))
    if state.umask != now.umask:
        steps.append(("the umask", lambda: os.umask(state.umask)))
    return list(filter(None, (_attempt(*step) for step in steps)))


def restore_handlers(state: ProcessState, now: ProcessState) -> list[str]:
    """Put the signal handlers back. In the main thread."""
    steps = ((f"signal {n}", lambda n=n: signal.signal(n, state.handlers[n])) for n in changed_handlers(state, now))
    return list(filter(None, (_attempt(*step) for step in steps)))


def _steps(state: ProcessState, now: ProcessState) -> Iterator[tuple[str, Callable[[], object]]]:
    """What there is to do, in words and as a call."""
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


def _attempt(name: str, act: Callable[[], object]) -> str:
    try:
        act()
    except (OSError, ValueError, TypeError, RecursionError, locale.Error) as error:
        return f"{name} could not be put back ({error})"
    return ""


def _restore_environ(state: ProcessState) -> None:
    """Only what differs, so that a thread that reads meanwhile never finds it empty."""
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
