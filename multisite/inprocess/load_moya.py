"""``location`` and ``ini`` without an ``application``: a Moya project.

The call is that of Moya's own service (`moya.multiwsgi.Server.build`, release 0.6.20).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from multisite.inprocess.load_reasons import NotLoaded

DEFAULT_INI = ("production.ini",)


def load(location: str, ini: Sequence[str], overlay: Mapping[str, Mapping[str, str]]) -> object:
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
