"""From the files of a project to what serves it: the framework, the application, where it is imported from (pure).

Each kind of project has one finder, which yields what it sees; the first kind that sees anything decides, because each
is more particular than the next. A Django project may well have a function in it that looks like a WSGI application.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from multisite.errors import MultisiteError

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
USUAL = (
    "wsgi",
    "asgi",
    "app",
    "application",
    "main",
    "server",
    "__init__",
)  # where an application usually is, best first
FACTORIES = ("create_app", "make_app", "create_application", "get_app", "main")
PASTE = ("app:main", "composite:main", "composit:main", "pipeline:main", "filter-app:main")
PREFERRED_INI = ("development.ini", "production.ini")


@dataclass
class Project:
    """What lies in a folder.

    Attributes:
        folder: its path, absolute.
        sources: each Python file, by its path in the folder, as it parses.
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
        why: what was seen, with file and line.
        settings: key of a site's [service] → text.
        rank: the smaller, the more usual is the place.
        notes: what else a comment should say.
    """

    framework: str
    why: str
    settings: dict[str, str]
    rank: int = 0
    notes: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """The setting that names the application."""
        key = "ini" if "ini" in self.settings else "application"
        return f"{key} = {self.settings[key]}"


class NoGuess(MultisiteError):
    """The files of a project do not say what serves it; the message has a remedy."""


def guess(project: Project) -> tuple[Guess, tuple[Guess, ...]]:
    """Return what serves the project, and what else was seen.

    Raises:
        NoGuess: nothing fits, or several things fit equally well.
    """
    for finder in _FINDERS:
        found = sorted(finder(project), key=lambda each: each.rank)
        best = [each for each in found if each.rank == found[0].rank]
        if len({tuple(each.settings.items()) for each in best}) > 1:
            seen = "; ".join(f"{each.what} ({each.why})" for each in best[:5])
            raise NoGuess(f"{project.folder}: several things fit: {seen}; say which with --application")
        if found:
            return best[0], tuple(each for each in found if each.settings != best[0].settings)
    raise NoGuess(f"{project.folder}: {_nothing(project)}")


def _nothing(project: Project) -> str:
    remedy = "say what serves it with --application, such as blog.wsgi:application"
    if project.unreadable:
        return f"{project.unreadable[0]} is not Python that parses here, and nothing else fits; {remedy}"
    if not project.sources:
        return f"there is no Python file; name the folder of the project, or {remedy}"
    kinds = "Django, Paste, Moya, .wsgi, Flask, FastAPI, Starlette, Bottle or plain WSGI"
    return f"nothing in {len(project.sources)} Python files looks like {kinds}; {remedy}"


# The kinds


def _django(project: Project) -> Iterator[Guess]:
    for name, tree in project.sources.items():
        if os.path.basename(name) != "manage.py":
            continue
        for line, settings in _settings_modules(tree):
            root = os.path.dirname(name)
            yield _django_project(project, root, settings, f"{name}:{line} names the settings {settings}")


def _django_project(project: Project, root: str, settings: str, why: str) -> Guess:
    package = settings.split(".", maxsplit=1)[0]
    location = os.path.join(project.folder, root).rstrip("/")
    rank = root.count(os.sep) + bool(root)
    for kind, prefix in (("wsgi", ""), ("asgi", "asgi:")):
        tree = project.sources.get(os.path.join(root, package, f"{kind}.py"))
        if tree and "application" in _bound(tree):
            return Guess("Django", why, _service(location, f"{prefix}{package}.{kind}:application"), rank)
    return Guess("Django", why, _service(location, f"django:{settings}"), rank)


def _settings_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Find ``os.environ.setdefault("DJANGO_SETTINGS_MODULE", "blog.settings")`` and its like."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) == 2:
            words = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if len(words) == 2 and words[0] == "DJANGO_SETTINGS_MODULE" and isinstance(words[1], str):
                yield node.lineno, words[1]


def _paste(project: Project) -> Iterator[Guess]:
    for name, sections in project.inis.items():
        main = next((section for section in PASTE if section in sections), None)
        if main:
            uses = sections[main].get("use", "")
            framework = "Pyramid" if any(key.startswith("pyramid.") for key in sections[main]) else "Paste"
            why = f"{name} has [{main}]" + (f" with use = {uses}" if uses else "")
            yield Guess(framework, why, _service(project.folder, f"paste:{name}"), _rank(name, PREFERRED_INI))


def _moya(project: Project) -> Iterator[Guess]:
    for name, sections in project.inis.items():
        if "startup" in sections.get("project", {}) and "location" in sections["project"]:
            settings = {"location": project.folder, "ini": name}
            why = f"{name} has [project] with location and startup"
            yield Guess("Moya", why, settings, _rank(name, ("production.ini", "settings.ini")))


def _wsgi_files(project: Project) -> Iterator[Guess]:
    for name, tree in project.sources.items():
        if name.endswith(".wsgi") and "application" in _bound(tree):
            why = f"{name} defines application"
            yield Guess("WSGI", why, _service(project.folder, name), name.count(os.sep))


def _entry_modules(project: Project) -> Iterator[Guess]:
    """Modules that are called wsgi or asgi are there to be served, whatever they import."""
    for name, tree in project.sources.items():
        kind = os.path.basename(name).removesuffix(".py")
        served = next((word for word in ("application", "app") if word in _bound(tree)), None)
        if kind in ("wsgi", "asgi") and served:
            location, module = _importable(project, name)
            prefix = "asgi:" if kind == "asgi" else ""
            framework = next((found for found, _ in _frameworks(tree)), kind.upper())
            settings = _service(location, f"{prefix}{module}:{served}")
            yield Guess(framework, f"{name} defines {served}", settings, 2 * name.count(os.sep) + (kind == "asgi"))


def _objects(project: Project) -> Iterator[Guess]:
    """``app = Flask(__name__)`` at the top of a module."""
    for name, tree in project.sources.items():
        classes = _imported(tree)
        for node in tree.body:
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            found = classes.get(_callee(value))
            for target in _targets(node) if found else ():
                assert found
                framework, prefix = found
                location, module = _importable(project, name)
                why = f"{name}:{node.lineno} has {target} = {framework}(…)"
                yield Guess(framework, why, _service(location, f"{prefix}{module}:{target}"), _place(name))


def _factories(project: Project) -> Iterator[Guess]:
    """``def create_app():`` that needs no arguments and makes an application."""
    for name, tree in project.sources.items():
        classes = _imported(tree)
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef) or _needs_arguments(node.args):
                continue
            made = [found for call in ast.walk(node) if (found := classes.get(_callee(call)))]
            if made and (node.name in FACTORIES or any(isinstance(each, ast.Return) for each in ast.walk(node))):
                framework, prefix = made[0]
                location, module = _importable(project, name)
                why = f"{name}:{node.lineno} has {node.name}(), which makes a {framework}"
                rank = 2 * _place(name) + (node.name not in FACTORIES)
                yield Guess(framework, why, _service(location, f"{prefix}{module}:{node.name}()"), rank)


def _bottle_default(project: Project) -> Iterator[Guess]:
    """``@route("/")`` of bottle itself adds to one application that the interpreter has for all."""
    for name, tree in project.sources.items():
        bottle = _bottle_name(tree)
        if bottle is not None and any(
            _is_route(each, bottle) for node in tree.body for each in getattr(node, "decorator_list", ())
        ):
            location, module = _importable(project, name)
            settings = {**_service(location, f"{module}:{bottle}default_app()"), "mode": "spawned"}
            note = "Bottle's default application is one for the whole interpreter, so no other site may share it."
            yield Guess("Bottle", f"{name} has routes of Bottle's default application", settings, _place(name), (note,))


def _plain(project: Project) -> Iterator[Guess]:
    """``def application(environ, start_response):`` (PEP 3333)."""
    for name, tree in project.sources.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and [each.arg for each in node.args.args] == [
                "environ",
                "start_response",
            ]:
                location, module = _importable(project, name)
                why = f"{name}:{node.lineno} has {node.name}(environ, start_response)"
                usual = node.name not in ("application", "app")
                yield Guess("WSGI", why, _service(location, f"{module}:{node.name}"), 2 * _place(name) + usual)


_FINDERS: tuple[Callable[[Project], Iterable[Guess]], ...] = (
    _django,
    _paste,
    _moya,
    _wsgi_files,
    _entry_modules,
    _objects,
    _factories,
    _bottle_default,
    _plain,
)


# What a syntax tree says


def _service(location: str, application: str) -> dict[str, str]:
    return {"location": location, "application": application}


def _importable(project: Project, name: str) -> tuple[str, str]:
    """Return the folder to import from, and the module that the file is from there: packages have an __init__.py."""
    folder, file = os.path.split(name)
    parts = [] if file == "__init__.py" else [file.removesuffix(".py")]
    while folder and os.path.join(folder, "__init__.py") in project.sources:
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    return os.path.join(project.folder, folder).rstrip("/"), ".".join(parts)


def _place(name: str) -> int:
    """Rank a file by how usual it is to hold the application: its depth, then its name."""
    stem = os.path.basename(name).removesuffix(".py")
    return 10 * name.count(os.sep) + _rank(stem, USUAL)


def _rank(name: str, usual: tuple[str, ...]) -> int:
    return usual.index(name) if name in usual else len(usual)


def _bound(tree: ast.Module) -> set[str]:
    """Return the names that a module binds at its top."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        else:
            names |= set(_targets(node))
    return names


