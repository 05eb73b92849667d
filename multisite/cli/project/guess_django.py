"""Django: the settings that ``manage.py`` names, and from them the application and the folders of static files."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator

from multisite.status.project.sources import Guess, Project, bound, callee, service, targets

CHANNELS = ("channels", "daphne")
MOST_IMPORTS = 8  # star imports of settings to follow


def managed(project: Project) -> Iterator[Guess]:
    """Find projects with a ``manage.py``; if ASGI serves more than WSGI could, it comes first."""
    for name, tree in project.sources.items():
        if os.path.basename(name) == "manage.py":
            for line, settings in _settings_modules(tree):
                root = os.path.dirname(name)
                yield from _Found(project, root, settings, f"{name}:{line} names the settings {settings}").guesses()


class _Found:
    """One project: its settings, and the modules that serve it."""

    def __init__(self, project: Project, root: str, settings: str, why: str) -> None:
        self._project, self._root, self._settings, self._why = project, root, settings, why
        self._package = settings.partition(".")[0]
        self._values = dict(_values(project, root, settings))
        self._location = os.path.join(project.folder, root).rstrip("/")

    def guesses(self) -> Iterator[Guess]:
        rank = 2 * (self._root.count(os.sep) + bool(self._root))
        wsgi, asgi = self._served("wsgi", ""), self._served("asgi", "asgi:")
        reason = self._asks_for_asgi()
        if asgi and reason:
            yield self._guess(asgi, rank, f"; {reason}")
        elif not wsgi and asgi:
            yield self._guess(asgi, rank)
        if wsgi:
            yield self._guess(wsgi, rank + bool(asgi and reason))
        if not wsgi and not asgi:
            yield self._guess(f"django:{self._settings}", rank)
        if asgi and wsgi and not reason:
            yield self._guess(asgi, rank + 1)

    def _guess(self, application: str, rank: int, reason: str = "") -> Guess:
        static = {url: os.path.relpath(path, self._location) for url, path in self._files()}
        inside = {url: path for url, path in static.items() if not path.startswith("..")}
        return Guess("Django", self._why + reason, service(self._location, application), rank, (), inside)

    def _served(self, kind: str, prefix: str) -> str:
        """Return the value of `application =` for wsgi or asgi, "" if there is no such module."""
        named = _text(self._values.get(f"{kind.upper()}_APPLICATION"))
        module, _, attribute = (named or f"{self._package}.{kind}.application").rpartition(".")
        tree = self._source(module)
        return f"{prefix}{module}:{attribute}" if tree and attribute in bound(tree) else ""

    def _source(self, module: str) -> ast.Module | None:
        path = os.path.join(self._root, *module.split("."))
        return self._project.sources.get(f"{path}.py") or self._project.sources.get(os.path.join(path, "__init__.py"))

    def _settings_file(self) -> str:
        path = os.path.join(self._root, *self._settings.split("."))
        inside = os.path.join(path, "__init__.py")
        return os.path.join(self._project.folder, inside if inside in self._project.sources else f"{path}.py")

    def _asks_for_asgi(self) -> str:
        """Return the reason to serve the project with ASGI, "" if there is none."""
        named = _text(self._values.get("ASGI_APPLICATION"))
        if named:
            return f"ASGI_APPLICATION = {named}"
        apps = self._values.get("INSTALLED_APPS")
        words = {_text(each).partition(".")[0] for each in ast.walk(apps)} if apps else set()
        found = next((name for name in CHANNELS if name in words), "")
        if found:
            return f"{found} is among INSTALLED_APPS"
        tree = self._source(f"{self._package}.asgi")
        return f"{self._package}/asgi.py makes more than get_asgi_application()" if tree and makes_more(tree) else ""

    def _files(self) -> Iterator[tuple[str, str]]:
        """Yield the URL and the folder of static files and of uploads, as far as the settings' text shows them."""
        names = {name: node for name, node in self._values.items() if name != "__file__"}
        for kind in ("STATIC", "MEDIA"):
            url = _text(self._values.get(f"{kind}_URL"))
            root = self._values.get(f"{kind}_ROOT")
            path = _path(root, names, self._settings_file()) if root else ""
            if path and re.match(r"/?\w[\w/-]*/?\Z", url):
                yield "/" + url.strip("/"), path


