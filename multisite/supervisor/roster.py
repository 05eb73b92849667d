"""The crews of a home, in line with its configuration."""

from __future__ import annotations

import logging
import os

from multisite import hosts
from multisite.catalogue import Catalogue
from multisite.live import LiveHome
from multisite.model import Home, Site
from multisite.supervisor.backends import HELD
from multisite.supervisor.connections import Connections, connections
from multisite.supervisor.crew import Crew
from multisite.supervisor.failures import Unavailable
from multisite.supervisor.shared import Shared
from multisite.supervisor.triggers import Triggers

BROKEN_RETRY_AFTER = 30  # seconds

_log = logging.getLogger("multisite.supervisor")


class Roster(dict[str, Crew]):
    """The crews by site name; one is made when its site is asked for first.

    Args:
        live: the configuration, opened.
        shared: what the crews have in common.
    """

    def __init__(self, live: LiveHome, shared: Shared) -> None:
        super().__init__()
        self._live, self._shared = live, shared
        self._triggers = Triggers()

    @property
    def catalogue(self) -> Catalogue:
        """All sites as they are now."""
        assert self._live.catalogue
        return self._live.catalogue

    @property
    def home(self) -> Home:
        """The home as moya.conf describes it."""
        return self.catalogue.home

    @property
    def busy(self) -> list[Crew]:
        """Those that have anything to watch."""
        return [crew for crew in self.values() if crew.is_busy]

    def connections(self) -> dict[str, Connections]:
        """Ask the kernel for the connections of all sites, by the path of their sockets."""
        return connections(os.path.join(self._shared.rundir.path, "sites"))

    def crew(self, name: str) -> Crew:
        """Return the crew of a site, made if there is none yet.

        Raises:
            KeyError: there is no such site.
            Unavailable: its file is broken.
        """
        crew = self.get(name)
        if crew and name in self.catalogue.entries:
            return crew
        site = self.site(name)
        stamp = self.catalogue.entries[name].stamp
        crew = self[name] = Crew(site, self.home, self._domains(name), stamp, self._shared)
        return crew

    def site(self, name: str) -> Site:
        """Return a site as its file says now.

        Raises:
            KeyError: there is no such site.
            Unavailable: its file is broken.
        """
        entry = self.catalogue.entries.get(name)
        if not entry:
            self._live.look_again()
        elif self._live.refresh(entry.path):
            self._swap()
        if self.catalogue.entries[name].broken:
            raise Unavailable("its file has errors; multisite check says which", BROKEN_RETRY_AFTER)
        return self.catalogue.site(name)

    def look(self, now: float) -> None:
        """Bring the crews into line with the files as they are now, and put those away that nobody needs."""
        try:
            changed = self._live.look(now)
            for crew in list(self.values()):
                entry = self.catalogue.entries.get(crew.site.name)
                changed |= bool(entry and self._live.refresh(entry.path))
        except OSError as error:
            _log.error("the configuration cannot be looked at: %s", error)
            return
        if changed:
            self._swap()
        for crew in list(self.values()):
            if crew.is_busy:
                if self._triggers.pulled(crew.site, self.home):
                    _pull(crew)
            elif not crew.listener.is_open:
                del self[crew.site.name]

    def starting(self, name: str) -> Crew:
        """Return a crew that is to start a process: from now on its files may ask for another."""
        crew = self[name]
        self._triggers.begin(crew.site, self.home)
        return crew

    def _swap(self) -> None:
        for name, crew in list(self.items()):
            if name in self.catalogue.entries:
                stamp = self.catalogue.entries[name].stamp
                crew.offer(self.catalogue.site(name), self.home, self._domains(name), stamp)
            else:
                crew.close()

    def _domains(self, name: str) -> tuple[str, ...]:
        """Return the domains that lead to this site alone, whatever the path."""
        site, owners = self.catalogue.site(name), self.catalogue.owners
        shared = {domain for domain, mount in owners if mount != "/"}
        exact = [domain for domain in site.domains if not hosts.is_pattern(domain) and domain not in shared]
        if site.redirect_to_canonical:
            exact = exact[:1]
        return tuple(domain for domain in exact if owners.get((domain, "/")) == name and "/" not in domain)


def _pull(crew: Crew) -> None:
    """A file says that the site is to be loaded anew."""
    if crew.state in HELD:
        crew.reset()
    elif crew.pids:
        crew.replace("reload")
