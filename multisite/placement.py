"""Where a site runs: the decision, pure, and its reason in a sentence."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from multisite import hosting
from multisite.examined import Examined
from multisite.model import Home, Site, SupervisorOptions

# What the supervisor stands on: Linux 5.3 and Python 3.9 have it.
CAN_SPAWN = hasattr(os, "pidfd_open")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision needs to know of this process and the site's files."""

    user: str  # name (or number) of the user this process runs as
    root: bool
    location_owner: str = ""  # user name; "" where there is no such directory


@dataclass(frozen=True, slots=True)
class Placement:
    """`kind` is ``in-process``, ``spawned`` or ``proxy``; `reason` completes "…, because …".

    `cause` is what of its use drives a site out of the workers: `SLOW`, `IDLE` or nothing.
    """

    kind: str
    reason: str
    cause: str = ""

    @property
    def shareable(self) -> bool:
        """Whether the site may live in the workers' interpreter."""
        return self.kind == "in-process"


# Options of a site that only a process of its own can have.
_OWN_PROCESS = {
    "python": "it has a Python of its own",
    "env": "it has an [env] of its own, and sites in one process share one environment",
    "pass_env": "it wants variables of the service's own environment",
    "chroot": "it wants a chroot",
    "command": "it has a command of its own",
    "memory_limit": "it has a memory_limit",
    "nice": "it sets nice",
    "nofile": "it sets nofile",
}


HOSTING = "each host of its file is a site of its own"


def decide(site: Site, home: Home, facts: Facts) -> Placement:
    """Place `site`; clashes with other sites are decided later, by their claims."""
    if site.files_only:
        return Placement("in-process", "it has files and no application")
    if site.mode == "proxy" or (site.mode == "auto" and site.upstreams):
        return Placement("proxy", "its file names the upstreams")
    if site.host or hosting.is_hosting(site.location):
        return Placement("spawned", HOSTING)
    if site.mode == "spawned":
        return Placement("spawned", "its file says mode = spawned")
    reason = _own_process(site) or _other_user(site, facts) or _root(home, facts)
    if reason:
        return Placement("spawned", reason)
    return Placement("in-process", "nothing in its file asks for a process of its own")


def basis(home: Home) -> str:
    """Return a digest of what moya.conf says about where sites run."""
    return hashlib.sha256(repr((home.supervisor, home.defaults)).encode()).hexdigest()[:16]


def _own_process(site: Site) -> str:
    for option, reason in _OWN_PROCESS.items():
        if getattr(site, option):
            return reason
    if site.umask is not None:
        return "it sets umask"
    return _other_ways(site)


def _other_ways(site: Site) -> str:
    if site.env_mode == "replace":
        return "its file says env_mode = replace"
    if site.server != "auto":
        return f"its file says server = {site.server}"
    if site.processes > 1:
        return f"it wants {site.processes} processes"
    if site.application.startswith("asgi:"):
        return "it is an ASGI application"
    return ""


def _other_user(site: Site, facts: Facts) -> str:
    wanted = facts.location_owner if site.user == "owner" else site.user
    if wanted and wanted != facts.user:
        return "it " + of_another(wanted, facts.user)
    if site.group:
        return f"it wants the group '{site.group}'"
    return ""


def of_another(user: str, ours: str) -> str:
    """Return what keeps a site out that has `user` for its own: half a sentence, as what an examination finds."""
    return f"runs as user '{user}' and the workers as '{ours}'"


def _root(home: Home, facts: Facts) -> str:
    if facts.root and not home.supervisor.allow_root:
        return "the workers run as root and moya.conf does not say [supervisor] allow_root = yes"
    return ""


# Sites whose file leaves it to us: they are examined in a process of their own first.

SLOW, IDLE = "slow", "idle"
MINUTE = 60.0  # seconds over which requests are counted
ENOUGH = 20  # requests in the workers before their duration is judged

NOT_EXAMINED = "its code has not been examined yet; its first request has that done"
CHANGED = "its files have changed since they were examined; its next start examines them"
ALONE = "no process can be had for it"


@dataclass(frozen=True, slots=True)
class Heat:
    """How a site is used.

    Attributes:
        requests: within the last `MINUTE`.
        idle: seconds since the last one.
        average: seconds that a request of that minute took in the workers; 0.0: not known, or too few.
    """

    requests: int = 0
    idle: float = 0.0
    average: float = 0.0


def objection(found: Examined, options: SupervisorOptions) -> str:
    """Return why a site that was found to be so may not live in the workers, whatever its use; "" if it may."""
    if found.findings:
        return "it " + "; it ".join(found.findings)
    if found.seconds > options.share_import_time:
        limit = _time(options.share_import_time)
        return f"its import takes {_time(found.seconds)}, more than share_import_time = {limit}"
    if found.memory > options.share_memory:
        return f"it takes {_size(found.memory)}, more than share_memory = {_size(options.share_memory)}"
    return ""


def settle(found: Examined, heat: Heat, options: SupervisorOptions, *, here: bool, idle_timeout: float) -> Placement:
    """Decide where a site that was examined and clashes with no other is to live from now on.

    Args:
        found: by its examination.
        heat: how it is used.
        options: of the home.
        here: whether it lives in the workers now.
        idle_timeout: seconds without a request after which it leaves the workers; 0: never.
    """
    refused = objection(found, options)
    if refused:
        return Placement("spawned", refused)
    if here:
        return _stay(found, heat, options, idle_timeout)
    if heat.requests >= options.promote_after:
        use = f"{heat.requests} requests within a minute"
        return Placement("in-process", f"it is clean ({found.figures}) and had {use}")
    moves = f"it moves into the workers when it has {options.promote_after} requests within a minute"
    return Placement("spawned", f"it is clean ({found.figures}); {moves}")


def _stay(found: Examined, heat: Heat, options: SupervisorOptions, idle_timeout: float) -> Placement:
    if heat.average > options.share_request_time:
        took, limit = _time(heat.average), _time(options.share_request_time)
        return Placement(
            "spawned", f"its requests took {took} in the workers, more than share_request_time = {limit}", SLOW
        )
    if idle_timeout and heat.idle >= idle_timeout:
        left = f"it left the workers after {_time(idle_timeout)} without a request"
        return Placement("spawned", f"it is clean ({found.figures}); {left}", IDLE)
    return Placement("in-process", "")


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.3g} s" if seconds < 60 else f"{seconds / 60:.3g} min"


def _size(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
