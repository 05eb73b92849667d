"""Which audit events are about a path that starts at the working directory (PEP 578).

The events of a release are in the library reference, "Audit events table". What only asks whether a file is there
(`os.stat`, `os.path.exists`) raises none.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# the first arguments that are paths
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


def relative_path(event: str, args: tuple[Any, ...]) -> str:
    """The relative path that an event is about, "" if it is about none."""
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
