"""CherryPy and web.py, whose objects make the WSGI application."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from multisite.cli.project.guess_scripts import cherrypy_script
from multisite.cli.project.project import Guess, Project, importable, place, service
from multisite.cli.project.syntax import called, callee, targets


def webpy(project: Project) -> Iterator[Guess]:
    """``app = web.application(urls, globals())``, of which ``app.wsgifunc()`` makes the WSGI application."""
    for name, tree in project.sources.items():
        made = called(tree, "web", "application")
        for node in tree.body:
            if isinstance(node, ast.Assign) and callee(node.value) in made and targets(node):
                app = targets(node)[0]
                location, module = importable(project, name)
                served = _assigned(tree, f"{app}.wsgifunc") or f"{app}.wsgifunc()"
                why = f"{name}:{node.lineno} has {app} = web.application(…)"
                yield Guess("web.py", why, service(location, f"{module}:{served}"), place(name))


def _assigned(tree: ast.Module, function: str) -> str:
    """Return the name that a call of `function` is bound to at the top, "" for none."""
    calls = (node for node in tree.body if isinstance(node, ast.Assign) and callee(node.value) == function)
    return next((target for node in calls for target in targets(node)), "")


def cherrypy(project: Project) -> Iterator[Guess]:
    """An application that is mounted or made; a script that brings its server is run as one, on another port."""
    for name, tree in project.sources.items():
        made = called(tree, "cherrypy", "Application") | called(tree, "cherrypy", "tree.mount")
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.Expr) and callee(node.value) in made:
                location, module = importable(project, name)
                what = callee(node.value)
                tree_ = what.removesuffix(".mount") if what.endswith(".tree.mount") else ""
                served = next(iter(targets(node)), tree_)
                if served:
                    why = f"{name}:{node.lineno} has {what}(…)"
                    yield Guess("CherryPy", why, service(location, f"{module}:{served}"), place(name))
                    break
        else:
            yield from cherrypy_script(project, name, tree)