def _targets(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _imported(tree: ast.Module) -> dict[str, tuple[str, str]]:
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


def _frameworks(tree: ast.Module) -> Iterator[tuple[str, str]]:
    classes = _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (found := classes.get(_callee(node))):
            yield found


def _callee(node: ast.AST | None) -> str:
    """Return the dotted name of what a call calls, "" for anything else."""
    function = node.func if isinstance(node, ast.Call) else None
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.insert(0, function.attr)
        function = function.value
    return ".".join([function.id, *parts]) if isinstance(function, ast.Name) else ""


def _needs_arguments(arguments: ast.arguments) -> bool:
    without = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return without > 0 or any(default is None for default in arguments.kw_defaults)


def _bottle_name(tree: ast.Module) -> str | None:
    """Return what stands before ``default_app`` in a module that has bottle's: ``bottle.`` or nothing; else None."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "bottle":
                    return f"{alias.asname or alias.name}."
        own = {alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias) and not alias.asname}
        if isinstance(node, ast.ImportFrom) and node.module == "bottle" and own & {"*", "default_app"}:
            return ""
    return None


def _is_route(decorator: ast.expr, bottle: str) -> bool:
    verbs = ("route", "get", "post", "put", "delete", "patch", "view")
    return _callee(decorator) in {f"{bottle}{verb}" for verb in verbs}
