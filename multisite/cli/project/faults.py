"""What a site says it serves, looked up without running it.

``application = blog.wsgi:application`` promises a file and a name in it. Importing it would run the
site's code as whoever types the command, so the source text is read instead. Where the text leaves it
open (a star import, a module of another interpreter) nothing is said.
"""

from __future__ import annotations

import ast
import os
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

from multisite.config import hosting
from multisite.errors import Problem
from multisite.sites import sharing
from multisite.supervisor.process import reach

if TYPE_CHECKING:
    from multisite.config.application import AppSpec
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
        if reach.is_missing(place)
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
    from multisite.inprocess.loader import plugins

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
        return f"{path}{f', line {line},' if line else ''} is not valid Python"
    faults = [binding_fault(tree, name.partition(".")[0]) for name in names]
    return f"{' and '.join(faults)} in {path}" if all(faults) else ""


def binding_fault(tree: ast.Module, name: str) -> str:
    """Return what is wrong with `name` at the top level of a module, or "" if nothing is or it cannot be told."""
    bindings = list(_bindings(tree.body, name))
    if not bindings:
        return "" if any(map(_is_dynamic, ast.walk(tree))) else f"there is no {name}"
    return f"{name} is not callable" if all(isinstance(value, _LITERALS) for value in bindings) else ""


def _is_dynamic(node: ast.AST) -> bool:
    """Tell whether `node` may give the module names that its text does not show."""
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
    """Yield what `name` is bound to, also under ``if``, ``try``, ``with`` and loops."""
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
    """Yield what a statement assigns to, with the value; the statement itself stands for a value not written."""
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
