"""Tells a site that it opens files by relative paths where it cannot have a working directory of its own.

In a worker whose threads have one in common, such a path means a file in the server's directory. Only there is anybody
watched, by an audit hook (PEP 578); it can never be removed, so there is one.
"""

from __future__ import annotations

import sys
from typing import Any

from multisite import logs
from multisite.runner.relative import PATHS, relative_path

_watched: dict[str, tuple[str, str]] = {}  # site → its location, and why it has no place of its own
_is_hooked = False


def watch(site: str, location: str, why: str) -> None:
    """Have `site` told, once, when it uses a relative path."""
    global _is_hooked
    _watched[site] = (location, why)
    if not _is_hooked:
        _is_hooked = True
        sys.addaudithook(_hook)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event in PATHS and _watched:
        site = logs.current_site.get()
        path = relative_path(event, args) if site in _watched else ""
        if path:
            _tell(site, path)


def _tell(site: str, path: str) -> None:
    location, why = _watched.pop(site)
    logs.site_logger(site).warning(
        "it uses the relative path %s, which does not start at its location %s here: %s; write an absolute path, or "
        "mode = spawned",
        path[:200],
        location,
        why,
    )
