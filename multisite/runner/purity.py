"""What the import of a module may not do to a process from which others are forked.

Threads do not survive a fork; descriptors, handlers, folders and variables would be those of every site. A module
whose import leaves any of these behind has to be imported by each site for itself.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from typing import Any

NUMBERS = tuple(range(1, signal.NSIG))
DJANGO = b"DJANGO_SETTINGS_MODULE"


def facts() -> dict[str, Any]:
    """The state of this process that the import of a module leaves as it is."""
    return {
        "starts threads": len(os.listdir("/proc/self/task")),
        "starts processes": children(),
        "opens descriptors": descriptors(),
        "changes the working directory": os.getcwd(),
        "changes environment variables": _environ(),
        "handles signals": [signal.getsignal(number) for number in NUMBERS],
        "sets a timer": signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        "sets up logging": root_logger(),
        "changes the import path": list(sys.path),
        "replaces the hooks of the interpreter": (sys.excepthook, sys.displayhook, sys.stdin, sys.stdout, sys.stderr),
        "patches the standard library": (socket.socket, time.sleep, os.fork, open),
        "configures Django": _is_django_configured(),
    }


def broken(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The first difference as half a sentence, "" where there is none."""
    return next((what for what, value in after.items() if before[what] != value), "")


def descriptors() -> list[str]:
    """Whatever each descriptor is; the one of the listing itself is gone when it is looked at."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(name + os.readlink("/proc/self/fd/" + name))
        except OSError:
            pass
    return found


def _environ() -> dict[bytes, bytes]:
    return dict(dict.items(os.environ._data))  # type: ignore[attr-defined]  # past whoever watches its readers


def children() -> str:
    """The processes that the main thread has started and that live."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return file.read()
    except OSError:
        return ""


def root_logger() -> Any:
    """Handlers and levels of logging's root; None as long as nobody has imported it."""
    root = getattr(sys.modules.get("logging"), "root", None)
    return root and (list(root.handlers), root.level, root.manager.disable)


def _is_django_configured() -> bool:
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    return bool(settings is not None and settings.configured)


class Reads(dict):  # type: ignore[type-arg]
    """The inside of `os.environ`, which notes who asks for what.

    Attributes:
        names: of the variables that somebody has asked for.
        askers: modules whose import has asked for something that is each site's own, and what that is.
    """

    def __init__(self, inside: dict[bytes, bytes]) -> None:
        super().__init__(inside)
        self.names: set[str] = set()
        self.askers: dict[str, str] = {}

    def __getitem__(self, name: bytes) -> bytes:
        if name == DJANGO:
            self._note("asks for Django's settings")
        else:
            self.names.add(os.fsdecode(name))
        return super().__getitem__(name)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[bytes]:
        self._note("asks for all environment variables")
        return super().__iter__()

    def _note(self, what: str) -> None:
        for name, module in list(sys.modules.items()):
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                self.askers.setdefault(name, what)

    def tainted(self) -> dict[str, str]:
        """Those askers that have been imported all the same, whatever they made of the answer."""
        askers, self.askers = self.askers, {}
        return {name: what for name, what in askers.items() if name in sys.modules}


def watched(environ: MutableMapping[str, str]) -> Reads:
    """Have the readers of `environ`, which is `os.environ`, noted until `unwatched`."""
    reads = Reads(environ._data)  # type: ignore[attr-defined]
    environ._data = reads  # type: ignore[attr-defined]
    return reads


def unwatched(environ: MutableMapping[str, str]) -> None:
    """Leave `environ` as Python made it."""
    environ._data = dict(dict.items(environ._data))  # type: ignore[attr-defined]