def makes_more(tree: ast.Module) -> bool:
    """Tell whether an ``asgi.py`` does more than ``application = get_asgi_application()``."""
    binding = (ast.Assign, ast.AnnAssign)
    made = [node for node in tree.body if isinstance(node, binding) and "application" in targets(node)]
    imported = any(isinstance(node, ast.ImportFrom) and node.module == "django.core.asgi" for node in ast.walk(tree))
    return imported and bool(made) and callee(made[-1].value).rpartition(".")[2] != "get_asgi_application"


def _settings_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Find ``os.environ.setdefault("DJANGO_SETTINGS_MODULE", "blog.settings")`` and similar calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) == 2:
            words = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if len(words) == 2 and words[0] == "DJANGO_SETTINGS_MODULE" and isinstance(words[1], str):
                yield node.lineno, words[1]


def _values(project: Project, root: str, module: str) -> Iterator[tuple[str, ast.expr]]:
    """Yield the assignments of the settings, the last one of a name last, after those of the modules they import."""
    waiting, modules = [module], list[str]()
    while waiting and len(modules) < MOST_IMPORTS:
        modules.append(waiting.pop())
        waiting += [name for name in _stars(project, root, modules[-1]) if name not in modules]
    for name in reversed(modules):
        tree = _tree(project, root, name)
        for node in tree.body if tree else ():
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
                yield from ((target, node.value) for target in targets(node))


def _tree(project: Project, root: str, module: str) -> ast.Module | None:
    path = os.path.join(root, *module.split("."))
    return project.sources.get(f"{path}.py") or project.sources.get(os.path.join(path, "__init__.py"))


def _stars(project: Project, root: str, module: str) -> Iterator[str]:
    tree = _tree(project, root, module)
    is_package = os.path.join(root, *module.split("."), "__init__.py") in project.sources
    for node in tree.body if tree else ():
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            parts = module.split(".")
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            yield ".".join([*above, *([node.module] if node.module else [])])


def _text(node: ast.AST | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _path(node: ast.expr, names: dict[str, ast.expr], file: str, depth: int = 0) -> str:
    """Return the path that an expression in settings means, "" if the text alone does not show it.

    It understands ``BASE_DIR / "static"``, ``os.path.join(BASE_DIR, "static")`` and similar forms, as startproject and
    most people write them.
    """
    if depth > 20:
        return ""

    def of(part: ast.expr) -> str:
        return _path(part, names, file, depth + 1)

    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.Name):
        return file if node.id == "__file__" else of(names[node.id]) if node.id in names else ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        left, right = of(node.left), of(node.right)
        return os.path.normpath(os.path.join(left, right)) if left and right else ""
    if isinstance(node, ast.Attribute) and node.attr == "parent":
        return os.path.dirname(of(node.value))
    return _of_call(node, of) if isinstance(node, ast.Call) else ""


def _of_call(node: ast.Call, of: Callable[[ast.expr], str]) -> str:
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if function in ("join", "joinpath"):
        first = [node.func.value] if function == "joinpath" and isinstance(node.func, ast.Attribute) else []
        parts = [of(part) for part in (*first, *node.args)]
        return os.path.normpath(os.path.join(*parts)) if parts and all(parts) else ""
    if function == "dirname" and node.args:
        return os.path.dirname(of(node.args[0]))
    if function in ("abspath", "realpath", "Path", "str", "normpath") and node.args:
        return of(node.args[0])
    if function in ("resolve", "absolute") and isinstance(node.func, ast.Attribute):
        return of(node.func.value)
    return ""
