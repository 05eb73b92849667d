"""Check that a site can serve what its file names, without running it.

``application = blog.wsgi:application`` promises a file and a name in it. Importing it would run the site's code as the
user who types the command, so the source text is read instead. If the text is not conclusive (a star import, a module
of another interpreter), nothing is reported.
"""

from __future__ import annotations

import ast
import os
import shlex
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

from multisite.config import hosting
from multisite.errors import AppLoadError, Problem
from multisite.runner import missing
from multisite.runner.missing import NoSuchApp
from multisite.sites import sharing
from multisite.supervisor.process import reach

if TYPE_CHECKING:
    from multisite.config.application import AppSpec
    from multisite.config.model import Site


def site_problems(site: Site) -> list[Problem]:
    """Return the problems of the location and the application of `site`, as far as the files show them."""
    if hosting.is_hosting(site.location):
        return _hosting_problems(site)
    if site.location and not os.path.isdir(site.location):
        return [_problem("MS531", site, "location", site.location, *_no_folder(site.location, site.name))]
    fault = application_fault(site)
    return (
        [_problem(AppLoadError.id, site, fault.key, getattr(site, fault.key), fault.reason, fault.remedy)]
        if fault
        else []
    )


def _no_folder(path: str, name: str) -> tuple[str, str]:
    """Return why a location cannot be used, and the commands that would help."""
    there = os.path.exists(path)
    make = "" if there else f"mkdir -p {shlex.quote(path)}, or "
    reason = "it is not a directory" if there else "there is no such directory"
    return reason, f"{make}multisite set {name} location=FOLDER"


def _hosting_problems(site: Site) -> list[Problem]:
    """Check the folder above those of all hosts; the folder of a host is checked when a request names it."""
    folder = os.path.dirname(site.location.partition("%")[0])
    if os.path.isdir(folder):
        return []
    reason = f"there is no folder {folder}, so no host has one"
    remedy = f"mkdir -p {shlex.quote(folder)}, or multisite set {site.name} location=FOLDER"
    return [_problem("MS531", site, "location", site.location, reason, remedy)]


def static_problems(site: Site) -> list[Problem]:
    """Return warnings for folders and files of [static] that do not exist."""
    return [
        Problem(
            "MS815",
            site.file,
            "there is no such folder or file",
            "static",
            prefix,
            place,
            f"mkdir -p {shlex.quote(place)}, or multisite set {site.name} static.{prefix}=FOLDER",
            severity="warning",
        )
        for prefix, places in site.static.items()
        for place in places
        if reach.is_missing(place)
    ]


def _problem(id: str, site: Site, key: str, value: str, reason: str, remedy: str) -> Problem:
    return Problem(id, site.file, reason, "service", key, value, remedy)


def application_fault(site: Site) -> NoSuchApp | None:
    """Return why the application in the site's file cannot be served, as far as the files show it."""
    is_command = site.command and site.server in ("auto", "command")
    if not site.application or is_command or site.mode == "proxy":
        return None
    try:
        spec = sharing.resolve(site)
    except ValueError:
        return None  # a wrong value is a problem of the file, reported when the file is read
    return _file_fault(site, spec) if spec.is_file else _module_fault(site, spec)


def _file_fault(site: Site, spec: AppSpec) -> NoSuchApp | None:
    path = os.path.normpath(os.path.join(site.location, spec.target))
    if not os.path.isfile(path):
        return missing.no_file(site.name, site.location, spec.target)
    return _lacking(site, spec, "", "paste") if spec.kind == "paste" else _code_fault(site, spec, path)


def _module_fault(site: Site, spec: AppSpec) -> NoSuchApp | None:
    if spec.kind == "plugin":
        there = _has_loader(spec.target)
        return None if there else missing.no_loader(site.name, spec.target, _interpreter(site) or "python3")
    if spec.kind not in ("module", "django", "asgi"):
        return None
    literal = os.path.join(site.location, spec.target)
    if spec.target.endswith(".wsgi") and os.path.isfile(literal):
        return _code_fault(site, spec, literal)
    origin = _origin(site, spec)
    if origin is None:
        module = _first_missing(spec.target, [*_import_path(site), *_packages(site)])
        python = _interpreter(site) or "its interpreter"
        return missing.no_module(site.name, module, spec, site.location, python)
    if spec.kind == "django":
        return _lacking(site, spec, origin, "django")
    return _code_fault(site, spec, origin) if origin.endswith(".py") else None


