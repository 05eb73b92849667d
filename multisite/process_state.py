"""What a whole process shares and an import may change: read it, tell two readings apart, put one back.

Reading is cheap (some 0.2 ms) and changes nothing. Signal handlers are read and set in the main thread alone:
only there can Python set them (library reference, "signal: Signals and threads").
"""

from __future__ import annotations

import locale
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Handlers = Mapping[int, Any]


@dataclass(frozen=True)
class ProcessState:
    """One reading. Lists and mappings come with the object itself, as a site may bind another one."""

    cwd: str
    umask: int
    environ: Mapping[str, str]
    path: tuple[str, ...]
    locale: str
    filters: tuple[Any, ...]
    recursion_limit: int
    handlers: Handlers
    environ_object: Any
    path_object: list[str]


def read() -> ProcessState:
    """The state now."""
    return ProcessState(
        cwd=_read_cwd(),
        umask=_read_umask(),
        environ=dict(os.environ),
        path=tuple(sys.path),
        locale=locale.setlocale(locale.LC_ALL),
        filters=tuple(warnings.filters),
        recursion_limit=sys.getrecursionlimit(),
        handlers=_read_handlers(),
        environ_object=os.environ,
        path_object=sys.path,
    )


def _read_cwd() -> str:
    """The working directory; "" if it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _read_umask() -> int:
    """From /proc (Linux 4.7): the system call can only read by writing, which another thread could see."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _read_handlers() -> Handlers:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def differences(before: ProcessState, after: ProcessState) -> Iterator[str]:
    """One phrase for each thing that `after` has otherwise."""
    if before.cwd != after.cwd:
        yield f"the working directory ({before.cwd} → {after.cwd})"
    if before.umask != after.umask:
        yield f"the umask ({before.umask:04o} → {after.umask:04o})"
    yield from _environ_differences(before, after)
    yield from _path_differences(before, after)
    if before.locale != after.locale:
        yield f"the locale ({before.locale} → {after.locale})"
    if before.filters != after.filters:
        yield "the warnings filters"
    if before.recursion_limit != after.recursion_limit:
        yield f"the recursion limit ({before.recursion_limit} → {after.recursion_limit})"
    for number in changed_handlers(before, after):
        yield f"the handler of {signal.Signals(number).name if number in set(signal.Signals) else number}"


def _environ_differences(before: ProcessState, after: ProcessState) -> Iterator[str]:
    """Names only: a value may be a secret."""
    for name in sorted(before.environ.keys() | after.environ.keys()):
        if name not in before.environ:
            yield f"os.environ[{name!r}] (set)"
        elif name not in after.environ:
            yield f"os.environ[{name!r}] (removed)"
        elif before.environ[name] != after.environ[name]:
            yield f"os.environ[{name!r}] (changed)"
    if before.environ_object is not after.environ_object:
        yield "os.environ (replaced)"


def added_paths(before: ProcessState, after: ProcessState) -> tuple[str, ...]:
    """The entries of `sys.path` that `before` does not have, in their order."""
    return tuple(dict.fromkeys(entry for entry in after.path if entry not in before.path))


def _path_differences(before: ProcessState, after: ProcessState) -> Iterator[str]:
    added = [f"+{entry}" for entry in added_paths(before, after)]
    removed = [f"-{entry}" for entry in added_paths(after, before)]
    if added or removed:
        yield f"sys.path ({', '.join(added + removed)})"
    elif before.path != after.path:
        yield "sys.path (its order)"
    elif before.path_object is not after.path_object:
        yield "sys.path (replaced)"


def changed_handlers(before: ProcessState, after: ProcessState) -> list[int]:
    """Signals with another handler; none where one of the readings is of another thread than the main one."""
    both = before.handlers.keys() & after.handlers.keys()
    return sorted(number for number in both if before.handlers[number] != after.handlers[number])


def restore(state: ProcessState, now: ProcessState) -> list[str]:
    """Put everything but the signal handlers back to `state`; returns a phrase for each thing that could not be."""
    return list(filter(None, (_attempt(*step) for step in _steps(state, now))))


def restore_handlers(state: ProcessState, now: ProcessState) -> list[str]:
    """Put the signal handlers back. In the main thread."""
    steps = ((f"signal {n}", lambda n=n: signal.signal(n, state.handlers[n])) for n in changed_handlers(state, now))
    return list(filter(None, (_attempt(*step) for step in steps)))


def _steps(state: ProcessState, now: ProcessState) -> Iterator[tuple[str, Callable[[], object]]]:
    """What there is to do, in words and as a call."""
    if state.cwd != now.cwd:
        yield f"the working directory {state.cwd}", lambda: os.chdir(state.cwd)
    if state.umask != now.umask:
        yield "the umask", lambda: os.umask(state.umask)
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
