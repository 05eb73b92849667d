"""Whether the text of a Python file can define a name, and something callable at that."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterable, Iterator, Sequence

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
