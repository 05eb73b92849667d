"""Where a site runs: the decision, pure, and its reason in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from multisite import hosting
from multisite.model import Home, Site


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision needs to know of this process and the site's files."""

    user: str  # name (or number) of the user this process runs as
    root: bool
    location_owner: str = ""  # user name; "" where there is no such directory


@dataclass(frozen=True, slots=True)
class Placement:
    """`kind` is ``in-process``, ``spawned`` or ``proxy``; `reason` completes "…, because …"."""

    kind: str
    reason: str

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
        return f"it runs as user '{wanted}' and the workers as '{facts.user}'"
    if site.group:
        return f"it wants the group '{site.group}'"
    return ""


def _root(home: Home, facts: Facts) -> str:
    if facts.root and not home.supervisor.allow_root:
        return "the workers run as root and moya.conf does not say [supervisor] allow_root = yes"
    return ""
