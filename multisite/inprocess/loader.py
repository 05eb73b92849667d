"""From a site to its app: the one place where a worker imports a site's code.

Every error in it, a ``sys.exit()`` included, becomes one `AppLoadError` with the original as its ``__cause__``: it
affects that site and never the worker.

Another package offers a loader as an entry point of the group ``multisite.loaders``::

    [options.entry_points]
    multisite.loaders =
        php = php_in_python:load

and it is called as::

    def load(rest: str, site: multisite.model.Site) -> Callable:
        '''Return the WSGI app; `rest` is what follows the first colon, "" if nothing does.'''

Our own forms win: a plugin is asked only for what is neither one of our prefixes nor a file nor a module that can be
found.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from multisite.config.application import AppSpec
from multisite.errors import AppLoadError, MultisiteError, NeedsProcess, Problem
from multisite.inprocess.importer import Importer, PlainImporter
from multisite.inprocess.tracebacks import explain, is_for_the_worker
from multisite.runner.load import (
    DEFAULT_INI,
    DJANGO,
    GROUP,
    a,
    existing_file,
    find_app,
    is_asgi,
    moya,
)
from multisite.runner.missing import NoSuchApp, name_remedy, no_loader
from multisite.sites.sharing import resolve

if TYPE_CHECKING:
    from importlib_metadata import EntryPoints

    from multisite.config.model import Site

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def load(site: Site, importer: Importer | None = None) -> App:
    """Import the site's app. Runs the site's code in this thread, in the current working directory and environment.

    Args:
        site: its ``application``, ``location``, ``ini`` and ``overlay`` say what to import.
        importer: where modules come from; by default Python's own import, with the location in `sys.path`.

    Raises:
        AppLoadError: anything is wrong with the site; the message names file, key, value, reason and remedy.
        NeedsProcess: there is an app that cannot run here: ASGI, or a second Django project.
    """
    try:
        return _checked(site, _load(site, importer))
    except MultisiteError:
        raise
    except NoSuchApp as error:
        raise _load_error(site, error) from error.__cause__
    except BaseException as error:
        if is_for_the_worker(error):
            raise
        raise _load_error(site, explain(error, site, resolve(site))) from error


def _load(site: Site, importer: Importer | None) -> object:
    if site.location and not os.path.isdir(site.location):
        raise NoSuchApp("there is no such directory", "restore it or correct the path", key="location")
    try:
        spec = resolve(site)
    except ValueError as error:
        raise NoSuchApp(str(error)) from None
    if spec.kind == "asgi":
        raise _is_asgi_error(site)
    importer = importer or PlainImporter.alone(site)
    match spec.kind:
        case "file":
            return _app_of(importer.file(existing_file(site.location, spec.target, site.name)), spec)
        case "paste":
            return _load_paste(spec, site)
        case "django":
            return _load_django(spec, importer)
        case "moya":
            return _load_moya(site.location, site.ini, site.overlay)
        case "plugin":
            return _load_plugin(spec.target, spec.attribute, site)
    return _module_or_plugin(spec, site, importer)


def _app_of(module: ModuleType, spec: AppSpec) -> object:
    call = (spec.call.args, spec.call.kwargs) if spec.call else None
    app: object = find_app(module, spec.target, spec.candidates, call)
    return app


def _module_or_plugin(spec: AppSpec, site: Site, importer: Importer) -> object:
    """``name`` and ``name:rest`` may be a plugin's too; it is asked when there is no such module."""
    try:
        return _app_of(importer.module(spec.target), spec)
    except ModuleNotFoundError as error:
        speakable = spec.target.isidentifier()  # of anything else it is not clear what was meant
        if error.name != spec.target or (speakable and spec.target not in plugins().names) or "." in spec.target:
            raise
    return _load_plugin(spec.target, site.application.partition(":")[2].strip(), site)


def _checked(site: Site, app: object) -> App:
    """Return the app, if a WSGI server can call it."""
    if not callable(app):
        raise NoSuchApp(f"it is {a(app)}, which cannot be called", "name the WSGI callable")
    if is_asgi(app):
        raise _is_asgi_error(site)
    if _refuses_wsgi(app):
        name = getattr(app, "__name__", "it")
        raise NoSuchApp(
            f"{name} cannot be called with (environ, start_response)",
            f"if it makes the application, write it with parentheses: {site.application.partition('(')[0]}()",
        )
    return app


