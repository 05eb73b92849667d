"""What the import of a module must not do to a process from which others are forked, and who could have written it.

Threads do not survive a fork; every site would share descriptors, handlers, folders and variables. If the import of a
module leaves any of these behind, each site has to import it for itself.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, MutableMapping
    from typing import Any

NUMBERS = tuple(range(1, signal.NSIG))
DJANGO = b"DJANGO_SETTINGS_MODULE"
CUSTOM = ("sitecustomize", "usercustomize")
LARGEST = 65536  # bytes of a file that are looked at
ROOTS = ("site-packages", "dist-packages")  # what is imported from these, is where they are on the path themselves
_NAMES = re.compile(r"""["']([A-Z][A-Z0-9_]*)["']""")


def facts() -> dict[str, Any]:
    """Return the state of this process that the import of a module must not change."""
    django = sys.modules.get("django.conf")
    return {
        "starts threads": len(os.listdir("/proc/self/task")),
        "starts processes": children(),
        "opens descriptors": descriptors(),
        "changes the working directory": os.getcwd(),
        # without the code that watches its readers
        "changes environment variables": dict(dict.items(os.environ._data)),  # type: ignore[attr-defined]
        "handles signals": [signal.getsignal(number) for number in NUMBERS],
        "sets a timer": signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        "sets up logging": root_logger(),
        "changes the import path": list(sys.path),
        "replaces the hooks of the interpreter": (sys.excepthook, sys.displayhook, sys.stdin, sys.stdout, sys.stderr),
        "patches the standard library": (socket.socket, time.sleep, os.fork, open),
        "configures Django": bool(getattr(getattr(django, "settings", None), "configured", False)),
    }


def broken(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return the first difference as half a sentence, "" if there is none."""
    return next((what for what, value in after.items() if before[what] != value), "")


def descriptors() -> list[str]:
    """Return what each descriptor is; that of the listing itself is already closed."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(name + os.readlink("/proc/self/fd/" + name))
        except OSError:
            pass
    return found


def children() -> str:
    """Return the living processes that the main thread has started."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return file.read()
    except OSError:
        return ""


def root_logger() -> Any:
    """Return handlers and level of the root logger; None until logging is imported."""
    root = getattr(sys.modules.get("logging"), "root", None)
    return root and (list(root.handlers), root.level, root.manager.disable)


class Reads(dict):  # type: ignore[type-arg]
    """The inside of `os.environ`, which notes who reads what.

    Attributes:
        names: of the variables that were read.
        askers: modules whose import has read something that differs between sites, and what that is.
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
        """Return those askers that were imported all the same, whatever they did with the answer."""
        askers, self.askers = self.askers, {}
        return {name: what for name, what in askers.items() if name in sys.modules}


def watched(environ: MutableMapping[str, str]) -> Reads:
    """Note the readers of `environ`, which is `os.environ`, until `unwatched`."""
    reads = Reads(environ._data)  # type: ignore[attr-defined]
    environ._data = reads  # type: ignore[attr-defined]
    return reads


def unwatched(environ: MutableMapping[str, str]) -> None:
    """Restore `environ` to what Python made."""
    environ._data = dict(dict.items(environ._data))  # type: ignore[attr-defined]


def said_at_startup() -> set[str]:
    """Return the names of environment variables that the interpreter's start-up files seem to read.

    These files have run already, unwatched: what looks like such a name in their text is taken for one.
    """
    return {name for text in _texts() for name in _NAMES.findall(text)}


def _texts() -> Iterator[str]:
    """`sitecustomize` and the like, and those lines of path configuration files that are run (`site`)."""
    for name in CUSTOM:
        path = getattr(sys.modules.get(name), "__file__", None)
        if path:
            yield _read(path)
    for folder in sys.path:
        for name in _listed(folder):
            if name.endswith(".pth"):
                lines = _read(os.path.join(folder, name)).splitlines()
                yield "\n".join(line for line in lines if line.startswith(("import ", "import\t")))


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST)
    except OSError:
        return ""


def strangers(folders: Iterable[str]) -> str:
    """Return the first file or folder below `folders` that a user other than root may write, "" if there is none.

    Editable installations are elsewhere; they are included. The packages of the interpreter that made a virtualenv are
    below its standard library, and not on the path: they are not.
    """
    found = list(folders)
    for finder in sys.meta_path:
        if not _home(finder).startswith("__editable__"):  # setuptools writes such a one for an editable package
            continue
        elsewhere = _leads_to(finder)
        if not elsewhere:
            return repr(finder)
        found += elsewhere
    walked: set[str] = set()
    return next(filter(None, (_stranger_in(folder, walked) for folder in found)), "")


def _stranger_in(folder: str, walked: set[str]) -> str:
    """Look at a folder and all below it, through links; `walked` has those that were, for one may be in another."""
    for path in _above(folder):
        if _is_strange(path):
            return path
    waiting = [os.path.realpath(folder)]
    while waiting:
        path = waiting.pop()
        if path in walked:
            continue
        walked.add(path)
        for entry in _entries(path):
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            is_link = stat.S_ISLNK(status.st_mode)
            if any(map(_is_strange, _above(entry.path))) if is_link else _is_writable(status):
                return entry.path
            if entry.name not in ROOTS and entry.is_dir():
                waiting.append(os.path.realpath(entry.path) if is_link else entry.path)
    return ""


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _above(path: str) -> Iterator[str]:
    path = os.path.realpath(path)
    yield path
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        yield path


def _is_strange(path: str) -> bool:
    """Tell whether others may write it; above our folders, one in which all users have their own files is harmless."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return bool(status.st_uid)
    return _is_writable(status)


def _is_writable(status: os.stat_result) -> bool:
    """Tell whether a user other than root may write it, as its owner, with its group, or as anybody."""
    others = stat.S_IWOTH | (stat.S_IWGRP if status.st_gid else 0)
    return bool(status.st_uid or status.st_mode & others)


def _home(finder: object) -> str:
    """Return the name of the module that defines a finder."""
    return finder.__module__ if isinstance(finder, type) else type(finder).__module__


def _leads_to(finder: object) -> list[str]:
    """Return the folders that such a finder imports from, as its module lists them; none if that has another form."""
    module = sys.modules.get(_home(finder))
    packages: dict[str, str] = getattr(module, "MAPPING", {})
    parts: dict[str, list[str]] = getattr(module, "NAMESPACES", {})
    paths = [*packages.values(), *(path for several in parts.values() for path in several)]
    return [path if os.path.isdir(path) else os.path.dirname(path) for path in paths]
