"""From the job to the site's app, by Python's own import: the location first, then the interpreter's own path.

The workers, which import sites in their own way, use the rules for what an application is and how a site names it.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from functools import partial
from time import time
from types import SimpleNamespace

from .missing import NoSuchApp, name_remedy, no_file, no_loader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType
    from typing import Any

    from .job import Job, Spec

RACY = 3.0  # seconds
DJANGO = "DJANGO_SETTINGS_MODULE"
DEFAULT_INI = ("production.ini",)
GROUP = "multisite.loaders"
_IS_COROUTINE = 0x80 | 0x100  # inspect.CO_COROUTINE, inspect.CO_ITERABLE_COROUTINE
_ASGI_PARAMETERS = (("scope",), ("scope", "receive", "send"))


def load(job: Job) -> Any:
    """Return the app of the job. What the site's code raises is not changed.

    Raises:
        NoSuchApp: what the job names is not there.
    """
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = writes or is_just_written(job.location)
    try:
        app = _by_kind(job, job.spec)
    finally:
        sys.dont_write_bytecode = writes
    if not callable(app):
        name = ":".join(filter(None, (job.spec.target, job.spec.attribute))) or "the application"
        raise NoSuchApp(f"{name} is {a(app)}, which cannot be called")
    return app


def is_just_written(location: str) -> bool:
    """Tell whether a source is so new that a .pyc made now could outlive its next edit: a .pyc knows whole seconds."""
    newest = 0.0
    try:
        for entry in os.scandir(location or "."):
            if entry.is_dir() and entry.name.isidentifier():
                newest = max([newest, *(inner.stat().st_mtime for inner in os.scandir(entry.path))])
            newest = max(newest, entry.stat().st_mtime)
    except OSError:
        pass
    return time() - newest < RACY


def _by_kind(job: Job, spec: Spec) -> Any:
    if spec.kind in ("file", "asgi"):
        return find_app(_code(job, spec), spec.target, spec.candidates, spec.call)
    if spec.kind in ("module", "plugin"):
        return _module_or_plugin(job, spec)
    if spec.kind == "django":
        return _django(spec.target, job.worker == "asgi")
    if spec.kind == "paste":
        path = os.path.abspath(os.path.join(job.location, spec.target))
        return importlib.import_module("paste.deploy").loadapp(f"config:{path}", name=spec.attribute or None)
    if spec.kind == "moya":
        return moya(job.location, job.ini, job.overlay)
    raise NoSuchApp(f"an application of the kind {spec.kind!r} cannot run in its own process; name its callable")


def _code(job: Job, spec: Spec) -> Any:
    if spec.kind == "file" or "/" in spec.target or spec.target.endswith((".py", ".wsgi")):
        path = existing_file(job.location, spec.target, job.name)
        return import_file(path, unique_name(job.name, path))
    return importlib.import_module(spec.target)


def _module_or_plugin(job: Job, spec: Spec) -> Any:
    """``name`` and ``name:rest`` may be a plugin's too; it is asked when there is no such module."""
    try:
        if spec.kind == "module":
            return find_app(importlib.import_module(spec.target), spec.target, spec.candidates, spec.call)
    except ModuleNotFoundError as error:
        if error.name != spec.target or "." in spec.target or not _loader(spec.target):
            raise
    return _plugin(spec.target, job.site)


def _plugin(name: str, site: dict[str, Any]) -> Any:
    """Return the app that the loader of another package makes: an entry point in the site's own interpreter.

    A loader is called with what follows the first colon and with the site. Our package is not here, so the site is an
    object with the attributes of `multisite.model.Site` and none of its methods.
    """
    point = _loader(name)
    if point is None:
        raise no_loader(site["name"], name, sys.executable)
    rest = site["application"].partition(":")[2].strip()
    attributes = {key: tuple(value) if isinstance(value, list) else value for key, value in site.items()}
    return point.load()(rest, SimpleNamespace(**attributes))


def _loader(name: str) -> Any:
    """The entry point of a loader, None where no package has one of that name."""
    from importlib import metadata

    points: Any
    if sys.version_info >= (3, 10):
        points = metadata.entry_points(group=GROUP)
    else:
        points = metadata.entry_points().get(GROUP, ())
    return next((point for point in points if point.name == name), None)


def existing_file(location: str, target: str, site: str) -> str:
    """Return the absolute path of a file that the site `site` names.

    Raises:
        NoSuchApp: there is no such file, or it is not a regular file.
    """
    path = os.path.join(location, target)
    if os.path.isfile(path):
        return os.path.abspath(path)
    raise no_file(site, location, target)


