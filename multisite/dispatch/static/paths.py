"""From the path of a URL to names in a folder (pure)."""

from __future__ import annotations

import os
from collections.abc import Mapping

LONGEST = 4096  # bytes of a path; PATH_MAX of Linux, and no file system has longer ones
WELL_KNOWN = b".well-known"  # RFC 8615: certificates are issued by what lies there


def names(path: str, hidden: bool = False) -> list[bytes] | None:
    """Split a path, as PATH_INFO has it, into names; None where no file can be meant.

    What an empty name, ``.`` and ``..`` would do is not for a URL to say, and names that start with a dot are not
    served unless `hidden` is set. One slash at either end is left out.
    """
    try:
        data = path.encode("latin-1")  # PEP 3333: bytes, each as one character
    except UnicodeEncodeError:
        return None
    if b"\0" in data or len(data) > LONGEST:
        return None
    data = data[data[:1] == b"/" :]
    if not data:
        return []
    parts = data.split(b"/")
    if not parts[-1]:
        parts.pop()
    for number, part in enumerate(parts):
        if part in (b"", b".", b".."):
            return None
        if part[0] == 46 and not hidden and (number or part != WELL_KNOWN):
            return None
    return parts


class Prefixes:
    """The prefixes of ``[static]``, found by the first name of a path."""

    def __init__(self, prefixes: Mapping[str, tuple[str, ...]]) -> None:
        merged: dict[str, tuple[bytes, ...]] = {}
        for prefix, places in prefixes.items():
            plain = prefix.rstrip("/").encode().decode("latin-1")
            merged[plain] = merged.get(plain, ()) + tuple(map(os.fsencode, places))
        self._by_first: dict[str, list[tuple[str, tuple[bytes, ...]]]] = {}
        for prefix in sorted(merged, key=len, reverse=True):
            self._by_first.setdefault(first(prefix), []).append((prefix, merged[prefix]))
        root = self._by_first.pop("", None)
        self._root = root[0] if root else None

    def find(self, path: str) -> tuple[str, tuple[bytes, ...]] | None:
        """Return the longest prefix that `path` is at or below, and its folders and files."""
        for entry in self._by_first.get(first(path), ()):
            prefix = entry[0]
            if path == prefix or path.startswith(prefix + "/"):
                return entry
        return self._root


def first(path: str) -> str:
    """Return the first name of a path that begins with a slash."""
    return path[1:].partition("/")[0]
