"""The examination of a site: what its import, and its first requests, change in the process around it.

The process that examines a site serves it as well, so a visitor waits for a few readings, not for a second import. The
findings go to the supervisor, which decides by them whether the site may share an interpreter with others.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import logging  # noqa: F401  now, since its import is no doing of the site's
import os
import signal
import socket
import sys
import threading
import time
import weakref  # noqa: F401  likewise
from types import BuiltinFunctionType, FunctionType

from . import purity, state
from .audit import HARMLESS, AuditTrail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .report import Notifier

MOST = 12  # findings that are reported
LONGEST = 200  # characters of one
IMPORTED, SERVED = "when it was imported", "when it answered requests"
_MADE_BY_NAME = ("namedtuple_", "<unknown>")  # named tuples, and what enum makes of one: ssl.Purpose of Python 3.10
_STANDARD: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset())  # Python 3.10
_CODE = (FunctionType, BuiltinFunctionType, type)
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Reading:
    """The state of the process at one moment."""

    def __init__(self) -> None:
        self.state = state.ProcessState()
        self.tasks = len(os.listdir("/proc/self/task"))
        self.running = len(sys._current_frames())
        self.threads = {thread.name for thread in threading.enumerate()}
        self.children = purity.children()
        self.sockets = {name for name in purity.descriptors() if "socket:" in name}
        self.root_logger = purity.root_logger()
        self.timers = [signal.getitimer(which)[0] > 0 for which in (signal.ITIMER_REAL, signal.ITIMER_PROF)]
        self.hooks = (sys.excepthook, sys.displayhook, threading.excepthook)
        self.streams = (sys.stdin, sys.stdout, sys.stderr)
        self.finders = [*sys.meta_path, *sys.path_hooks]
        self.zone = (time.tzname, time.timezone)
        self.timeout = socket.getdefaulttimeout()
        self.collector = (gc.isenabled(), gc.get_threshold())


def differences(before: Reading, after: Reading, serving: bool = False, threads: int = 0) -> Iterator[str]:
    """Return what differs in `after`, each as half a sentence: "changed the umask (0022 → 0077)".

    Args:
        before: the first reading.
        after: the later reading.
        serving: requests have been answered in between; the watchdog may have an alarm, which is a task.
        threads: how many threads of ours have been started since.
    """
    yield from ("changed " + phrase for phrase in state.differences(before.state, after.state) if _harms(phrase))
    new = [one for one in after.state.filters if one not in before.state.filters]
    # Those for a package's own warnings concern nobody else.
    if any(getattr(one[2], "__module__", "") == "builtins" for one in new):
        yield "changed the warnings filters"
    if after.running > before.running + threads or (not serving and after.tasks > before.tasks):
        named = ", ".join(sorted(map(repr, after.threads - before.threads)))
        yield "started a thread" + (f" ({named})" if named else "")
    if after.children != before.children:
        yield "started a process"
    if after.sockets - before.sockets and not serving:
        yield "opened a socket and kept it"
    if after.root_logger != before.root_logger:
        yield "set up the root logger"
    if after.timers != before.timers:
        yield "set a timer"
    yield from _replaced(before, after)


def _found(before: Reading, serving: bool = False, threads: int = 0) -> list[str]:
    """Return the differences to now; a site can break what we need to find them."""
    try:
        return list(differences(before, Reading(), serving, threads))
    except Exception as error:
        return [f"made its process unreadable ({type(error).__name__})"]


def _harms(phrase: str) -> bool:
    """Return whether neighbours would notice, or the site would notice the reset; new import folders do no harm."""
    if phrase.startswith("sys.path (+"):
        return ", -" in phrase
    named = phrase.partition("['")[2].partition("']")[0]
    return phrase != "the warnings filters" and not (phrase.startswith("os.environ[") and named in HARMLESS)


def _replaced(before: Reading, after: Reading) -> Iterator[str]:
    if after.hooks != before.hooks:
        yield "replaced a hook for errors"
    if after.streams != before.streams:
        yield "replaced sys.stdin, sys.stdout or sys.stderr"
    new = [one for one in after.finders if all(one is not old for old in before.finders)]
    for finder in new:
        kind = finder if isinstance(finder, (type, FunctionType)) else type(finder)
        if kind.__name__ != "_SixMetaPathImporter":  # finds the modules of six, and nothing else
            yield f"put {kind.__name__} into the import system"
    if after.zone != before.zone:
        yield "changed the time zone of the process"
    if after.timeout != before.timeout:
        yield "set the default timeout of sockets"
    if after.collector != before.collector:
        yield "changed how the garbage collector works"


def patches() -> set[str]:
    """Return the names in the standard library, and methods of its classes, that lead to code from elsewhere."""
    return {name for module in list(sys.modules) if _is_standard(module) for name in _patched(module)}


_before: set[str] | None = None


def prepare() -> None:
    """Look for patches now, in a process that will be forked: otherwise each site would wait for it."""
    global _before
    _before = patches()


def _is_standard(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in _STANDARD and module != "builtins"


def _patched(name: str) -> Iterator[str]:
    for attribute, value in list(vars(sys.modules[name]).items()):
        if isinstance(value, _CODE):
            if value.__module__ == name:
                if isinstance(value, type):
                    inside = list(vars(value).items())
                    yield from (f"{name}.{attribute}.{each}" for each, code in inside if _is_method(name, code))
            elif _is_foreign(value):
                yield f"{name}.{attribute}"


def _is_method(name: str, value: object) -> bool:
    return type(value) is FunctionType and value.__module__ != name and _is_foreign(value)


def _is_foreign(value: Any) -> bool:
    module = value.__module__
    if not isinstance(module, str) or module.startswith(_MADE_BY_NAME):
        return False
    return module.partition(".")[0] not in _STANDARD


class _Exits:
    """Notes who registers exit handlers, until `end`."""

    def __init__(self, location: str) -> None:
        self.found = False
        self._location = os.path.join(os.path.realpath(location), "") if location else "\0"
        self._register = atexit.register
        atexit.register = self._note  # type: ignore[assignment]

    def _note(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        code = getattr(func, "__code__", None)
        self.found |= code is not None and os.path.realpath(code.co_filename).startswith(self._location)
        return self._register(func, *args, **kwargs)

    def end(self) -> None:
        if atexit.register == self._note:  # type: ignore[comparison-overlap]
            atexit.register = self._register


class Examination:
    """Of the site in this process; begun before its import."""

    def __init__(self, location: str) -> None:
        self._builtins = dict(vars(builtins))
        self._patches = patches() if _before is None else _before
        self._exits = _Exits(location)
        self._before = Reading()
        self._trail = AuditTrail()
        self._is_untried = True
        self._failed_elsewhere = ""
        self._memory = _resident()
        self._began = time.perf_counter()
        self._seconds = 0.0
        self._imported: list[str] = []
        self._serving: Reading | None = None
        self._threads = 0
        self._running = 0

    def loaded(self, is_async: bool) -> None:
        """Note that the import is complete."""
        self._seconds = time.perf_counter() - self._began
        self._exits.end()
        self._imported = _found(self._before)
        self._running = len(sys._current_frames())
        if self._exits.found:
            self._imported.append("registered a function to be called at the exit")
        if is_async:
            self._imported.insert(0, "turned out to be an ASGI application")

    def serves(self, threads: int) -> None:
        """Note that requests are answered from now on; `threads` of ours start after the import."""
        self._serving, self._threads = Reading(), threads
        self._serving.running = self._running
        self._trail.serves()

    def tried(self, elsewhere: int, failed: str) -> None:
        """Note how many requests a thread other than the importing one has answered, and how that failed."""
        self._is_untried, self._failed_elsewhere = not elsewhere, failed

    def end(self) -> None:
        """Stop looking."""
        self._trail.end()

    def tell(self, notifier: Notifier, asked: int) -> None:
        """Report what has been found after this many requests.

        This takes a few milliseconds, for which no visitor should wait.
        """
        served = _found(self._serving, True, self._threads) if self._serving else []
        served += self._trail.besides([*served, *self._imported])
        if self._failed_elsewhere:
            served.append(self._failed_elsewhere)
        found = [f"{_short(what)} {IMPORTED}" for what in self._imported]
        found += [f"{_short(what)} {SERVED}" for what in served]
        found += [f"patched the standard library: {name}" for name in self._patched()]
        memory = max(0, _resident() - self._memory)
        told = [what[:LONGEST] for what in found[:MOST]]
        paths = [f"uses the relative path {path}"[:LONGEST] for path in self._trail.paths]
        notifier.facts(
            {
                "findings": told,
                "notes": paths,
                "seconds": round(self._seconds, 4),
                "memory": memory,
                "requests": asked,
                "is_untried": self._is_untried,
            }
        )

    def _patched(self) -> list[str]:
        now = vars(builtins)
        ours = [name for name, value in self._builtins.items() if now.get(name) is not value and name != "_"]
        new = [name for name in now if name not in self._builtins and name != "_"]
        return sorted({*(patches() - self._patches), *(f"builtins.{name}" for name in (*ours, *new))})


def _short(what: str) -> str:
    most = LONGEST - len(f"… {SERVED}")
    return what if len(what) <= most else what[:most] + "…"


def _resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE
