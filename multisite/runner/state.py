"""What a whole process shares and an import may change: read it, and compare two readings.

The workers read it around the import of a site that shares their interpreter, and the runner around that of a site
which is examined. Reading is cheap (some 0.2 ms) and changes nothing.
"""

from __future__ import annotations

import locale
import os
import signal
import sys
import threading
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any


class ProcessState:
    """One reading. Lists and mappings come with the object itself, as a site may bind another one.

    Attributes:
        handlers: of signals; empty outside the main thread, which alone can set them (library reference, "signal:
            Signals and threads").
    """

    def __init__(self) -> None:
        self.cwd = _read_cwd()
        self.umask = _read_umask()
        self.environ: Mapping[str, str] = dict(os.environ)
        self.path = tuple(sys.path)
        self.locale = locale.setlocale(locale.LC_ALL)
        self.filters: tuple[Any, ...] = tuple(warnings.filters)
        self.recursion_limit = sys.getrecursionlimit()
        in_main = threading.current_thread() is threading.main_thread()
        self.handlers: Mapping[int, Any] = (
            {number: signal.getsignal(number) for number in signal.valid_signals()} if in_main else {}
        )
        self.environ_object: Any = os.environ
        self.path_object = sys.path


def _read_cwd() -> str:
    """The working directory; "" if it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _read_umask() -> int:
    """Of this thread, from /proc (Linux 4.7): the system call can only read by writing, which others could see."""
    try:
        with open("/proc/thread-self/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def differences(before: ProcessState, after: ProcessState) -> Iterator[str]:
    """Return a phrase for each difference in `after`."""
    if before.cwd != after.cwd:
        yield f"the working directory ({before.cwd} → {after.cwd})"
    if before.umask != after.umask:
        yield f"the umask ({before.umask:04o} → {after.umask:04o})"
    for name, how in changed_variables(before, after):
        yield f"os.environ[{name!r}] ({how})"
    if before.environ_object is not after.environ_object:
        yield "os.environ (replaced)"
    yield from _path_differences(before, after)
    if before.locale != after.locale:
        yield f"the locale ({before.locale} → {after.locale})"
    if before.filters != after.filters:
        yield "the warnings filters"
    if before.recursion_limit != after.recursion_limit:
        yield f"the recursion limit ({before.recursion_limit} → {after.recursion_limit})"
    for number in changed_handlers(before, after):
        yield f"the handler of {signal.Signals(number).name if number in set(signal.Signals) else number}"


def changed_variables(before: ProcessState, after: ProcessState) -> Iterator[tuple[str, str]]:
    """Return the names of changed environment variables and what happened to them; a value may be a secret."""
    for name in sorted(before.environ.keys() | after.environ.keys()):
        if name not in before.environ:
            yield name, "set"
        elif name not in after.environ:
            yield name, "removed"
        elif before.environ[name] != after.environ[name]:
            yield name, "changed"


def added_paths(before: ProcessState, after: ProcessState) -> tuple[str, ...]:
    """Return the entries of `sys.path` that `before` does not have, in their order."""
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
    """Return signals with a changed handler; none if one of the readings is from a thread other than the main one."""
    both = before.handlers.keys() & after.handlers.keys()
    return sorted(number for number in both if before.handlers[number] != after.handlers[number])
