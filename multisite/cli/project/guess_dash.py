"""Dash, which is served by the Flask application within it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from multisite.cli.project.project import Guess, Project, importable, place, service
from multisite.cli.project.syntax import called, callee, targets

NOTE = "A Dash object is no WSGI application itself; the Flask application in it is."


def dashboards(project: Project) -> Iterator[Guess]:
    """``app = Dash(__name__)`` at the top of a module, and the name that its server has there."""
    for name, tree in project.sources.items():
        classes = called(tree, "dash", "Dash")
        for node in tree.body:
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if isinstance(value, ast.Call) and callee(value) in classes and targets(node):
                app = targets(node)[0]
                location, module = importable(project, name)
                why = f"{name}:{node.lineno} has {app} = Dash(…)"
                settings = service(location, f"{module}:{_server(tree, app, value)}")
                yield Guess("Dash", why, settings, place(name), (NOTE,))


def _server(tree: ast.Module, app: str, made: ast.Call) -> str:
    """Return how the Flask application is called: given to Dash, named beside it, or an attribute."""
    for keyword in made.keywords:
        if keyword.arg == "server" and isinstance(keyword.value, ast.Name):
            return keyword.value.id
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == f"{app}.server" and targets(node):
            return targets(node)[0]
    return f"{app}.server"