def _origin(site: Site, spec: AppSpec) -> str | None:
    """Return the file of a site's module, "" if it has none or that is unknown, None if there is no such module."""

    path = _import_path(site)
    found = find_module(spec.target, path)
    if found is not None or (spec.kind == "module" and _has_loader(spec.target)):
        return found or ""
    if not site.python:
        return None
    top, packages = spec.target.partition(".")[0], _packages(site)
    if not packages or top in sys.stdlib_module_names:
        return ""
    found = find_module(spec.target, [*path, *packages])
    return "" if found is None and find_module(top, path) is None and _may_have(site, top) else found


def _may_have(site: Site, top: str) -> bool:
    from multisite.status.project.imports import Installed

    mapped = Installed.by(_interpreter(site), site).mapped
    return any(repr(top) in text for text in mapped)


def _packages(site: Site) -> tuple[str, ...]:
    """Return the package folders of a site's own interpreter, as far as they are known."""
    from multisite.status.project.imports import Installed

    python = _interpreter(site) if site.python else ""
    return (Installed.by(python, site).folders or ()) if python else ()


def _first_missing(module: str, path: list[str]) -> str:
    """Return the first missing part of a dotted name, as an import names it."""
    parts = module.split(".")
    names = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return next((name for name in names if find_module(name, path) is None), module)


def _code_fault(site: Site, spec: AppSpec, path: str) -> NoSuchApp | None:
    """Return the fault in the source of an application: its syntax, its callables, its imports."""
    if reason := callable_fault(path, spec.candidates):
        if "is not valid Python" not in reason:
            return NoSuchApp(reason, _instead(site, spec, path))
        python = _interpreter(site)
        return None if _is_newer(python) else NoSuchApp(reason, f"run {python or 'python3'} -m py_compile {path}")
    return _lacking(site, spec, path)


def _lacking(site: Site, spec: AppSpec, path: str, *needed: str) -> NoSuchApp | None:
    """Return the fault if a site's interpreter lacks a module that its code imports, or one of those in `needed`."""
    from multisite.status.project.imports import Installed, missing_import

    python = _interpreter(site)
    if not python or site.chroot:
        return None
    for name in (*needed, *(("gunicorn",) if site.server == "gunicorn" else ())):
        if not Installed.by(python, site).may_have(name) and not find_module(name, _import_path(site)):
            return missing.lacking(site.name, name, site.location, python)
    found = missing_import(path, site, python) if path.endswith((".py", ".wsgi")) else None
    if not found:
        return None
    return missing.no_module(
        site.name, found.module, spec, site.location, python, f" ({found.file}, line {found.line})"
    )


def _interpreter(site: Site) -> str:
    """Return the interpreter of a site; "" if it has none, which is a problem of another key."""
    from multisite.config.policies import Refused
    from multisite.supervisor.process import launch

    try:
        return launch.interpreter(site)
    except Refused:
        return ""


def _is_newer(python: str) -> bool:
    """Tell whether an interpreter may accept syntax that ours does not."""
    from multisite.supervisor.process import launch

    version = launch.version_of(python) if python else None
    return version is not None and version > sys.version_info[:2]


def _instead(site: Site, spec: AppSpec, path: str) -> str:
    """Return what a module offers instead of a missing callable, and the command that sets it."""
    names = offered(path)
    best = next((name for name in USUAL if name in names), names[0] if len(names) == 1 else "CALLABLE")
    offers = f"it offers {', '.join(names[:MOST_OFFERED])}: " if names else ""
    prefix = "asgi:" if spec.kind == "asgi" else ""
    call = "()" if best in FACTORIES else ""
    value = shlex.quote(f"application={prefix}{spec.target}:{best}{call}")
    return f"{offers}multisite set {site.name} {value}"


MOST_OFFERED = 8  # names of a module to list
FACTORIES = ("create_app", "make_app", "get_app", "build_app", "create_application", "make_application")
#: usual names of an application, best first
USUAL = ("application", "app", "wsgi_app", "wsgi", "asgi", "api", "server", "handler", *FACTORIES, "main")


def offered(path: str) -> list[str]:
    """Return the names of a module that may be callables: its functions, its classes and the objects that it makes."""
    from multisite.status.project import scan

    tree, names = scan.parse(scan.read(path)), dict[str, None]()
    waiting = list(tree.body) if tree else []
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names[node.name] = None
            continue
        if isinstance(node, ast.ImportFrom):
            names |= {name: None for alias in node.names if (name := alias.asname or alias.name) in USUAL}
        for target, value in _targets(node):
            if isinstance(target, ast.Name) and not isinstance(value, _LITERALS):
                names[target.id] = None
        waiting += list(_inner(node))
    return [name for name in names if not name.startswith("_")]


