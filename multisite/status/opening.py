"""Puts the status pages of a home together, for the worker that is asked for them first."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from multisite.config.serving.development import simulated
from multisite.config.trusted import TrustedProxies
from multisite.sites.statefile import StateFile
from multisite.status.metrics import CONTENT_TYPE, exposition
from multisite.status.observed import Observed
from multisite.status.page import StatusPage, Subject
from multisite.status.rehearsal import Rehearsal
from multisite.status.web import attempts
from multisite.status.web.admission import Admission
from multisite.status.web.attempts import Attempts

if TYPE_CHECKING:
    from multisite.config.model import Home
    from multisite.sites.catalogue import Catalogue


def page_of(home: Home, catalogue_of: Callable[[], Catalogue], is_ours: Callable[[dict[str, Any]], bool]) -> StatusPage:
    """Return the pages of a home.

    Args:
        home: as moya.conf describes it now.
        catalogue_of: returns the sites as this worker has read them last.
        is_ours: tells whether a peer on this machine is the administrator's, and not a site's.
    """
    service = home.service
    proxies, counted = TrustedProxies(service.trusted_proxies), Attempts(StateFile(home, attempts.KIND, guides_us=True))
    admission = Admission(service.status_token, key_of(home), proxies, is_ours, counted)
    count = simulated(os.environ)
    observed: Subject = Rehearsal(count) if count else Observed(catalogue_of)

    def metrics() -> tuple[str, bytes]:
        return CONTENT_TYPE, exposition(observed.document(), time.time())

    return StatusPage(observed, admission, service.status_admin, metrics)


def key_of(home: Home) -> str:
    """Return a secret that all workers of a home share, made at the first call; else one of this process."""
    file = StateFile(home, "status-key", guides_us=True)
    with file.locked():
        known = file.load()
        if isinstance(known, str) and len(known) == 64:
            return known
        made = secrets.token_hex(32)
        file.store(made)
        return made
