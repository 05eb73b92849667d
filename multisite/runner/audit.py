"""What a site does that needs its own process, and that no comparison of before and after can show.

A signal handler that is restored before the answer, a thread that ends with the request, a program that is run: audit
events report each as it happens (PEP 578), and functions that raise no event (`signal.signal`, `os.umask`) are
wrapped. What our own code does is left out: the nearest frame outside the standard library shows whose code it is.

An audit hook can never be removed. After `end` it is one comparison for each event, and our own part of a request
raises one event.
"""

from __future__ import annotations

import _thread
import functools
import os
import signal
import sys
import threading
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType
    from typing import Any


MOST = 12  # of each kind that are kept
# An interpreter holds one Django project at most, and the time zone itself is compared.
HARMLESS = frozenset({"DJANGO_SETTINGS_MODULE", "TZ"})
OURS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
STANDARD = os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "")
INSTALLED = (os.path.join(STANDARD, "site-packages", ""), os.path.join(STANDARD, "dist-packages", ""))
WRAPPED: tuple[tuple[ModuleType, str], ...] = (
    (signal, "signal"),
    (signal, "alarm"),
    (signal, "setitimer"),
    (signal, "siginterrupt"),
    (signal, "set_wakeup_fd"),
    (signal, "pthread_sigmask"),
    (os, "umask"),
)
if sys.version_info < (3, 12):  # which has audit events for it
    WRAPPED += ((threading, "_start_new_thread"), (_thread, "start_new_thread"))

# what a comparison says that finds what these have left
_SAME = {
    "os.umask": "the umask",
    "signal.signal": "the handler of",
    "signal.alarm": "a timer",
    "signal.setitimer": "a timer",
}

_note: Callable[[str, tuple[Any, ...]], None] | None = None
_is_hooked = False

# how many of an event's first arguments are paths
PATHS = {
    "open": 1,
    "os.chdir": 1,
    "os.chmod": 1,
    "os.chown": 1,
    "os.link": 2,
    "os.listdir": 1,
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rename": 2,
    "os.rmdir": 1,
    "os.scandir": 1,
    "os.truncate": 1,
    "os.utime": 1,
    "sqlite3.connect": 1,
}
_LISTS = ("os.listdir", "os.scandir")  # which are about the working directory where they are told nothing
_LAST_IS_DESCRIPTOR = ("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.utime")


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _note is not None and event in _EVENTS:
        _note(event, args)


class AuditTrail:
    """What the site does in this process, from now until `end`; one trail at a time.

    Attributes:
        paths: relative ones that it has opened.
    """

    def __init__(self) -> None:
        self.paths: dict[str, None] = {}
        self._found: dict[str, str] = {}  # what → about what
        self._is_serving = False
        self._functions = [(module, name, getattr(module, name)) for module, name in WRAPPED]
        for module, name, function in self._functions:
            setattr(module, name, self._wrapped(f"{module.__name__}.{name}", function))
        _listen(self._event)

    def serves(self) -> None:
        """From now on requests are answered; what the import did is compared with the state before it."""
        self._is_serving = True

    def end(self) -> None:
        """Note nothing more."""
        _listen(None)
        self._is_serving = False
        for module, name, function in self._functions:
            if getattr(getattr(module, name), "__wrapped__", None) is function:
                setattr(module, name, function)

    def besides(self, told: Iterable[str]) -> list[str]:
        """Return what has been done, as half sentences, without what is about the same thing as a known finding."""
        told = list(told)
        return [what for what, subject in self._found.items() if not any(subject in each for each in told)]

    def _event(self, event: str, args: tuple[Any, ...]) -> None:
        path = relative_path(event, args)
        if path and len(self.paths) < MOST and path not in self.paths and _is_the_sites():
            self.paths[path] = None
        what = _ACTS.get(event)
        if self._is_serving and what:
            self._add(*(what(args) if callable(what) else what))

    def _add(self, what: str, subject: str) -> None:
        if what and what not in self._found and len(self._found) < MOST and _is_the_sites():
            self._found[what] = subject

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        what = _THREAD if name.endswith("new_thread") else (f"called {name}()", _SAME.get(name, name))

        @functools.wraps(function)
        def wrapper(*args: Any, **named: Any) -> Any:
            if self._is_serving:
                self._add(*what)
            return function(*args, **named)

        return wrapper


def _listen(note: Callable[[str, tuple[Any, ...]], None] | None) -> None:
    global _note, _is_hooked
    _note = note
    if not _is_hooked:
        _is_hooked = True
        sys.addaudithook(_hook)


def _is_the_sites() -> bool:
    """Tell whether the site, or a library that it uses, did this, rather than our code."""
    frame: FrameType | None = sys._getframe(1)
    while frame:
        path = frame.f_code.co_filename
        if path != __file__ and not _is_standard(path):
            return not path.startswith(OURS)
        frame = frame.f_back
    return False


def _is_standard(path: str) -> bool:
    return path.startswith(("<frozen", STANDARD)) and not path.startswith((*INSTALLED, OURS))


def _variable(args: tuple[Any, ...]) -> tuple[str, str]:
    name = f"os.environ[{os.fsdecode(args[0])!r}]"
    return ("", "") if os.fsdecode(args[0]) in HARMLESS else (f"wrote {name}", name)


def _program(args: tuple[Any, ...]) -> tuple[str, str]:
    return f"ran a program ({os.path.basename(os.fsdecode(args[0]))})", "started a process"


_THREAD = ("started a thread",) * 2
_PROCESS = ("started a process",) * 2
_DIRECTORY = ("changed the working directory", "the working directory")
_ACTS: dict[str, tuple[str, str] | Callable[[tuple[Any, ...]], tuple[str, str]]] = {
    "_thread.start_joinable_thread": _THREAD,  # Python 3.13
    "_thread.start_new_thread": _THREAD,
    "os.chdir": _DIRECTORY,
    "os.exec": _PROCESS,
    "os.fork": _PROCESS,
    "os.forkpty": _PROCESS,
    "os.posix_spawn": _PROCESS,
    "os.putenv": _variable,
    "os.system": _PROCESS,
    "os.unsetenv": _variable,
    "subprocess.Popen": _program,
}
_EVENTS = frozenset({*PATHS, *_ACTS})


def relative_path(event: str, args: tuple[Any, ...]) -> str:
    """The path from the working directory that an audit event is about (PEP 578), "" if it is about none.

    The events of a release are in the library reference, "Audit events table". Functions that only ask whether a file
    exists (`os.stat`, `os.path.exists`) raise none.
    """
    count = PATHS.get(event)
    if not count or (event in _LAST_IS_DESCRIPTOR and args[-1] != -1):
        return ""
    for path in args[:count]:
        found = _relative(path, event)
        if found:
            return found
    return ""


def _relative(path: Any, event: str) -> str:
    if path is None:
        return "." if event in _LISTS else ""
    if not isinstance(path, (str, bytes)):
        return ""
    text = os.fsdecode(path)
    if event == "sqlite3.connect":
        text = _database(text)
    return "" if text.startswith("/") else text


def _database(name: str) -> str:
    """The path of a database (sqlite.org/uri.html), "" for one in memory."""
    if name.startswith("file:"):
        path, _, query = name[5:].partition("?")
        return "" if "mode=memory" in query or path == ":memory:" else path
    return "" if name == ":memory:" else name
