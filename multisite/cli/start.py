"""Whether a site with a process of its own could be started, told without starting it."""

from __future__ import annotations

from multisite.cli.places import socket_problem
from multisite.config.model import Home, Site
from multisite.config.options import KNOWN, SITE_FILE
from multisite.errors import Problem
from multisite.sites import sharing
from multisite.sites.placement import CAN_SPAWN


def start_problems(site: Site, home: Home) -> list[Problem]:
    """Return why whoever types the command could not start a process of `site`, as the supervisor would.

    What root alone could do is a warning: the service may well run as root.
    """
    from multisite.supervisor.process import launch
    from multisite.supervisor.process.privilege import NeedsRoot

    spawned = sharing.place(site, home).kind == "spawned" or (CAN_SPAWN and sharing.is_examined(site, home))
    if not spawned or "%" in site.location:
        return []
    too_long = socket_problem(site, home)
    if too_long:
        return [too_long]
    refused = launch.obstacle(site, home)
    if not refused:
        return []
    return [_problem(site, str(refused), "warning" if isinstance(refused, NeedsRoot) else "error")]


def _problem(site: Site, sentence: str, severity: str) -> Problem:
    """Take a sentence apart: ``KEY = VALUE: REASON; REMEDY``, or ``REASON; REMEDY``."""
    setting, _, rest = sentence.partition(": ")
    key, _, value = setting.partition(" = ")
    if not rest or not value or key not in KNOWN[SITE_FILE]["service"]:
        rest, key, value = sentence, "", ""
    reason, _, remedy = rest.partition("; ")
    return Problem(site.file, reason, "service" if key else "", key, value, remedy, severity)