def import_file(path: str, module_name: str, own_name: str = "") -> ModuleType:
    """Execute a Python file (of any suffix) as the module `module_name`.

    `own_name` is the module's own ``__name__``, if that differs. The module is in `sys.modules` before it runs (Flask
    and dataclasses look themselves up there); if it fails, the module that was there before is restored.

    Raises:
        OSError: the file cannot be read. And anything that its code raises.
    """
    from importlib.machinery import SourceFileLoader
    from importlib.util import module_from_spec, spec_from_file_location

    path, name = os.path.abspath(path), own_name or module_name
    loader = SourceFileLoader(name, path)
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = module_from_spec(spec)
    before = sys.modules.get(module_name)
    sys.modules[module_name] = module
    try:
        # blog.wsgi and blog.py would share one .pyc.
        code = loader.get_code(name) if path.endswith(".py") else loader.source_to_code(loader.get_data(path), path)
        exec(code or "", module.__dict__)
    except BaseException:
        if before is None:
            sys.modules.pop(module_name, None)
        else:
            sys.modules[module_name] = before
        raise
    return sys.modules.get(module_name, module)


def find_app(
    module: ModuleType,
    target: str,
    candidates: tuple[str, ...],
    call: tuple[tuple[Any, ...], dict[str, Any]] | None,
) -> Any:
    """Return what a site names in a module; a factory is called with these arguments.

    Args:
        module: that contains it.
        target: the site's name for that.
        candidates: the (dotted) names to look for, best first.
        call: the arguments; None if it is the app itself.

    Raises:
        NoSuchApp: it is not there, or cannot be called.
    """
    name = next((each for each in candidates[:-1] if hasattr(module, each)), candidates[-1])
    value: Any = module
    for part in name.split("."):
        try:
            value = getattr(value, part)
        except AttributeError as error:
            if getattr(error, "name", part) != part or getattr(error, "obj", value) is not value:
                raise  # of the site's own code, in a property (told apart from Python 3.10 on)
            is_module = isinstance(value, type(sys))
            wanted = " or ".join(map(repr, candidates)) if is_module else repr(part)
            where = target if is_module else a(value)
            raise NoSuchApp(f"{where} has no {wanted}", name_remedy(part, _callables(value))) from error
    if call is None:
        return value
    if not callable(value):
        raise NoSuchApp(f"{candidates[0]!r} is {a(value)}, so it cannot be called", "leave the parentheses out")
    return value(*call[0], **call[1])


def _callables(holder: Any) -> list[str]:
    """Return the public callables of a module or object, its own before imported ones."""
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
    if isinstance(value, type(sys)):
        return f"the module {value.__name__!r}"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _django(settings: str, is_asgi: bool) -> Any:
    os.environ[DJANGO] = settings
    importlib.import_module(settings)
    kind = "asgi" if is_asgi else "wsgi"
    return getattr(importlib.import_module(f"django.core.{kind}"), f"get_{kind}_application")()


def moya(location: str, ini: Sequence[str], overlay: Mapping[str, Mapping[str, str]]) -> Any:
    """Return the app of the Moya project in `location`, as Moya's own service makes it.

    That is `moya.multiwsgi.Server.build` (release 0.6.20).

    Args:
        location: the project's folder.
        ini: settings files, relative to it; the first that exists is used.
        overlay: sections laid over the project's settings, key by key.
    """
    master = importlib.import_module("moya.settings").SettingsContainer()
    for section, values in overlay.items():
        for key, value in values.items():
            master.set(section, key, value)
    application = importlib.import_module("moya.wsgi").WSGIApplication
    files = list(ini or DEFAULT_INI)
    return application(location, files, disable_autoreload=True, logging=None, master_settings=master)


def is_asgi(app: Any) -> bool:
    """Tell whether `app` is an ASGI application, of version 2 or 3 (asgiref, "Applications").

    A coroutine can never answer a WSGI server, so one is proof; otherwise the parameters are:
    ``(scope)`` and ``(scope, receive, send)`` cannot be called with (environ, start_response).
    """
    while isinstance(app, partial):
        app = app.func
    if not callable(app):
        return False
    function, is_bound = _function(app)
    code = getattr(function, "__code__", None)
    if code is None:  # compiled; `inspect` takes 10 ms to import
        import inspect

        return inspect.iscoroutinefunction(function)
    required = code.co_varnames[int(is_bound) : code.co_argcount - len(function.__defaults__ or ())]
    return bool(code.co_flags & _IS_COROUTINE) or required in _ASGI_PARAMETERS


def _function(app: Any) -> tuple[Any, bool]:
    """Return the Python function that a call runs, and whether its first parameter is already bound."""
    if isinstance(app, type):
        return app.__init__, True  # type: ignore[misc]
    if hasattr(app, "__func__"):
        return app.__func__, True
    return (app, False) if hasattr(app, "__code__") else (type(app).__call__, True)


def unique_name(site_name: str, path: str) -> str:
    """Return the module name of a site's file: one identifier, different for each site.

    Anything but ASCII letters and digits is written as ``_`` and two hexadecimal digits per byte,
    so the ``__`` in the middle can come from neither side.
    """
    stem = os.path.splitext(os.path.basename(path))[0]
    return f"_multisite_site_{_identifier(site_name)}__{_identifier(stem)}"


def _identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", lambda match: "".join(f"_{byte:02x}" for byte in os.fsencode(match[0])), text)
