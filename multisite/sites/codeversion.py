"""Which version of a site's code is on disk, told from what its files are (`sites.watched`): none of them is read.

It changes with the site's own file, with its sources two folders deep, with what asks for a reload, and with what is
installed in our interpreter.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES

from multisite.config.model import Home, Site
from multisite.sites.tree import Look
from multisite.sites.watched import files, identity

MOST = 4000  # files that are looked at
SUFFIXES = (".py", ".wsgi", ".ini", *EXTENSION_SUFFIXES)


def version_of(site: Site, home: Home) -> str:
    """Return a text that is another one when `site` may be another one."""
    digest = hashlib.sha256(f"{sys.version} {sys.prefix} {os.path.realpath(site.location)}".encode(errors="replace"))
    asked = files(site, home)
    found = [*asked.items(), *((path, identity(path)) for path in (site.file, *_libraries()))]
    for path, known in found:
        digest.update(f"{path} {known}\n".encode(errors="replace"))
    for line in sorted(_first(_sources(site.location))) if site.location else ():
        digest.update(line.encode(errors="replace"))
    return digest.hexdigest()[:16]


def _libraries() -> Iterable[str]:
    return (path for path in sys.path if path.endswith(("site-packages", "dist-packages")))


def _first(lines: Iterator[str]) -> Iterator[str]:
    return (line for _, line in zip(range(MOST), lines, strict=False))


def _sources(folder: str) -> Iterator[str]:
    """Describe the sources in `folder` and in the packages below it."""
    return _below(folder, Look(folder), 2)


def _below(folder: str, look: Look, deeper: int) -> Iterator[str]:
    packages = []
    for item in look.at(folder):
        try:
            if item.name.endswith(SUFFIXES):
                status = item.stat()
                yield f"{item.path} {status.st_mtime_ns} {status.st_size} {status.st_ino}\n"
            elif deeper and item.name.replace("-", "_").isidentifier() and item.name != "__pycache__":
                if item.is_symlink():  # which may lead to another one that has files like these
                    yield f"{item.path} {os.path.realpath(item.path)}\n"
                if look.may_enter(item):
                    packages.append(item.path)
        except OSError:
            continue
    for path in packages:
        yield from _below(path, look, deeper - 1)
