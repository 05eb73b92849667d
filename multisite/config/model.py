"""The configuration as plain values: problems, site files, sites, the home.

Durations are float seconds on the monotonic clock, sizes are bytes, paths are absolute.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

from multisite.config.cluster import ClusterOptions
from multisite.config.sections import (
    EventsOptions,
    ProjectsOptions,
    RouterOptions,
    ServiceOptions,
    SupervisorOptions,
)
from multisite.config.site import Site
from multisite.errors import Problem

__all__ = [
    "ClusterOptions",
    "EventsOptions",
    "Home",
    "ProjectsOptions",
    "RouterOptions",
    "ServiceOptions",
    "Site",
    "SiteFile",
    "SupervisorOptions",
]


@dataclass(slots=True)  # never changed once made; frozen would double the time that thousands take
class SiteFile:
    """The content of one site file, and no more: small, JSON-able; the cache keeps it.

    Attributes:
        path: the file as globbed.
        domains: each in the normal form of `hosts.check_pattern`; filled even if another key is wrong.
        mount: "/" or a prefix without its final slash.
        values: section → key → cast value; sequences are tuples of text.
        sources: the file and its ``extends`` chain, absolute.
        env_used: each ``$NAME`` that was looked up and what it was (None: not set).
    """

    path: str
    name: str = ""
    domains: tuple[str, ...] = ()
    mount: str = "/"
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    sources: tuple[str, ...] = ()
    env_used: dict[str, str | None] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep this file from being served."""
        return tuple(problem for problem in self.problems if problem.is_error)

    def to_json(self) -> list[Any]:
        """Give what `json.dumps` takes and `from_json` turns back into an equal object."""
        problems = [astuple(problem) for problem in self.problems]
        return [self.path, self.name, self.domains, self.mount, self.values, problems, self.sources, self.env_used]

    @classmethod
    def from_json(cls, data: object) -> SiteFile:
        """Rebuild from `to_json`; raises ValueError when *data* has another shape."""
        record: Any = data
        try:
            path, name, domains, mount, values, problems, sources, env_used = record
            _expect((list, tuple), domains, sources, problems)
            _expect(str, path, name, mount, *domains, *sources, *env_used)
            if env_used:
                _expect((str, type(None)), *env_used.values())
            sections = {section: _thawed(keys) for section, keys in values.items()}
            rebuilt = tuple(_problem(*problem) for problem in problems)
            return cls(path, name, tuple(domains), mount, sections, rebuilt, tuple(sources), env_used)
        except (TypeError, AttributeError, LookupError, ValueError) as error:
            raise ValueError(f"not a site file's record: {error}") from None


def _expect(kind: type | tuple[type, ...], *values: object) -> None:
    for value in values:
        if not isinstance(value, kind):
            raise TypeError(f"{type(value).__name__} where {kind} belongs")


_KEPT = frozenset({str, int, float, bool, tuple})  # kinds of values that JSON leaves as they are, and ours


def _thawed(keys: dict[str, Any]) -> dict[str, Any]:
    for key, value in keys.items():
        if type(value) not in _KEPT:
            _expect(list, value)
            keys[key] = tuple(value)
    return keys


_PARTS = tuple(Problem.__dataclass_fields__)


def _problem(*parts: Any) -> Problem:
    _expect(str, *parts[:-1])
    _expect(int, parts[-1])
    return Problem(**dict(zip(_PARTS, parts, strict=True)))


@dataclass
class Home:
    """The home: the folder of moya.conf and the content of that file.

    Attributes:
        path: the folder, absolute.
        file: moya.conf in it, absolute.
        defaults: checked keys of a site's [service] that every site starts from.
        env: environment variables of every site.
        names_proxies: moya.conf itself says which proxies are trusted.
        environ, uid, system_temp: of this process; the default folders follow from them.
    """

    path: str
    file: str = ""
    projects: ProjectsOptions = field(default_factory=ProjectsOptions)
    service: ServiceOptions = field(default_factory=ServiceOptions)
    supervisor: SupervisorOptions = field(default_factory=SupervisorOptions)
    router: RouterOptions = field(default_factory=RouterOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    events: EventsOptions = field(default_factory=EventsOptions)
    defaults: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    names_proxies: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False, compare=False)
    uid: int = field(default_factory=os.getuid, repr=False, compare=False)
    system_temp: str = field(default="/tmp", repr=False, compare=False)

    @property
    def runtime_dir(self) -> str:
        """Folder for sockets, locks and the scoreboard; not made here."""
        return self.resolve(self.service.runtime_dir) or default_runtime_dir(self.environ, self.uid, self.system_temp)

    @property
    def state_dir(self) -> str:
        """Folder for caches, failures and statistics; not made here."""
        return self.resolve(self.service.state_dir) or default_state_dir(self.environ, self.uid)

    @property
    def temp_dir(self) -> str:
        """Folder whose ``moyasrv/NAME.changes`` files reload sites."""
        return self.resolve(self.service.temp_dir) or self.system_temp

    def resolve(self, path: str) -> str:
        """Make *path* absolute: ``~`` is the user's, anything relative counts from the home; "" stays ""."""
        return os.path.normpath(os.path.join(self.path, os.path.expanduser(path))) if path else ""


def default_runtime_dir(environ: Mapping[str, str], uid: int, system_temp: str) -> str:
    """Give the folder for sockets of this user (XDG Base Directory Specification)."""
    if environ.get("XDG_RUNTIME_DIR", "").startswith("/"):
        return os.path.join(environ["XDG_RUNTIME_DIR"], "multisite")
    return "/run/multisite" if uid == 0 else os.path.join(system_temp, f"multisite-{uid}")


def default_state_dir(environ: Mapping[str, str], uid: int) -> str:
    """Give the folder for lasting state of this user (XDG Base Directory Specification)."""
    if environ.get("XDG_STATE_HOME", "").startswith("/"):
        return os.path.join(environ["XDG_STATE_HOME"], "multisite")
    return "/var/lib/multisite" if uid == 0 else os.path.expanduser("~/.local/state/multisite")
