"""The WSGI application of the project."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demoproject.settings")

from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

from demoproject import firstrun

# The handler serves the admin's style sheets straight from the installed Django.
application = StaticFilesHandler(get_wsgi_application())
firstrun.database(settings.VAR_DIR)
