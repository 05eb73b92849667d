"""From a site to its app: the one place where a site's code is imported.

Whatever goes wrong in there, a ``sys.exit()`` included, becomes one `AppLoadError` with the original as its
``__cause__``: it costs that site and never the worker.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from multisite.config.application import AppSpec
from multisite.errors import AppLoadError, MultisiteError, NeedsProcess, Problem
from multisite.inprocess import loaders
from multisite.inprocess.importer import Importer, PlainImporter
from multisite.inprocess.tracebacks import explain, is_for_the_worker
from multisite.runner.load import NoSuchApp, a, is_asgi
from multisite.sites.sharing import resolve

if TYPE_CHECKING:
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
        raise _load_error(site, explain(error, site.location, _target(site))) from error


def _load(site: Site, importer: Importer | None) -> object:
    if site.location and not os.path.isdir(site.location):
        raise NoSuchApp("there is no such directory", "restore it or correct the path", key="location")
    try:
        spec = resolve(site)
    except ValueError as error:
        raise NoSuchApp(str(error)) from None
    if spec.kind == "asgi":
        raise _is_asgi_error(site)
    return _by_kind(spec, site, importer or PlainImporter.alone(site))


def _by_kind(spec: AppSpec, site: Site, importer: Importer) -> object:
    match spec.kind:
        case "file":
            return loaders.load_file(spec, site.location, importer)
        case "paste":
            return loaders.load_paste(spec, site.location)
        case "django":
            return loaders.load_django(spec, importer)
        case "moya":
            return loaders.load_moya(site.location, site.ini, site.overlay)
        case "plugin":
            return loaders.load_plugin(spec.target, spec.attribute, site)
    return _module_or_plugin(spec, site, importer)


def _module_or_plugin(spec: AppSpec, site: Site, importer: Importer) -> object:
    """``name`` and ``name:rest`` may be a plugin's too; it is asked when there is no such module."""
    try:
        return loaders.load_module(spec, importer)
    except ModuleNotFoundError as error:
        speakable = spec.target.isidentifier()  # of anything else it is not clear what was meant
        if (
            error.name != spec.target
            or (speakable and spec.target not in loaders.plugins().names)
            or "." in spec.target
        ):
            raise
    return loaders.load_plugin(spec.target, site.application.partition(":")[2].strip(), site)


def _checked(site: Site, app: object) -> App:
    """The app, if a WSGI server can call it."""
    if not callable(app):
        raise NoSuchApp(f"it is {a(app)}, which cannot be called", "name the WSGI callable")
    if is_asgi(app):
        raise _is_asgi_error(site)
    if refuses_wsgi(app):
        name = getattr(app, "__name__", "it")
        raise NoSuchApp(
            f"{name} cannot be called with (environ, start_response)",
            f"if it makes the application, write it with parentheses: {site.application.partition('(')[0]}()",
        )
    return app


def _is_asgi_error(site: Site) -> NeedsProcess:
    return NeedsProcess(f"{site.application} is an ASGI application; it runs in a process of its own")


def _load_error(site: Site, error: NoSuchApp) -> AppLoadError:
    value = getattr(site, error.key)
    return AppLoadError(str(Problem(site.file, error.reason, "service", error.key, value, error.remedy)))


def _target(site: Site) -> str:
    """The module that was asked for, to tell a missing module from a missing dependency."""
    return resolve(site).target


def refuses_wsgi(app: object) -> bool:
    """Whether `app` is a plain function that (environ, start_response) cannot be passed to: a factory, likely.

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
