"""Files that are there to be served, whatever they import."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

from multisite.cli.project.guess_django import makes_more
from multisite.cli.project.project import Guess, Project, importable, place, service
from multisite.cli.project.syntax import bound, frameworks

#: modules that are there to be served → what they are called to people
KINDS = {"wsgi": "WSGI", "passenger_wsgi": "Passenger", "asgi": "ASGI"}


def wsgi_files(project: Project) -> Iterator[Guess]:
    """Files that mod_wsgi would load."""
    for name, tree in project.sources.items():
        if name.endswith(".wsgi") and "application" in bound(tree):
            why = f"{name} defines application"
            yield Guess("WSGI", why, service(project.folder, name), name.count(os.sep))


def entry_modules(project: Project) -> Iterator[Guess]:
    """Modules that are called wsgi, passenger_wsgi or asgi are there to be served, whatever they import."""
    for name, tree in project.sources.items():
        kind = os.path.basename(name).removesuffix(".py")
        served = next((word for word in ("application", "app") if word in bound(tree)), None)
        if kind in KINDS and served:
            location, module = importable(project, name)
            prefix = "asgi:" if kind == "asgi" else ""
            framework = next((found for found, _ in frameworks(tree)), KINDS[kind])
            settings = service(location, f"{prefix}{module}:{served}")
            order = len(KINDS) * name.count(os.sep) + list(KINDS).index(kind)
            if kind == "asgi" and makes_more(tree):
                order -= len(KINDS)  # than what wsgi.py beside it can serve
            yield Guess(framework, f"{name} defines {served}", settings, order)


def plain(project: Project) -> Iterator[Guess]:
    """``def application(environ, start_response):`` (PEP 3333)."""
    for name, tree in project.sources.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and [each.arg for each in node.args.args] == [
                "environ",
                "start_response",
            ]:
                location, module = importable(project, name)
                why = f"{name}:{node.lineno} has {node.name}(environ, start_response)"
                usual = node.name not in ("application", "app")
                yield Guess("WSGI", why, service(location, f"{module}:{node.name}"), 2 * place(name) + usual)
