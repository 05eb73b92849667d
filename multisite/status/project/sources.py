"""A project's sources: their syntax trees, facts from these, and guesses at what could serve the project."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from multisite.errors import MultisiteError

USUAL = (
    "wsgi",
    "asgi",
    "passenger_wsgi",
    "app",
    "application",
    "main",
    "server",
    "__init__",
)  # where an application usually is, best first
#: classes whose instances are applications → (framework, prefix of `application =`)
CLASSES = {
    "Flask": ("Flask", ""),
    "FastAPI": ("FastAPI", "asgi:"),
    "Starlette": ("Starlette", "asgi:"),
    "Litestar": ("Litestar", "asgi:"),
    "Quart": ("Quart", "asgi:"),
    "Bottle": ("Bottle", ""),
}
#: a class of the same name may be in the project's own module, so it has to come from one of these
MODULES = ("flask", "fastapi", "starlette", "litestar", "quart", "bottle", "falcon")


@dataclass
class Project:
    """The contents of a folder.

    Attributes:
        folder: its path, absolute.
        sources: each Python file's syntax tree, by its path in the folder.
        inis: each INI file of the folder itself: section → key → text.
        venv: path of its virtualenv, "" for none.
        unreadable: Python files that do not parse.
    """

    folder: str
    sources: dict[str, ast.Module] = field(default_factory=dict)
    inis: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    venv: str = ""
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Guess:
    """One thing that could serve the project.

    Attributes:
        framework: its name for people.
        why: the evidence, with file and line.
        settings: key of a site's [service] → text.
        rank: smaller for more usual places.
        notes: further sentences for a comment.
        static: URL prefix → folder that the front end or multisite should serve.
    """

    framework: str
    why: str
    settings: dict[str, str]
    rank: int = 0
    notes: tuple[str, ...] = ()
    static: dict[str, str] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """The setting that names the application."""
        key = next(key for key in ("ini", "command", "application") if key in self.settings)
        return f"{key} = {self.settings[key]}"


class NoGuess(MultisiteError):
    """The files of a project do not show what serves it; the message has a remedy."""

    id = "MS915"


def service(location: str, application: str) -> dict[str, str]:
    """Return these keys of [service]."""
    return {"location": location, "application": application}


def importable(project: Project, name: str) -> tuple[str, str]:
    """Return the folder to import from, and the file's module name there; packages have an __init__.py."""
    folder, file = os.path.split(name)
    parts = [] if file == "__init__.py" else [file.removesuffix(".py")]
    while folder and os.path.join(folder, "__init__.py") in project.sources:
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    return os.path.join(project.folder, folder).rstrip("/"), ".".join(parts)


def settings_of(project: Project, name: str, attribute: str, prefix: str = "") -> dict[str, str]:
    """Return the keys of [service] that serve an attribute of a Python file."""
    location, module = importable(project, name)
    return service(location, f"{prefix}{module}:{attribute}")


def place(name: str) -> int:
    """Rank a file by how usual it is to hold the application: its depth, then its name."""
    stem = os.path.basename(name).removesuffix(".py")
    return 10 * name.count(os.sep) + rank(stem, USUAL)


def rank(name: str, usual: tuple[str, ...]) -> int:
    """Return the position of a name among the usual ones; all others come after them."""
    return usual.index(name) if name in usual else len(usual)


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
    """Return the local name of each imported framework class → (framework, prefix)."""
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
    """Return the local names for an attribute of a module: ``dash.Dash``, ``Dash``, ``cp.tree.mount``."""
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
    """Yield the framework and the prefix of each application that a module makes anywhere."""
    classes = imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (found := classes.get(callee(node))):
            yield found


def callee(node: ast.AST | None) -> str:
    """Return the dotted name of the function in a call, "" for anything else."""
    function = node.func if isinstance(node, ast.Call) else None
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.insert(0, function.attr)
        function = function.value
    return ".".join([function.id, *parts]) if isinstance(function, ast.Name) else ""


def needs_arguments(arguments: ast.arguments) -> bool:
    """Tell whether a function cannot be called without arguments."""
    without = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return without > 0 or any(default is None for default in arguments.kw_defaults)