def _is_asgi_error(site: Site) -> NeedsProcess:
    return NeedsProcess(f"{site.application} is an ASGI application; it runs in its own process")


def _load_error(site: Site, error: NoSuchApp) -> AppLoadError:
    value = getattr(site, error.key)
    return AppLoadError(
        str(Problem(AppLoadError.id, site.file, error.reason, "service", error.key, value, error.remedy))
    )


def _refuses_wsgi(app: object) -> bool:
    """Tell whether `app` is a plain function that does not accept (environ, start_response): probably a factory.

    A decorator's wrapper is judged by its own parameters, not by those of what it wraps
    (werkzeug's `Request.application` wraps a function of one).
    """
    if not inspect.isfunction(app):
        return False
    try:
        inspect.signature(app, follow_wrapped=False).bind(None, None)
    except TypeError:
        return True
    return False


def _load_paste(spec: AppSpec, site: Site) -> object:
    """The app of a PasteDeploy file (its ``[app:NAME]``, ``[pipeline:NAME]``, …; "main" without a name)."""
    path = existing_file(site.location, spec.target, site.name)
    try:
        from paste.deploy import loadapp
    except ModuleNotFoundError as error:
        raise NoSuchApp(
            "paste: needs the package PasteDeploy, which is not installed here", "pip install multisite-wsgi[paste]"
        ) from error
    app: object = loadapp(f"config:{path}", name=spec.attribute or None)
    return app


def _load_django(spec: AppSpec, importer: Importer) -> object:
    """The project's WSGI app.

    Raises:
        NeedsProcess: this interpreter already runs a Django project with other settings. Django keeps one
            for good, and would silently answer with the first.
    """
    try:
        from django.conf import settings
        from django.core.wsgi import get_wsgi_application
    except ModuleNotFoundError as error:
        raise NoSuchApp(
            "django: needs Django, which is not installed here",
            "pip install Django, or name the site's virtualenv with python =",
        ) from error
    running = getattr(settings, "SETTINGS_MODULE", "") if settings.configured else spec.target
    if running != spec.target:
        raise NeedsProcess(
            f"this interpreter already runs the Django project {running or 'configured by hand'!r}, and can run one"
        )
    with _settings(spec.target):
        importer.module(spec.target)
        app: object = get_wsgi_application()
    return app


@contextmanager
def _settings(module: str) -> Iterator[None]:
    """Set the settings in the environment, where Django looks them up once."""
    before = os.environ.get(DJANGO)
    os.environ[DJANGO] = module
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(DJANGO, None)
        else:
            os.environ[DJANGO] = before


def _load_moya(location: str, ini: Sequence[str], overlay: Mapping[str, Mapping[str, str]]) -> object:
    """The app of the Moya project in `location` (`runner.load.moya`)."""
    files = tuple(ini) or DEFAULT_INI
    if not any(os.path.isfile(os.path.join(location, file)) for file in files):
        raise NoSuchApp(
            f"there is no application, and no {' or '.join(files)} of a Moya project in {location or 'the location'}",
            "say which application with application = blog.wsgi:application",
        )
    try:
        import_module("moya.settings"), import_module("moya.wsgi")
    except ModuleNotFoundError as error:
        raise NoSuchApp(
            f"a Moya project needs the package {error.name}, which is not installed here",
            "pip install moya, or name the site's virtualenv with python =",
        ) from error
    except ImportError as error:
        raise NoSuchApp(
            f"the installed Moya cannot be imported by Python {sys.version_info[0]}.{sys.version_info[1]} ({error})",
            "name an interpreter that it supports with python = (Moya 0.6.20: 3.5 to 3.7)",
        ) from error
    app: object = moya(location, files, overlay)
    return app


@cache
def plugins() -> EntryPoints:
    """Return the installed loaders; a process looks for them once."""
    from importlib_metadata import entry_points

    return entry_points(group=GROUP)


def _load_plugin(name: str, rest: str, site: Site) -> object:
    """Return the app that the loader `name` makes of `rest`."""
    if name not in plugins().names:
        near = name_remedy(name, plugins().names)
        fault = no_loader(site.name, name, os.path.join(sys.prefix, "bin", "python3"))
        raise NoSuchApp(fault.reason, near) if near else fault
    app: object = plugins()[name].load()(rest, site)
    return app
