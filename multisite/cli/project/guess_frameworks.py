"""Applications that are made of a framework's class: at the top of a module, or by a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from multisite.cli.project.project import Guess, Project, importable, place, rank, service
from multisite.cli.project.syntax import callee, imported, needs_arguments, targets

NAMES = ("application", "app", "api", "server")
FACTORIES = ("create_app", "make_app", "create_application", "get_app", "main")


def objects(project: Project) -> Iterator[Guess]:
    """``app = Flask(__name__)`` at the top of a module."""
    for name, tree in project.sources.items():
        classes = imported(tree)
        for node in tree.body:
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            found = classes.get(callee(value))
            names = sorted(targets(node), key=lambda name: rank(name, NAMES))
            for target in names[:1] if found else ():  # of several names for one object the most usual
                assert found
                framework, prefix = found
                location, module = importable(project, name)
                why = f"{name}:{node.lineno} has {target} = {framework}(…)"
                yield Guess(framework, why, service(location, f"{prefix}{module}:{target}"), place(name))


def factories(project: Project) -> Iterator[Guess]:
    """``def create_app():`` that needs no arguments and makes an application."""
    for name, tree in project.sources.items():
        classes = imported(tree)
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef) or needs_arguments(node.args):
                continue
            made = [found for call in ast.walk(node) if (found := classes.get(callee(call)))]
            if made and (node.name in FACTORIES or any(isinstance(each, ast.Return) for each in ast.walk(node))):
                framework, prefix = made[0]
                location, module = importable(project, name)
                why = f"{name}:{node.lineno} has {node.name}(), which makes a {framework}"
                order = 2 * place(name) + (node.name not in FACTORIES)
                yield Guess(framework, why, service(location, f"{prefix}{module}:{node.name}()"), order)
