"""One loader per kind of ``application =``; each takes what it needs and returns the site's app.

A loader raises `NotLoaded` with the reason and the remedy where it knows them; anything else that
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
from types import ModuleType
from typing import TYPE_CHECKING, Any

from multisite.config.application import AppSpec
from multisite.errors import NeedsProcess
from multisite.inprocess.importer import Importer
from multisite.inprocess.tracebacks import NotLoaded, name_remedy

if TYPE_CHECKING:
    from importlib_metadata import EntryPoints

    from multisite.config.model import Site


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


def load_paste(spec: AppSpec, location: str) -> object:
    """The app of a PasteDeploy file (its ``[app:NAME]``, ``[pipeline:NAME]``, …; "main" without a name)."""
    path = existing_file(location, spec.target)
    try:
        from paste.deploy import loadapp
    except ModuleNotFoundError as error:
        raise NotLoaded(
            "paste: needs the package PasteDeploy, which is not installed here", "pip install multisite-wsgi[paste]"
        ) from error
    app: object = loadapp(f"config:{path}", name=spec.attribute or None)
    return app


VARIABLE = "DJANGO_SETTINGS_MODULE"


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
        raise NotLoaded(
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
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = module
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


DEFAULT_INI = ("production.ini",)


def load_moya(location: str, ini: Sequence[str], overlay: Mapping[str, Mapping[str, str]]) -> object:
    """The app of the Moya project in `location`.

    Args:
        location: the project's folder.
        ini: settings files, relative to it; the first that exists is used.
        overlay: sections laid over the project's settings, key by key.
    """
    files = tuple(ini) or DEFAULT_INI
    if not any(os.path.isfile(os.path.join(location, file)) for file in files):
        raise NotLoaded(
            f"there is no application, and no {' or '.join(files)} of a Moya project in {location or 'the location'}",
            "say which application with application = blog.wsgi:application",
        )
    application, settings = _moya()
    app: object = application(
        location, list(files), disable_autoreload=True, logging=None, master_settings=_master(settings, overlay)
    )
    return app


def _moya() -> tuple[Any, Any]:
    try:
        from moya.settings import SettingsContainer
        from moya.wsgi import WSGIApplication
    except ModuleNotFoundError as error:
        raise NotLoaded(
            f"a Moya project needs the package {error.name}, which is not installed here",
            "pip install moya, or name the site's virtualenv with python =",
        ) from error
    except ImportError as error:
        raise NotLoaded(
            f"the installed Moya cannot be imported by Python {sys.version_info[0]}.{sys.version_info[1]} ({error})",
            "name an interpreter that it supports with python = (Moya 0.6.20: 3.5 to 3.7)",
        ) from error
    return WSGIApplication, SettingsContainer


def _master(settings: Any, overlay: Mapping[str, Mapping[str, str]]) -> Any:
    """The overlay as Moya's "master settings"."""
    master = settings()
    for section, values in overlay.items():
        for key, value in values.items():
            master.set(section, key, value)
    return master


GROUP = "multisite.loaders"


@cache
def plugins() -> EntryPoints:
    """The installed loaders; looked for once in a process."""
    from importlib_metadata import entry_points

    return entry_points(group=GROUP)


def load_plugin(name: str, rest: str, site: Site) -> object:
    """The app that the loader `name` makes of `rest`."""
    if name not in plugins().names:
        raise NotLoaded(
            f"there is neither a module nor a loader named {name!r}",
            name_remedy(name, plugins().names) or "write it like blog.wsgi:application",
        )
    app: object = plugins()[name].load()(rest, site)
    return app
