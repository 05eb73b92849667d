"""From the job to the site's app, by Python's own import: the location first, then the interpreter's own path.

The workers, who load sites as well, take from here how a site's module is called, and when no .pyc of it may be made.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from time import time
from types import SimpleNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from .job import Job, Spec

RACY = 3.0  # seconds
DJANGO = "DJANGO_SETTINGS_MODULE"
GROUP = "multisite.loaders"
_IS_COROUTINE = 0x80 | 0x100  # inspect.CO_COROUTINE, inspect.CO_ITERABLE_COROUTINE
_ASGI_PARAMETERS = (("scope",), ("scope", "receive", "send"))


class NoSuchApp(Exception):
    """There is no such app; one sentence says why and what to do."""


def load(job: Job) -> Any:
    """The app of the job. Whatever the site's code raises comes out unchanged.

    Raises:
        NotLoaded: what the job names is not there.
    """
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = writes or is_just_written(job.location)
    try:
        app = _by_kind(job, job.spec)
    finally:
        sys.dont_write_bytecode = writes
    if not callable(app):
        name = ":".join(filter(None, (job.spec.target, job.spec.attribute))) or "the application"
        raise NoSuchApp(f"{name} is of type {type(app).__name__}, which cannot be called")
    return app


def is_just_written(location: str) -> bool:
    """Whether a source in there is so new that a .pyc made now could outlive its next edit: it knows whole seconds."""
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
        return _find_app(_code(job, spec), spec)
    if spec.kind in ("module", "plugin"):
        return _module_or_plugin(job, spec)
    if spec.kind == "django":
        return _django(spec.target, job.worker == "asgi")
    if spec.kind == "paste":
        path = os.path.abspath(os.path.join(job.location, spec.target))
        return importlib.import_module("paste.deploy").loadapp(f"config:{path}", name=spec.attribute or None)
    if spec.kind == "moya":
        return _moya(job)
    raise NoSuchApp(f"an application of the kind {spec.kind!r} cannot run in a process of its own; name its callable")


def _code(job: Job, spec: Spec) -> Any:
    if spec.kind == "file" or "/" in spec.target or spec.target.endswith((".py", ".wsgi")):
        return _import_file(os.path.join(job.location, spec.target), job.name)
    return importlib.import_module(spec.target)


def _module_or_plugin(job: Job, spec: Spec) -> Any:
    """``name`` and ``name:rest`` may be a plugin's too; it is asked when there is no such module."""
    try:
        if spec.kind == "module":
            return _find_app(importlib.import_module(spec.target), spec)
    except ModuleNotFoundError as error:
        if error.name != spec.target or "." in spec.target:
            raise
    return _plugin(spec.target, job.site)


def _plugin(name: str, site: dict[str, Any]) -> Any:
    """The app that the loader of another package makes: an entry point, as the site's own interpreter has it.

    A loader is called with what follows the first colon and with the site. Our package is not here, so the site is an
    object with the attributes of `multisite.model.Site` and none of its methods.
    """
    from importlib import metadata

    points: Any
    if sys.version_info >= (3, 10):
        points = metadata.entry_points(group=GROUP)
    else:
        points = metadata.entry_points().get(GROUP, ())
    point = next((point for point in points if point.name == name), None)
    if point is None:
        raise NoSuchApp(
            f"there is neither a module nor a loader named {name!r} in {sys.prefix}; install what has it there, "
            "or write application = like blog.wsgi:application"
        )
    rest = site["application"].partition(":")[2].strip()
    attributes = {key: tuple(value) if isinstance(value, list) else value for key, value in site.items()}
    return point.load()(rest, SimpleNamespace(**attributes))


def _import_file(path: str, site: str) -> ModuleType:
    """Execute a Python file of any suffix; the module is known before it runs, as Flask and dataclasses need it."""
    from importlib.machinery import ModuleSpec, SourceFileLoader

    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise NoSuchApp(f"there is no file {path}; a relative path starts at the site's location")
    name = unique_name(site, path)
    loader = SourceFileLoader(name, path)
    module = type(sys)(name)
    module.__file__ = path
    module.__loader__ = loader
    module.__spec__ = ModuleSpec(name, loader, origin=path)
    sys.modules[name] = module
    # blog.wsgi and blog.py would share one .pyc.
    code = loader.get_code(name) if path.endswith(".py") else loader.source_to_code(loader.get_data(path), path)
    exec(code or "", module.__dict__)
    return sys.modules.get(name, module)


def _find_app(module: ModuleType, spec: Spec) -> Any:
    """What the spec names in the module, called if it is a factory."""
    value: Any = module
    for name in _attribute(module, spec).split("."):
        try:
            value = getattr(value, name)
        except AttributeError as error:
            if getattr(error, "name", name) != name or getattr(error, "obj", value) is not value:
                raise  # of the site's own code, in a property (told apart from Python 3.10 on)
            raise NoSuchApp(f"{spec.target} has no {_attribute(module, spec)!r}") from None
    return value(*spec.args, **spec.kwargs) if spec.is_call else value


def _attribute(module: ModuleType, spec: Spec) -> str:
    if spec.attribute:
        return spec.attribute
    is_app = spec.target.endswith(".py") and not hasattr(module, "application") and hasattr(module, "app")
    return "app" if is_app else "application"


def _django(settings: str, is_asgi: bool) -> Any:
    os.environ[DJANGO] = settings
    importlib.import_module(settings)
    kind = "asgi" if is_asgi else "wsgi"
    return getattr(importlib.import_module(f"django.core.{kind}"), f"get_{kind}_application")()


def _moya(job: Job) -> Any:
    """As Moya's own service does it (`moya.multiwsgi.Server.build`, release 0.6.20)."""
    master = importlib.import_module("moya.settings").SettingsContainer()
    for section, values in job.overlay.items():
        for key, value in values.items():
            master.set(section, key, value)
    files = job.ini or ["production.ini"]
    application = importlib.import_module("moya.wsgi").WSGIApplication
    return application(job.location, files, disable_autoreload=True, logging=None, master_settings=master)


def is_asgi(app: Any) -> bool:
    """Whether `app` is an ASGI application: it makes a coroutine, or takes what ASGI gives.

    `inprocess.loader` tells it by `inspect`, which takes 10 ms to import.
    """
    while hasattr(app, "func") and hasattr(app, "keywords"):  # functools.partial
        app = app.func
    if not callable(app):
        return False
    function, is_bound = _function(app)
    code = getattr(function, "__code__", None)
    if code is None:  # compiled
        import inspect

        return inspect.iscoroutinefunction(function)
    names = code.co_varnames[int(is_bound) : code.co_argcount]
    return bool(code.co_flags & _IS_COROUTINE) or names in _ASGI_PARAMETERS


def _function(app: Any) -> tuple[Any, bool]:
    """The Python function that a call runs, and whether its first parameter is already taken."""
    if isinstance(app, type):
        return app.__init__, True  # type: ignore[misc]
    if hasattr(app, "__code__"):
        return app, False
    function = getattr(app, "__func__", None) or type(app).__call__
    return function, True


def unique_name(site_name: str, path: str) -> str:
    """The module name of a site's file: one identifier, and no two sites share one.

    Anything but ASCII letters and digits is written as ``_`` and two hexadecimal digits per byte,
    so the ``__`` in the middle can come from neither side.
    """
    stem = os.path.splitext(os.path.basename(path))[0]
    return f"_multisite_site_{_identifier(site_name)}__{_identifier(stem)}"


def _identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", lambda match: "".join(f"_{byte:02x}" for byte in os.fsencode(match[0])), text)
