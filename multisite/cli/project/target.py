"""What a site says it serves, looked up without running it.

``application = blog.wsgi:application`` promises a file and a name in it. Importing it would run the
site's code as whoever types the command, so the source text is read instead. Where the text leaves it
open (a star import, a module of another interpreter) nothing is said.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

from multisite.cli.project.source import callable_fault
from multisite.config import hosting
from multisite.errors import Problem
from multisite.sites import sharing

if TYPE_CHECKING:
    from multisite.config.appspec import AppSpec
    from multisite.config.model import Site


def site_problems(site: Site) -> list[Problem]:
    """Return what is wrong with the location and the application of `site`, as far as can be seen."""
    if hosting.is_hosting(site.location):
        return _hosting_problems(site)
    if site.location and not os.path.isdir(site.location):
        reason = "it is not a directory" if os.path.exists(site.location) else "there is no such directory"
        return [_problem(site, "location", site.location, reason, "create it or correct the path")]
    reason = application_fault(site)
    return [_problem(site, "application", site.application, reason, "")] if reason else []


def _hosting_problems(site: Site) -> list[Problem]:
    """Look at the folder that has those of all hosts; theirs are looked at when somebody asks for them."""
    folder = os.path.dirname(site.location.partition("%")[0])
    if os.path.isdir(folder):
        return []
    reason = f"there is no folder {folder}, so there is none of any host"
    return [_problem(site, "location", site.location, reason, "create it or correct the path")]


def static_problems(site: Site) -> list[Problem]:
    """Return warnings for the places of [static] where there is nothing."""
    return [
        Problem(
            site.file,
            "there is no such folder or file",
            "static",
            prefix,
            place,
            "create it or correct the path",
            severity="warning",
        )
        for prefix, places in site.static.items()
        for place in places
        if not os.path.exists(place)
    ]


def _problem(site: Site, key: str, value: str, reason: str, remedy: str) -> Problem:
    return Problem(file=site.file, section="service", key=key, value=value, reason=reason, remedy=remedy)


def application_fault(site: Site) -> str:
    """Return why the application cannot be what its file says, or ""."""
    is_command = site.command and site.server in ("auto", "command")
    if not site.application or is_command or site.mode == "proxy":
        return ""
    try:
        spec = sharing.resolve(site)
    except ValueError:
        return ""  # a wrong value is a problem of the file, said where the file is read
    return _file_fault(site, spec) if spec.is_file else _module_fault(site, spec)


def _file_fault(site: Site, spec: AppSpec) -> str:
    path = os.path.join(site.location, spec.target)
    if not os.path.isfile(path):
        return f"there is no file {path}"
    return "" if spec.kind == "paste" else callable_fault(path, spec.candidates)


def _module_fault(site: Site, spec: AppSpec) -> str:
    if spec.kind == "plugin":
        return "" if _has_loader(spec.target) else f"there is neither a module nor a loader named {spec.target!r}"
    if spec.kind not in ("module", "django", "asgi"):
        return ""
    literal = os.path.join(site.location, spec.target)
    if spec.target.endswith(".wsgi") and os.path.isfile(literal):
        return callable_fault(literal, spec.candidates)
    origin = find_module(spec.target, _import_path(site))
    if origin is None:
        may_be = site.python or (spec.kind == "module" and _has_loader(spec.target))
        return "" if may_be else f"there is no module {spec.target} in {site.location or 'the import path'}"
    if spec.kind == "django" or not origin.endswith(".py"):
        return ""
    return callable_fault(origin, spec.candidates)


def _has_loader(name: str) -> bool:
    from multisite.inprocess.load_plugin import plugins

    return name in plugins().names


def _import_path(site: Site) -> list[str]:
    """Return the folders that the site imports from; those of an interpreter of its own are not known here."""
    folders = [site.location, *site.env.get("PYTHONPATH", "").split(os.pathsep)]
    return [folder for folder in folders if folder] + ([] if site.python else sys.path)


def find_module(module: str, path: Iterable[str]) -> str | None:
    """Return the file of a module, "" if it has none (a namespace package), None if there is no such module."""
    folders: list[str] | None = list(path)
    origin = ""
    for part in module.split("."):
        # By its last name alone: a namespace package looks its parent up in sys.modules, where it is not.
        spec = PathFinder.find_spec(part, folders) if folders is not None else None
        if spec is None:
            return None
        origin = spec.origin or ""
        folders = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return origin