def _has_loader(name: str) -> bool:
    from multisite.inprocess.loader import plugins

    return name in plugins().names


def _import_path(site: Site) -> list[str]:
    """Return the folders from which the site imports; those of its own interpreter are unknown here."""
    folders = [site.location, *site.env.get("PYTHONPATH", "").split(os.pathsep)]
    return [folder for folder in folders if folder] + ([] if site.python else sys.path)


def find_module(module: str, path: Iterable[str]) -> str | None:
    """Return the file of a module, "" if it has none (a namespace package), None if there is no such module."""
    folders: list[str] | None = list(path)
    origin = ""
    for part in module.split("."):
        # By its last name alone: a namespace package looks up its parent in sys.modules, which does not have it.
        spec = PathFinder.find_spec(part, folders) if folders is not None else None
        if spec is None:
            return None
        origin = spec.origin or ""
        folders = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return origin


_LITERALS = (ast.Constant, ast.JoinedStr, ast.List, ast.Tuple, ast.Dict, ast.Set)
_DYNAMIC = {"globals", "locals", "vars", "exec", "setattr", "__getattr__", "modules"}


def callable_fault(path: str, names: Sequence[str]) -> str:
    """Return why the Python file `path` offers none of the callables `names`, or "" if it does or might."""
    try:
        with tokenize.open(path) as file:
            tree = ast.parse(file.read(), path)
    except OSError as error:
        return f"{path}: {(error.strerror or 'cannot be read').lower()}"
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        detail = f": {error.msg}" if isinstance(error, SyntaxError) else ""
        return f"{path}{f', line {line},' if line else ''} is not valid Python{detail}"
    faults = [binding_fault(tree, name.partition(".")[0]) for name in names]
    return f"{' and '.join(faults)} in {path}" if all(faults) else ""


def binding_fault(tree: ast.Module, name: str) -> str:
    """Return the fault of `name` at the top level of a module, or "" if there is none or the text does not show it."""
    bindings = list(_bindings(tree.body, name))
    if not bindings:
        return "" if any(map(_is_dynamic, ast.walk(tree))) else f"there is no {name}"
    return f"{name} is not callable" if all(isinstance(value, _LITERALS) for value in bindings) else ""


def _is_dynamic(node: ast.AST) -> bool:
    """Tell whether `node` may add names to the module that its text does not show."""
    if isinstance(node, ast.ImportFrom):
        return any(alias.name == "*" for alias in node.names)
    if isinstance(node, ast.Name):
        return node.id in _DYNAMIC
    if isinstance(node, ast.Attribute):
        return node.attr in _DYNAMIC
    if isinstance(node, ast.FunctionDef):
        return node.name in _DYNAMIC
    return isinstance(node, (ast.Global, ast.NamedExpr, ast.Match))


def _bindings(body: Iterable[ast.stmt], name: str) -> Iterator[ast.AST]:
    """Yield the values that `name` gets, also under ``if``, ``try``, ``with`` and loops."""
    waiting = list(body)[::-1]  # no recursion: each elif is within the last one
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if node.name == name:
                yield node
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (node for alias in node.names if (alias.asname or alias.name.partition(".")[0]) == name)
        for target, value in _targets(node):
            if isinstance(target, ast.Name) and target.id == name:
                yield value
            elif any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(target)):
                yield node
        waiting += list(_inner(node))[::-1]


def _targets(node: ast.stmt) -> Iterator[tuple[ast.expr, ast.AST]]:
    """Yield the targets of an assignment, each with its value, or with the statement if the text has no value."""
    if isinstance(node, ast.Assign):
        yield from ((target, node.value) for target in node.targets)
    elif isinstance(node, ast.AnnAssign) and node.value:
        yield node.target, node.value
    elif isinstance(node, (ast.For, ast.AsyncFor)):
        yield node.target, node
    elif isinstance(node, (ast.With, ast.AsyncWith)):
        yield from ((item.optional_vars, node) for item in node.items if item.optional_vars)


def _inner(node: ast.stmt) -> Iterator[ast.stmt]:
    for field in ("body", "orelse", "finalbody"):
        yield from getattr(node, field, ())
    for handler in getattr(node, "handlers", ()):
        yield from handler.body
