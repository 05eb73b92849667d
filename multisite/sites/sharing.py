"""What a site would add to a shared interpreter, looked up before it is imported.

`place` joins the pure decision of `placement` with the facts of this process;
`wanted` lists the module names that the site's directory holds; whether a source imports one is read from its text.
"""

from __future__ import annotations

import os
import pwd
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder

from multisite.config import application
from multisite.config.application import AppSpec
from multisite.config.model import Home, Site
from multisite.errors import AppLoadError, NeedsProcess
from multisite.sites import claims
from multisite.sites.placement import UNKNOWN, Calls, Facts, Placement, decide, is_left_to_us, obstacle

#: whether threads of this system can have their own working directories
THREADS_HAVE_DIRECTORIES = sys.platform == "linux"

_DJANGO = re.compile(r"\bDJANGO_SETTINGS_MODULE\b|\bget_[aw]sgi_application\b|\bdjango\.setup\b")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a site will import.

    Attributes:
        names: to be claimed.
        alone: the file that nothing else of the site imports, if any: it is loaded apart from other sites' modules.
        own: the name by which that file knows itself; "" for a unique one.
    """

    spec: AppSpec
    names: claims.Names = field(default_factory=dict)
    alone: str = ""
    own: str = ""


def facts(site: Site, calls: Calls = UNKNOWN) -> Facts:
    """Look up what the placement of `site` depends on; `calls` is what a worker knows of itself."""
    uid = os.geteuid()
    return Facts(
        _user_name(uid), uid == 0, _owner(site.location), calls.at_once, calls.in_several, THREADS_HAVE_DIRECTORIES
    )


def place(site: Site, home: Home, calls: Calls = UNKNOWN) -> Placement:
    """Decide where `site` runs as far as its file, this process's user and its server go."""
    return decide(site, home, facts(site, calls))


def is_examined(site: Site, home: Home) -> bool:
    """Tell whether `site` is examined in its own process.

    It lives there until it has shown that it may share, and for good without ``share = yes``: then only what is found
    out about it is told. One that is imported anew for each request is under development.
    """
    if not is_left_to_us(site) or not home.supervisor.examine or is_always_restarted(site):
        return False
    return not obstacle(site, home, facts(site))


def is_always_restarted(site: Site) -> bool:
    """Tell whether ``tmp/always_restart.txt`` asks for a reload before each request (Passenger's way)."""
    return bool(site.location) and os.path.exists(os.path.join(site.location, "tmp", "always_restart.txt"))


def place_among(site: Site, home: Home, others: Mapping[str, claims.Names]) -> Placement:
    """Decide where `site` is to run, clashes with the modules that `others` hold included."""
    found = place(site, home)
    if not found.shareable or site.files_only:
        return found
    try:
        names = wanted(site).names
    except NeedsProcess as error:
        return Placement("spawned", error.why)
    except AppLoadError:
        return found
    clash = claims.conflict(names, others)
    return Placement("spawned", clash) if clash else found


def holds(site: Site, home: Home, names: Mapping[str, str]) -> bool:
    """Tell whether `site`, as its file is now, still lives where it claimed `names`."""
    roots = {root for root in names.values() if root != claims.EACH}
    return place(site, home).shareable and (not site.location or not roots or site.location in roots)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _owner(path: str) -> str:
    try:
        return _user_name(os.stat(path).st_uid) if path else ""
    except OSError:
        return ""


def wanted(site: Site) -> Wanted:
    """Return what `site` would claim.

    If none of the site's other files imports a module, each site may have its own, so any number of them can be an
    ``app.py``.

    Raises:
        AppLoadError: its `application` cannot be understood.
        NeedsProcess: one of its modules would hide an installed one.
    """
    try:
        spec = resolve(site)
    except ValueError as error:
        raise AppLoadError(str(error)) from error
    names = claims.importable_names(site.location) if site.location else set()
    entry = _entry_file(site, spec)
    if entry and spec.kind == "module":
        names.add(spec.target.partition(".")[0])  # which need not be a valid identifier
    stem = os.path.basename(entry).partition(".")[0]
    top_level = entry == os.path.join(site.location, f"{stem}.py")
    unnamed = top_level and not is_imported(stem, site.location, names)
    alone = entry if spec.kind == "file" or (spec.kind == "module" and unnamed) else ""
    if alone and unnamed:
        names.discard(stem)
    own = stem if alone and spec.kind == "module" else ""
    _refuse_hiding({*names, own} - {""}, site.location)
    claimed = dict.fromkeys(names, site.location) | ({own: claims.EACH} if own else {})
    if spec.kind == "django" or _DJANGO.search(read(entry)):
        claimed[claims.DJANGO] = site.location
    return Wanted(spec, claimed, alone, own)


