"""``django:project.settings``: a Django project by its settings module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from multisite.config.application import AppSpec
from multisite.errors import NeedsProcess
from multisite.inprocess.importer import Importer
from multisite.inprocess.load_reasons import NotLoaded

VARIABLE = "DJANGO_SETTINGS_MODULE"


def load(spec: AppSpec, importer: Importer) -> object:
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
