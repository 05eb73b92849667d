"""One Django project per interpreter: Django keeps settings, applications and routes once, in its own modules."""

from __future__ import annotations

import sys
from typing import Any

from multisite.errors import NeedsProcess
from multisite.logs import servicelog
from multisite.sites import claims


def is_configured() -> bool:
    """Tell whether a Django project lives in this interpreter."""
    # Another thread may be in the middle of importing it; and the truth of the settings themselves would set Django up.
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    return settings is not None and bool(settings.configured)


def fence(owner: str) -> None:
    """Make every other site's ``django.setup()`` fail.

    Without this a second project would silently be served with the first one's
    settings and database, since Django keeps both once per interpreter.
    """
    django = sys.modules.get("django")
    if django is None or getattr(django.setup, "multisite_owner", "") == owner:
        return
    original = getattr(django.setup, "multisite_original", django.setup)

    def setup(*args: Any, **kwargs: Any) -> None:
        if servicelog.current_site.get() not in ("", owner):
            raise NeedsProcess(claims.conflict({claims.DJANGO: ""}, {owner: {claims.DJANGO: ""}}))
        original(*args, **kwargs)

    setup.multisite_owner, setup.multisite_original = owner, original  # type: ignore[attr-defined]
    django.setup = setup  # type: ignore[attr-defined]
