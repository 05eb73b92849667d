"""Warns about a site that opens files by relative paths where it cannot have its own working directory.

In a worker whose threads share one, such a path leads to a file in the server's directory. Only there sites are
watched, by an audit hook (PEP 578); it can never be removed, so there is only one. The warnings are kept for the
commands.
"""

from __future__ import annotations

import sys
from typing import Any

from multisite.config.model import Home, Site
from multisite.errors import Problem
from multisite.logs import servicelog
from multisite.runner.audit import PATHS, relative_path
from multisite.sites.statefile import StateFile

LONGEST = 200  # characters of a path in a warning

_watched: dict[str, tuple[Site, Home, str]] = {}  # by name of the site, with the reason why it has no working directory
_is_hooked = False


def watch(site: Site, home: Home, why: str) -> None:
    """Warn once when `site` uses a relative path."""
    global _is_hooked
    _watched[site.name] = (site, home, why)
    if not _is_hooked:
        _is_hooked = True
        sys.addaudithook(_hook)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    # At the interpreter's end, names with an underscore become None before the others do, and files are opened still.
    if _watched and event in PATHS:
        site = servicelog.current_site.get()
        path = relative_path(event, args) if site in _watched else ""
        if path:
            _tell(site, path[:LONGEST])


def _tell(name: str, path: str) -> None:
    site, home, why = _watched.pop(name)
    said = (
        f"it uses the relative path {path}, which does not start at location = {site.location} in the workers: {why}; "
        "write an absolute path, or mode = spawned"
    )
    servicelog.site_logger(name).warning("MS234 %s", said)
    _keep(home, name, said)


def _keep(home: Home, name: str, said: str) -> None:
    """Keep the warning about a site; "" for none."""
    file = StateFile(home, "relative")
    with file.locked():
        rest = {site: text for site, text in noted(home).items() if site != name}
        file.store({**rest, name: said} if said else rest)


def noted(home: Home) -> dict[str, str]:
    """Return the warnings, by site."""
    return {site: str(text) for site, text in StateFile(home, "relative").rows().items()}


def problems(site: Site, home: Home, known: dict[str, str] | None = None) -> tuple[Problem, ...]:
    """Return the warning about `site` as a problem; `known` is what `noted` returns, where that is known."""
    said = (noted(home) if known is None else known).get(site.name)
    return (Problem("MS234", site.file, said, "service", "location", severity="warning"),) if said else ()


def clear(site: Site, home: Home) -> None:
    """Note that `site` has its own working directory."""
    if site.name in noted(home):
        _keep(home, site.name, "")
