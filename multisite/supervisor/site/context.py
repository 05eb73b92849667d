"""What all supervised sites share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from multisite.config.model import Home, Site
from multisite.control.rundir import RuntimeDir
from multisite.sites.failures import LastFailures
from multisite.supervisor.loop import Loop
from multisite.supervisor.process.descriptors import DescriptorLimits
from multisite.supervisor.process.preloaders import Preloaders
from multisite.supervisor.servers import Servers


class Examining(Protocol):
    """What moves sites into the workers, as far as a site is concerned (`multisite.supervisor.promotion`)."""

    def wanted(self, site: Site, home: Home) -> str:
        """Return the version of the site's code that its next process must examine, "" for none."""

    def take_facts(self, site: Site, version: str, told: str) -> None:
        """Handle what a process reports about its site."""


class Leasing(Protocol):
    """The leases of the sites that must not run twice (`multisite.supervisor.site.leases`)."""

    @property
    def node(self) -> str:
        """Address of this node, "" before the first lease."""

    @property
    def warning(self) -> float:
        """Seconds that a process has to end by itself when its lease ends."""

    def want(self, supervised: Any) -> None:
        """Ask for the lease of a site for which a request waits."""

    def want_soon(self, supervised: Any) -> None:
        """Ask for the lease of a site that has to run without a request."""

    def place(self, supervised: Any, caller: Any, anew: bool) -> dict[str, Any] | None:
        """Return where requests for a site go; None: the caller is answered when it is known."""


class Tell(Protocol):
    """Takes the name of an event, that of its site, and what else is known."""

    def __call__(self, event: str, site: str, **facts: object) -> None:
        """Tell of it."""


def nobody(event: str, site: str, **facts: object) -> None:
    """Tell nobody."""


@dataclass
class Context:
    """The supervisor's own objects that every site uses.

    Attributes:
        notes: of the last failure of each site.
        mark: how the marks of all backends begin.
        preloaders: they may make a process faster.
        servers: the WSGI servers in front of the sites.
        serial: number of the last backend.
        examining: moves sites into the workers and out of them.
        leases: of the sites that must not run twice.
        tell: tells an administrator of an event of a site (`multisite.supervisor.site.events`).
    """

    loop: Loop
    rundir: RuntimeDir
    limits: DescriptorLimits
    notes: LastFailures
    mark: str
    preloaders: Preloaders
    servers: Servers
    serial: int = 0
    examining: Examining | None = None
    leases: Leasing | None = None
    tell: Tell = nobody

    def next_serial(self) -> int:
        """Return a number that no backend has had."""
        self.serial += 1
        return self.serial

    def mark_of(self, site: str, serial: int) -> str:
        """Return the mark of one backend, which identifies what it leaves behind."""
        return f"{self.mark}:{site}:{serial}"
