"""What a syntax tree says: names that a module binds, and the frameworks whose classes it uses."""

from __future__ import annotations

import ast
from collections.abc import Iterator

#: classes whose instances are applications → (framework, prefix of `application =`)
CLASSES = {
    "Flask": ("Flask", ""),
    "FastAPI": ("FastAPI", "asgi:"),
    "Starlette": ("Starlette", "asgi:"),
    "Litestar": ("Litestar", "asgi:"),
    "Quart": ("Quart", "asgi:"),
    "Bottle": ("Bottle", ""),
}
#: a class may be called anything in somebody's own module, so it has to come from here
MODULES = ("flask", "fastapi", "starlette", "litestar", "quart", "bottle", "falcon")


def bound(tree: ast.Module) -> set[str]:
    """Return the names that a module binds at its top."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        else:
            names |= set(targets(node))
    return names


def targets(node: ast.stmt) -> list[str]:
    """Return the names that an assignment binds."""
    places = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in places if isinstance(target, ast.Name)]


def imported(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """Return what each name of a framework's class is called here → (framework, prefix)."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            names = {alias.asname or alias.name: alias.name for alias in node.names}
            found |= {ours: CLASSES[name] for ours, name in names.items() if name in CLASSES}
            found |= {ours: ("Falcon", "") for ours, name in names.items() if node.module == "falcon" and name == "App"}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                module = alias.asname or alias.name
                if alias.name in MODULES:
                    found |= {f"{module}.{name}": what for name, what in CLASSES.items()}
                    found |= {f"{module}.App": ("Falcon", "")} if alias.name == "falcon" else {}
    return found


def called(tree: ast.Module, module: str, name: str) -> set[str]:
    """Return how something of a module is called in this one: ``dash.Dash``, ``Dash``, ``cp.tree.mount``."""
    first, _, rest = name.partition(".")
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {f"{alias.asname or module}.{name}" for alias in node.names if alias.name == module}
        elif isinstance(node, ast.ImportFrom) and node.module == module:
            own = (alias.asname or alias.name for alias in node.names if alias.name == first)
            found |= {".".join(filter(None, (each, rest))) for each in own}
            found |= {name} if any(alias.name == "*" for alias in node.names) else set()
    return found


def frameworks(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the framework and the prefix of each application that is made anywhere in a module."""
    classes = imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (found := classes.get(callee(node))):
            yield found


def callee(node: ast.AST | None) -> str:
    """Return the dotted name of what a call calls, "" for anything else."""
    function = node.func if isinstance(node, ast.Call) else None
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.insert(0, function.attr)
        function = function.value
    return ".".join([function.id, *parts]) if isinstance(function, ast.Name) else ""


def needs_arguments(arguments: ast.arguments) -> bool:
    """Tell whether a function cannot be called without any."""
    without = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return without > 0 or any(default is None for default in arguments.kw_defaults)
