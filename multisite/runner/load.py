"""From the job to the site's app, by Python's own import: the location first, then the interpreter's own path."""

from __future__ import annotations

import importlib
import os
import sys
from time import time

from .job import Job, Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

RACY = 3.0  # seconds
DJANGO = "DJANGO_SETTINGS_MODULE"


class NotLoaded(Exception):
    """There is no such app; one sentence says why and what to do."""


def prefer(location: str) -> None:
    """Import from the site's location before anything else."""
    if location and location not in sys.path:
        sys.path.insert(0, location)


def load(job: Job) -> Any:
    """The app of the job. Whatever the site's code raises comes out unchanged.

    Raises:
        NotLoaded: what the job names is not there.
    """
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = writes or _is_just_written(job.location)
    try:
        app = _by_kind(job, job.spec)
    finally:
        sys.dont_write_bytecode = writes
    if not callable(app):
        raise NotLoaded(f"{_name(job.spec)} is of type {type(app).__name__}, which cannot be called")
    return app


def _is_just_written(location: str) -> bool:
    """Whether a source is so new that a .pyc made now could outlive its next edit: it knows whole seconds only."""
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
        return _paste(os.path.join(job.location, spec.target), spec.attribute)
    if spec.kind == "moya":
        return _moya(job)
    raise NotLoaded(f"an application of the kind {spec.kind!r} cannot run in a process of its own; name its callable")


def _code(job: Job, spec: Spec) -> Any:
    if spec.kind == "file" or _is_path(spec.target):
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
    from . import plugins

    point = plugins.find(spec.target)
    if point is None:
        raise NotLoaded(
            f"there is neither a module nor a loader named {spec.target!r} in {sys.prefix}; install what has it there, "
            "or write application = like blog.wsgi:application"
        )
    return plugins.load(point, job.site)


def _is_path(target: str) -> bool:
    return "/" in target or target.endswith((".py", ".wsgi"))


def _name(spec: Spec) -> str:
    return ":".join(filter(None, (spec.target, spec.attribute))) or "the application"


def _import_file(path: str, site: str) -> ModuleType:
    """Execute a Python file of any suffix; the module is known before it runs, as Flask and dataclasses need it."""
    from importlib.machinery import ModuleSpec, SourceFileLoader

    from .modulename import unique_name

    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise NotLoaded(f"there is no file {path}; a relative path starts at the site's location")
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
            raise NotLoaded(f"{spec.target} has no {_attribute(module, spec)!r}") from None
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


def _paste(path: str, name: str) -> Any:
    return importlib.import_module("paste.deploy").loadapp(f"config:{os.path.abspath(path)}", name=name or None)


def _moya(job: Job) -> Any:
    """As Moya's own service does it (`moya.multiwsgi.Server.build`, release 0.6.20)."""
    master = importlib.import_module("moya.settings").SettingsContainer()
    for section, values in job.overlay.items():
        for key, value in values.items():
            master.set(section, key, value)
    files = job.ini or ["production.ini"]
    application = importlib.import_module("moya.wsgi").WSGIApplication
    return application(job.location, files, disable_autoreload=True, logging=None, master_settings=master)