def more_names(directories: list[str]) -> claims.Names:
    """Return the names in directories that a site's code put on the import path itself."""
    names: claims.Names = {}
    for directory in directories:
        is_a_sites = not directory.startswith((sys.prefix + os.sep, sys.base_prefix + os.sep))
        found = claims.importable_names(directory) if is_a_sites else set()
        _refuse_hiding(found, directory)
        names |= dict.fromkeys(found, directory)
    return names


def _entry_file(site: Site, spec: AppSpec) -> str:
    if spec.kind == "file":
        return os.path.join(site.location, spec.target)
    if spec.kind != "module" or not site.location:
        return ""
    path = os.path.join(site.location, *spec.target.split("."))
    return next((p for p in (path + ".py", os.path.join(path, "__init__.py")) if os.path.isfile(p)), "")


def _refuse_hiding(names: set[str], directory: str) -> None:
    for name in sorted(names):
        if name in sys.stdlib_module_names:
            raise NeedsProcess(f"its module '{name}' has the name of a standard one")
        spec = PathFinder.find_spec(name)
        places = [spec.origin] if spec and spec.origin else list(spec.submodule_search_locations or ()) if spec else []
        inside = os.path.realpath(directory) + os.sep
        if places and not any(os.path.realpath(str(place)).startswith(inside) for place in places):
            raise NeedsProcess(f"its module '{name}' has the name of an installed one ({places[0]})")


def resolve(site: Site) -> AppSpec:
    """What the site's ``application`` means: its text and, for what may be either, what there is in the location.

    ``blog.wsgi`` is the file of that name or a module, and ``my-app`` a module or the name of a plugin.

    Raises:
        ValueError: the text has none of the known forms.
    """
    if not site.application:
        return AppSpec("moya", "")
    spec = application.parse(site.application)
    if spec.kind == "module" and spec.target.endswith(".wsgi") and _is_file(site, spec):
        return spec.as_file()
    module = spec.as_module()
    return module if module and not _is_file(site, spec) and _is_module(site, module) else spec


def _is_module(site: Site, spec: AppSpec) -> bool:
    path = os.path.join(site.location, *spec.target.split("."))
    return os.path.isfile(f"{path}.py") or os.path.isfile(os.path.join(path, "__init__.py"))


def _is_file(site: Site, spec: AppSpec) -> bool:
    return os.path.isfile(os.path.join(site.location, spec.target))


MOST_FILES = 300  # read to find out; in a larger site the name counts as imported
LARGEST = 1 << 20  # bytes read of one file


def is_imported(module: str, location: str, names: Iterable[str]) -> bool:
    """Tell whether `module` may be imported by one of the top-level `names` in `location`, itself included.

    ``import app``, ``from app import db`` and ``import_module("app.models")`` count; so does what
    only looks like one of them.
    """
    says = re.compile(rf"""\b(?:from|import)\s+(?:[\w.]+(?:\s+as\s+\w+)?\s*,\s*)*{re.escape(module)}\b""")
    quotes = re.compile(rf"""["']{re.escape(module)}["'.:]""")
    for count, path in enumerate(_sources(location, names)):
        text = read(path)
        itself = path == os.path.join(location, f"{module}.py")
        if count >= MOST_FILES or says.search(text) or (not itself and quotes.search(text)):
            return True
    return False


def _sources(location: str, names: Iterable[str]) -> Iterator[str]:
    for name in sorted(names):
        if os.path.isfile(path := os.path.join(location, f"{name}.py")):
            yield path
        for folder, _, files in os.walk(os.path.join(location, name)):
            yield from (os.path.join(folder, file) for file in sorted(files) if file.endswith(".py"))


def read(path: str) -> str:
    """Return the text of a source; "" if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST)
    except OSError:
        return ""
