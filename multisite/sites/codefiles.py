"""A site's own code on disk: what changes when any of it does.

For development. Looked at when a request comes; nothing watches in between.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from multisite.config.model import Site
from multisite.sites.tree import Look

Times = tuple[tuple[str, tuple[int, ...]], ...]

CODE = (".py", ".wsgi")
TEMPLATES = ("templates", "template", "views")  # folders whose files are code, whatever they are called
MOST_FILES = 5000  # of one site; what is beyond is not looked at
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env", "virtualenv", "htmlcov"})


def times(site: Site) -> Times:
    """Return each file of the code of `site` with what tells it from another: Unix nanoseconds, bytes, inode."""
    named = [os.path.join(site.location, name) for name in (*site.ini, _file_of(site.application)) if name]
    return tuple(_timed([*named, *(_walk(site.location) if site.location else ())]))


def _file_of(application: str) -> str:
    """Return the file that `application` names: ``app.wsgi``, or ``production.ini`` of ``paste:production.ini#x``."""
    target = application.removeprefix("paste:").partition("#")[0].partition(":")[0]
    return target if "/" in target or target.endswith((*CODE, ".ini")) else ""


def _timed(paths: list[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for path in paths:
        try:
            status = os.stat(path)
            yield path, (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            yield path, ()


def _walk(folder: str) -> Iterator[str]:
    files = _below(folder, Look(folder), is_template=False)
    return (path for _, path in zip(range(MOST_FILES), files, strict=False))


def _below(folder: str, look: Look, is_template: bool) -> Iterator[str]:
    folders = []
    for item in look.at(folder):
        try:
            if item.is_dir():
                if not item.is_symlink() and _is_ours(item) and look.may_enter(item):
                    folders.append(item)
            elif item.name.endswith(CODE) or (is_template and not item.name.endswith("~")):
                yield item.path
        except OSError:
            continue
    for item in folders:
        yield from _below(item.path, look, is_template or item.name in TEMPLATES)


def _is_ours(item: os.DirEntry[str]) -> bool:
    """Tell whether a folder holds code of the site rather than what was installed."""
    hidden = item.name.startswith(".") or item.name in _SKIPPED
    return not hidden and not os.path.exists(os.path.join(item.path, "pyvenv.cfg"))
