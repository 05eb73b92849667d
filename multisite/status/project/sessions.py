"""Where a site keeps its sessions, as far as its files show it: memory is wrong if there are several processes.

The text is read, never imported. A value that a file computes is unknown here and is not reported.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator

from multisite.config.model import Site
from multisite.errors import Problem
from multisite.status.project.scan import parse, read, source_files

#: a file without any of these does not configure sessions
_WORDS = re.compile(r"SESSION_ENGINE|SimpleCache|session\.type|tools\.sessions")
_CACHED = ("django.contrib.sessions.backends.cache",)
_LOCAL = ("locmem.LocMemCache", "dummy.DummyCache")
_INI = re.compile(
    r"^[ \t]*(?:(?:beaker\.)?session\.type[ \t]*=[ \t]*memory|tools\.sessions\.on[ \t]*[=:][ \t]*True)[ \t]*$", re.M
)
_STORED = re.compile(r"tools\.sessions\.storage_(?:type|class)")


def problem(site: Site, processes: int) -> Problem | None:
    """Return a warning if `site` keeps sessions in the memory of each of its `processes`."""
    seen = in_memory(site.location) if site.location and processes > 1 else ""
    if not seen:
        return None
    return Problem(
        "MS814",
        site.file,
        f"sessions are kept in memory ({seen}), so each of the {processes} processes has its own",
        "service",
        "processes",
        str(processes),
        "keep them in Redis, memcached, a database or signed cookies, or use one process",
        severity="warning",
    )


def in_memory(folder: str) -> str:
    """Return the place in the files of `folder` that keeps sessions in memory, "" if there is none."""
    return next((found for path in source_files(folder) for found in _seen(path, os.path.relpath(path, folder))), "")


def _seen(path: str, name: str) -> Iterator[str]:
    text = read(path)
    if not _WORDS.search(text):
        return
    tree = None if name.endswith(".ini") else parse(text)
    if tree is None:
        found = _INI.search(text)
        if found and not _STORED.search(text):
            yield f"{name}:{text.count(chr(10), 0, found.end()) + 1}: {found[0].strip()}"
    else:
        yield from (f"{name}:{line}: {what}" for line, what in (*_django(tree), *_simple_cache(tree), *_settings(tree)))


def _django(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Find Django's sessions in its cache, which is in the process's memory unless CACHES names another place."""
    values = {
        target.id: node
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    engine = values.get("SESSION_ENGINE")
    if not engine or _literal(engine.value) not in _CACHED:
        return
    caches = values.get("CACHES")
    if not caches and any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in tree.body):
        return  # CACHES may come from there
    alias = values.get("SESSION_CACHE_ALIAS")
    name = _literal(alias.value) if alias else "default"
    backend = _backend(caches.value, name) if caches else _LOCAL[0]
    if backend.endswith(_LOCAL):
        yield engine.lineno, f"SESSION_ENGINE is the cache, which is {backend.rpartition('.')[2]}"


def _backend(caches: ast.expr, name: object) -> str:
    """Return the BACKEND of one of the caches; "" if the text does not have it."""
    for key, value in _items(caches):
        if key == name:
            return next((str(_literal(each)) for inner, each in _items(value) if inner == "BACKEND"), "")
    return ""


def _simple_cache(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Find Flask-Session with cachelib's SimpleCache, which is a dictionary."""
    for node in ast.walk(tree):
        pairs: list[tuple[object, ast.expr]] = []
        if isinstance(node, ast.Assign):
            pairs = [(_key(target), node.value) for target in node.targets]
        elif isinstance(node, ast.keyword):
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.Dict):
            pairs = list(_items(node))
        for key, value in pairs:
            if key == "SESSION_CACHELIB" and isinstance(value, ast.Call) and _last_name(value.func) == "SimpleCache":
                yield value.lineno, "SESSION_CACHELIB = SimpleCache(…)"


def _settings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Find dictionaries of settings: Beaker's with memory, and CherryPy's, whose sessions are in memory by default."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Dict):
            continue
        words = {key: _literal(value) for key, value in _items(node)}
        for key in ("session.type", "beaker.session.type"):
            if words.get(key) == "memory":
                yield node.lineno, f"{key} = memory"
        stored = words.get("tools.sessions.storage_type", "ram") != "ram" or "tools.sessions.storage_class" in words
        if words.get("tools.sessions.on") is True and not stored:
            yield node.lineno, "tools.sessions.on, kept in RAM by default"


def _key(target: ast.expr) -> object:
    """Return the target of an assignment: a name, an attribute, or the literal key of ``config["…"]``."""
    return _literal(target.slice) if isinstance(target, ast.Subscript) else _last_name(target)


def _last_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _items(node: ast.expr) -> list[tuple[object, ast.expr]]:
    if not isinstance(node, ast.Dict):
        return []
    return [(_literal(key), value) for key, value in zip(node.keys, node.values, strict=True) if key]


def _literal(node: ast.expr) -> object:
    return node.value if isinstance(node, ast.Constant) else None
