"""Django: what ``manage.py`` names."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

from multisite.guess.project import Guess, Project, service
from multisite.guess.syntax import bound


def managed(project: Project) -> Iterator[Guess]:
    """Projects with a ``manage.py``."""
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
        if tree and "application" in bound(tree):
            return Guess("Django", why, service(location, f"{prefix}{package}.{kind}:application"), rank)
    return Guess("Django", why, service(location, f"django:{settings}"), rank)


def _settings_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Find ``os.environ.setdefault("DJANGO_SETTINGS_MODULE", "blog.settings")`` and its like."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) == 2:
            words = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if len(words) == 2 and words[0] == "DJANGO_SETTINGS_MODULE" and isinstance(words[1], str):
                yield node.lineno, words[1]
