"""Bottle, whose routes may belong to an application that nobody has made."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from multisite.cli.project.project import Guess, Project, importable, place, service
from multisite.cli.project.syntax import callee


def default_app(project: Project) -> Iterator[Guess]:
    """``@route("/")`` of bottle itself adds to one application that the interpreter has for all."""
    for name, tree in project.sources.items():
        bottle = _bottle_name(tree)
        if bottle is not None and any(
            _is_route(each, bottle) for node in tree.body for each in getattr(node, "decorator_list", ())
        ):
            location, module = importable(project, name)
            settings = {**service(location, f"{module}:{bottle}default_app()"), "mode": "spawned"}
            note = "Bottle's default application is one for the whole interpreter, so no other site may share it."
            yield Guess("Bottle", f"{name} has routes of Bottle's default application", settings, place(name), (note,))


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
    return callee(decorator) in {f"{bottle}{verb}" for verb in verbs}
