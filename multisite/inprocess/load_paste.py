"""``paste:development.ini#name``: PasteDeploy files."""

from __future__ import annotations

from multisite.config.application import AppSpec
from multisite.inprocess.load_python import existing_file
from multisite.inprocess.load_reasons import NotLoaded


def load(spec: AppSpec, location: str) -> object:
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
