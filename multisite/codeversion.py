"""Which version of a site's code is on disk, told from the times of its files: none of them is read.

It changes with the site's own file, with its sources two folders deep, with what asks for a reload, and with what is
installed in our interpreter.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES

from multisite.model import Home, Site
from multisite.sitedir import changes_time

MOST = 4000  # files that are looked at
SUFFIXES = (".py", ".wsgi", ".ini", *EXTENSION_SUFFIXES)


def version_of(site: Site, home: Home) -> str:
    """Return a text that is another one when `site` may be another one."""
    digest = hashlib.sha256(f"{sys.version} {sys.prefix} {os.path.realpath(site.location)}".encode(errors="replace"))
    restart = os.path.join(site.location, "tmp", "restart.txt")
    for path in (site.file, restart, *site.touch_reload, *_libraries()):
        digest.update(f"{path} {_time(path)}\n".encode(errors="replace"))
    digest.update(str(changes_time(home, site.name, site.file)).encode())
    for line in sorted(_first(_sources(site.location))) if site.location else ():
        digest.update(line.encode(errors="replace"))
    return digest.hexdigest()[:16]


def _time(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1


def _libraries() -> Iterable[str]:
    return (path for path in sys.path if path.endswith(("site-packages", "dist-packages")))


def _first(lines: Iterator[str]) -> Iterator[str]:
    return (line for _, line in zip(range(MOST), lines, strict=False))


def _sources(folder: str, deeper: int = 2) -> Iterator[str]:
    """Describe the sources in `folder` and in the packages below it."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda item: item.name)
    except OSError:
        return
    for item in entries:
        try:
            if item.name.endswith(SUFFIXES):
                status = item.stat()
                yield f"{item.path} {status.st_mtime_ns} {status.st_size}\n"
            elif deeper and item.name.replace("-", "_").isidentifier() and item.name != "__pycache__" and item.is_dir():
                yield from _sources(item.path, deeper - 1)
        except OSError:
            continue
