"""One loader per kind of ``application =``; each takes what it needs and returns the site's app.

A loader raises `NoSuchApp` with the reason and the remedy where it knows them; anything else that
the site's code raises comes out unchanged and is explained by `multisite.inprocess.loader`.
The call of a Moya project is that of Moya's own service (`moya.multiwsgi.Server.build`, release 0.6.20).

Another package offers a loader as an entry point of the group ``multisite.loaders``::

    [options.entry_points]
    multisite.loaders =
        php = php_in_python:load

and it is called as::

    def load(rest: str, site: multisite.model.Site) -> Callable:
        '''Return the WSGI app; `rest` is what follows the first colon, "" if nothing does.'''

Whatever it raises is the error of that site. Our own forms win: a plugin is asked only for what is
neither one of our prefixes nor a file nor a module that can be found.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from multisite.config.application import AppSpec
from multisite.errors import NeedsProcess
from multisite.inprocess.importer import Importer
from multisite.runner import load
from multisite.runner.load import NoSuchApp, name_remedy

if TYPE_CHECKING:
    from importlib_metadata import EntryPoints

    from multisite.config.model import Site


def load_module(spec: AppSpec, importer: Importer) -> object:
    """The app of a dotted module."""
    return _app_of(importer.module(spec.target), spec)


def load_file(spec: AppSpec, location: str, importer: Importer) -> object:
    """The app of a file; a relative path starts at the site's location."""
    return _app_of(importer.file(load.existing_file(location, spec.target)), spec)


def _app_of(module: ModuleType, spec: AppSpec) -> object:
    call = (spec.call.args, spec.call.kwargs) if spec.call else None
    app: object = load.find_app(module, spec.target, spec.candidates, call)
    return app


def load_paste(spec: AppSpec, location: str) -> object:
    """The app of a PasteDeploy file (its ``[app:NAME]``, ``[pipeline:NAME]``, …; "main" without a name)."""
    path = load.existing_file(location, spec.target)
    try:
        from paste.deploy import loadapp
    except ModuleNotFoundError as error:
        raise NoSuchApp(
            "paste: needs the package PasteDeploy, which is not installed here", "pip install multisite-wsgi[paste]"
        ) from error
    app: object = loadapp(f"config:{path}", name=spec.attribute or None)
    return app


def load_django(spec: AppSpec, importer: Importer) -> object:
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
    """Django looks its settings up in the environment, once."""
    before = os.environ.get(load.DJANGO)
    os.environ[load.DJANGO] = module
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(load.DJANGO, None)
        else:
            os.environ[load.DJANGO] = before


def load_moya(location: str, ini: Sequence[str], overlay: Mapping[str, Mapping[str, str]]) -> object:
    """The app of the Moya project in `location` (`runner.load.moya`)."""
    files = tuple(ini) or load.DEFAULT_INI
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
    app: object = load.moya(location, files, overlay)
    return app


@cache
def plugins() -> EntryPoints:
    """The installed loaders; looked for once in a process."""
    from importlib_metadata import entry_points

    return entry_points(group=load.GROUP)


def load_plugin(name: str, rest: str, site: Site) -> object:
    """The app that the loader `name` makes of `rest`."""
    if name not in plugins().names:
        raise NoSuchApp(
            f"there is neither a module nor a loader named {name!r}",
            name_remedy(name, plugins().names) or "write it like blog.wsgi:application",
        )
    app: object = plugins()[name].load()(rest, site)
    return app
