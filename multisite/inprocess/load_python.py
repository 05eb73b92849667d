"""``module:callable`` and ``path/to/file.wsgi:callable``, factories included."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

from multisite.config.application import AppSpec
from multisite.inprocess.importer import Importer
from multisite.inprocess.load_reasons import NotLoaded, name_remedy


def load_module(spec: AppSpec, importer: Importer) -> object:
    """The app of a dotted module."""
    return find_app(importer.module(spec.target), spec)


def load_file(spec: AppSpec, location: str, importer: Importer) -> object:
    """The app of a file; a relative path starts at the site's location."""
    return find_app(importer.file(existing_file(location, spec.target)), spec)


def existing_file(location: str, target: str) -> str:
    """The absolute path of a file that a site names.

    Raises:
        NotLoaded: there is no such file, or it is no regular file.
    """
    path = os.path.join(location, target)
    if os.path.isfile(path):
        return os.path.abspath(path)
    if os.path.exists(path):
        raise NotLoaded(f"{path} is no regular file", "name a file of Python source")
    raise NotLoaded(f"there is no file {path}", _similar_file(path) or "a relative path starts at the site's location")


def _similar_file(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        return name_remedy(name, (each for each in os.listdir(folder) if each.endswith((".py", ".wsgi", ".ini"))))
    except OSError:
        return ""


def find_app(module: ModuleType, spec: AppSpec) -> object:
    """What the spec names in the module, called if it is a factory."""
    value = _attribute(module, spec)
    if spec.call is None:
        return value
    if not callable(value):
        raise NotLoaded(f"{spec.attribute!r} is {a(value)}, so it cannot be called", "leave the parentheses out")
    return value(*spec.call.args, **spec.call.kwargs)


def _attribute(module: ModuleType, spec: AppSpec) -> Any:
    for name in spec.candidates[:-1]:
        if hasattr(module, name):
            return getattr(module, name)
    value: Any = module
    for name in spec.candidates[-1].split("."):
        value = _get(value, name, spec)
    return value


def _get(holder: Any, name: str, spec: AppSpec) -> Any:
    """`getattr`; what a property of the site raises is the site's error, and not a missing name."""
    try:
        return getattr(holder, name)
    except AttributeError as error:
        if error.name != name or error.obj is not holder:
            raise
        wanted = " or ".join(map(repr, spec.candidates)) if isinstance(holder, ModuleType) else repr(name)
        where = spec.target if isinstance(holder, ModuleType) else a(holder)
        raise NotLoaded(f"{where} has no {wanted}", name_remedy(name, _callables(holder))) from error


def _callables(holder: Any) -> list[str]:
    """The public callables of a module or object, those of its own first choice."""
    public = {name: value for name, value in getattr(holder, "__dict__", {}).items() if not name.startswith("_")}
    own = [name for name, value in public.items() if callable(value) and not _is_imported_class(value, holder)]
    return own or [name for name, value in public.items() if callable(value)]


def _is_imported_class(value: Any, holder: Any) -> bool:
    """A class or function of another module (``Flask``) is hardly the app."""
    name = getattr(holder, "__name__", None)
    return hasattr(value, "__qualname__") and getattr(value, "__module__", name) != name


def a(value: object) -> str:
    """``a Flask``, ``None``, ``the module 'os'``: what a value is, for a sentence."""
    if value is None:
        return "None"
    if isinstance(value, ModuleType):
        return f"the module {value.__name__!r}"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
