"""What went wrong with requests that workers sent on: a trouble that lasts is one incident, in all workers.

It is kept with the workers' failures, under the site's name and the upstream. Nobody removes it when it is over: a
reader sees whether it `lasts`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from multisite.config.model import Home, Site
from multisite.errors import ConnectFailed, MultisiteError, UpstreamTimeout
from multisite.logs import incidents, servicelog
from multisite.sites import usage
from multisite.sites.failures import Failure, LastFailures, part
from multisite.sites.figures import Sums
from multisite.sites.statefile import StateFile

SAME_WITHIN = 60.0  # seconds after which it is another event, whatever the reason
LOOK_EVERY = 1.0  # seconds between two looks of one worker

_log = logging.getLogger("multisite.troubles")


class Troubles:
    """Notes the troubles of one site in this worker."""

    def __init__(self, site: Site, home: Home) -> None:
        self._site, self._home = site, home
        self._seen: dict[str, tuple[float, Failure]] = {}

    def note(self, error: MultisiteError, upstream: str = "") -> None:
        """Give `error` the incident of the trouble that it belongs to, which is logged once.

        Args:
            error: what a visitor's page is about.
            upstream: whom the request was to be sent to, as the site's file has it; "" for a process of the site, or
                one of several upstreams.
        """
        now = time.monotonic()
        looked_at, seen = self._seen.get(upstream, (0.0, None))
        if seen is None or seen.reason != error.reason or now - looked_at >= LOOK_EVERY:
            seen = self._joined(error, upstream)
            self._seen[upstream] = now, seen
        error.incident = seen.incident

    def _joined(self, error: MultisiteError, upstream: str) -> Failure:
        """Return the trouble that `error` belongs to, and keep it for everybody."""
        is_far = bool(upstream) and isinstance(error, ConnectFailed)
        folder = os.path.join(self._home.runtime_dir, usage.FOLDER)
        counted = usage.read(folder, StateFile(self._home, usage.FOLDER), {self._site.name})[0]
        mine = Failure(
            error.reason,
            incidents.new(),
            time.time(),
            watched=(self._site.file,),
            crashed=True,
            remedy=_remedy(error, self._site),
            unreachable=upstream if is_far else "",
            answered=answered(counted.get(self._site.name)),
        )
        kept = LastFailures(self._home).join(part(self._site.name, upstream), lambda last: _same(last, mine) or mine)
        if kept.incident == mine.incident:
            logger = servicelog.site_logger(self._site.name)
            logger.warning("%s incident %s: %s; %s", error.id, mine.incident, mine.reason, mine.remedy)
            incidents.keep(mine.incident, self._site.name, mine.reason, remedy=mine.remedy)
        return kept


def _same(last: Failure | None, now: Failure) -> Failure | None:
    """Return the trouble `last`, seen again, if `now` is no other event."""
    if not last or last.reason != now.reason or now.at - last.at >= SAME_WITHIN or last.outdated:
        return None
    return replace(last, at=now.at, answered=now.answered) if last.answered == now.answered else None


def _remedy(error: MultisiteError, site: Site) -> str:
    if isinstance(error, ConnectFailed):
        return f"start the server that listens there, or correct upstreams in {site.file}"
    if isinstance(error, UpstreamTimeout):
        return f"find out what the application waits for, or raise request_timeout in {site.file}"
    return "look into the log of the application"


def answered(sums: Sums | None) -> int:
    """Return how many requests of a site have been measured, and answered without an error."""
    return sums.measured - sums.errors if sums else 0


def lasting(
    failures: Mapping[str, Failure], site: Site, sums: Sums | None, reaches: Callable[[str], bool]
) -> list[Failure]:
    """Return the troubles of a site that are not over, the last one first.

    Args:
        failures: all that workers have noted.
        site: whose upstreams they may be about.
        sums: what was counted for the site.
        reaches: tells whether an upstream can be reached now.
    """
    names = [part(site.name, upstream) for upstream in ("", *site.upstreams)]
    found = [failures[name] for name in names if name in failures and not failures[name].outdated]
    alone = len(site.upstreams) < 2
    left = [one for one in found if not ((alone or not one.unreachable) and answered(sums) > one.answered)]
    left = [one for one in left if not one.unreachable or not reaches(one.unreachable)]
    return sorted(left, key=lambda one: one.at, reverse=True)
