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
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

from multisite.model import Problem

if TYPE_CHECKING:
    from multisite.model import Site

_LITERALS = (ast.Constant, ast.JoinedStr, ast.List, ast.Tuple, ast.Dict, ast.Set)
_SCRIPTS = (".wsgi", ".py")


def site_problems(site: Site) -> list[Problem]:
    """Return what is wrong with the location and the application of `site`, as far as can be seen."""
    if site.location and not os.path.isdir(site.location):
        reason = "it is not a directory" if os.path.exists(site.location) else "there is no such directory"
        return [_problem(site, "location", site.location, reason, "create it or correct the path")]
    reason = application_fault(site)
    return [_problem(site, "application", site.application, reason, "")] if reason else []


def _problem(site: Site, key: str, value: str, reason: str, remedy: str) -> Problem:
    return Problem(file=site.file, section="service", key=key, value=value, reason=reason, remedy=remedy)


def application_fault(site: Site) -> str:
    """Return why the application cannot be what it should, or ""."""
    text = site.application.strip()
    scheme, _, rest = text.partition(":")
    if scheme == "paste":
        path = os.path.join(site.location, rest.partition("#")[0])
        return "" if os.path.isfile(path) else f"there is no file {path}"
    if scheme == "django":
        return _module_fault(site, rest)[1]
    if scheme == "asgi":
        text = rest
    target, _, name = text.partition(":")
    if target.endswith(_SCRIPTS):
        path = os.path.join(site.location, target)
        return name_fault(path, name or "application") if os.path.isfile(path) else f"there is no file {path}"
    if not name:
        return ""  # an entry point of a loader, or nothing at all: said where the file is read
    path, fault = _module_fault(site, target)
    return fault or (name_fault(path, name) if path else "")


def _module_fault(site: Site, module: str) -> tuple[str, str]:
    """Return (source file, fault) of `module`; both are empty where it cannot be known."""
    foreign = bool(site.python)
    path = [site.location, *site.env.get("PYTHONPATH", "").split(os.pathsep)]
    if not foreign:
        path += sys.path
    origin = find_module(module, [folder for folder in path if folder])
    if origin is None:
        return "", "" if foreign else f"there is no module {module} in {site.location}"
    return (origin, "") if origin.endswith(".py") else ("", "")


def find_module(module: str, path: Iterable[str]) -> str | None:
    """Return the file of a module, "" if it is none (a namespace package), None if there is no such module."""
    folders: list[str] | None = list(path)
    origin = ""
    parts = module.split(".")
    for depth in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), folders) if folders is not None else None
        if spec is None:
            return None
        origin = spec.origin or ""
        folders = list(spec.submodule_search_locations) if spec.submodule_search_locations is not None else None
    return origin


def name_fault(path: str, name: str) -> str:
    """Return why the Python file `path` offers no callable `name`, or "" if it does or might."""
    name = name.partition("(")[0].partition(".")[0].strip()
    try:
        with tokenize.open(path) as file:
            tree = ast.parse(file.read(), path)
    except OSError as error:
        return f"{path}: {(error.strerror or 'cannot be read').lower()}"
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        return f"{path}{f', line {line}' if line else ''} is not valid Python"
    bindings = list(_bindings(tree.body, name))
    if not bindings:
        return "" if _is_open(tree) else f"{path} defines no {name}"
    if all(isinstance(value, _LITERALS) for value in bindings):
        return f"{name} in {path} is not callable"
    return ""


def _is_open(tree: ast.Module) -> bool:
    """Tell whether names may appear in the module that its text does not show."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return True
        if isinstance(node, ast.Name) and node.id in ("globals", "exec", "vars", "setattr", "__getattr__"):
            return True
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            return True
        if isinstance(node, (ast.Global, ast.NamedExpr, ast.Match)):
            return True
    return False


def _bindings(body: Iterable[ast.stmt], name: str) -> Iterator[ast.AST]:
    """Yield what `name` is bound to at the top level of a module, also under ``if``, ``try``, ``with`` and loops."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if node.name == name:
                yield node
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (node for a in node.names if (a.asname or a.name.partition(".")[0]) == name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
            yield from _assigned(node, node.value, name)
        yield from _loops(node, name)
        for field in ("body", "orelse", "finalbody"):
            yield from _bindings(getattr(node, field, ()), name)
        for handler in getattr(node, "handlers", ()):
            yield from _bindings(handler.body, name)


def _assigned(node: ast.Assign | ast.AnnAssign, value: ast.expr, name: str) -> Iterator[ast.AST]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    for target in targets:
        if isinstance(target, ast.Name) and target.id == name:
            yield value
        elif any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(target)):
            yield node  # unpacked: what it gets is not plain to see


def _loops(node: ast.stmt, name: str) -> Iterator[ast.AST]:
    targets: list[ast.expr] = []
    if isinstance(node, (ast.For, ast.AsyncFor)):
        targets = [node.target]
    elif isinstance(node, (ast.With, ast.AsyncWith)):
        targets = [item.optional_vars for item in node.items if item.optional_vars]
    for target in targets:
        if any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(target)):
            yield node
