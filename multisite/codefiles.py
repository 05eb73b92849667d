"""A site's own code on disk: what changes when any of it does.

For development. Looked at when a request comes; nothing watches in between.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from multisite.model import Site

Times = tuple[tuple[str, int], ...]

CODE = (".py", ".wsgi")
TEMPLATES = ("templates", "template", "views")  # folders whose files are code, whatever they are called
MOST_FILES = 5000  # of one site; what is beyond is not looked at
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env", "virtualenv", "htmlcov"})


def times(site: Site) -> Times:
    """Return each file of the code of `site` with when it was last changed (Unix nanoseconds)."""
    named = [os.path.join(site.location, name) for name in (*site.ini, _file_of(site.application)) if name]
    return tuple(_timed([*named, *(_walk(site.location) if site.location else ())]))


def _file_of(application: str) -> str:
    """Return the file that `application` names: ``app.wsgi``, or ``production.ini`` of ``paste:production.ini#x``."""
    target = application.removeprefix("paste:").partition("#")[0].partition(":")[0]
    return target if "/" in target or target.endswith((*CODE, ".ini")) else ""


def _timed(paths: list[str]) -> Iterator[tuple[str, int]]:
    for path in paths:
        try:
            yield path, os.stat(path).st_mtime_ns
        except OSError:
            yield path, -1


def _walk(folder: str) -> Iterator[str]:
    left = MOST_FILES
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if _is_ours(place, name))
        inside = {*os.path.relpath(place, folder).split(os.sep)}
        for name in sorted(files):
            if name.endswith(CODE) or (inside & {*TEMPLATES} and not name.endswith("~")):
                yield os.path.join(place, name)
                left -= 1
                if not left:
                    return


def _is_ours(place: str, name: str) -> bool:
    """Tell whether a folder holds code of the site rather than what was installed."""
    hidden = name.startswith(".") or name in _SKIPPED
    return not hidden and not os.path.exists(os.path.join(place, name, "pyvenv.cfg"))
