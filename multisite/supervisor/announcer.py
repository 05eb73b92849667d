"""Announces sites to uWSGI's Fastrouters (`subscribe_to`), whether they run or not.

It announces a site's own socket. That exists as long as the site does, and a connection to it starts the site. A
Fastrouter forgets a node after 17 seconds of silence, so we repeat each announcement every ten, as uWSGI does.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from multisite.config import subscription
from multisite.config.model import Home, Site
from multisite.config.subscription import Subscription
from multisite.router import announcement
from multisite.router.announcement import Announcement
from multisite.sites import sharing
from multisite.sites.catalogue import Catalogue
from multisite.supervisor.site.failures import Unavailable
from multisite.supervisor.site.supervised import SupervisedSite

EVERY = 10.0  # seconds between two announcements, uWSGI's subscribe-freq

_log = logging.getLogger("multisite.supervisor")


class Announcer:
    """Announces the sites of a home.

    Args:
        supervise: supervises a site and returns it by its name; raises KeyError or Unavailable.
    """

    def __init__(self, supervise: Callable[[str], SupervisedSite]) -> None:
        self._supervise = supervise
        self._wanted: dict[str, set[Subscription]] = {}  # by site
        self._announced: dict[str, dict[Subscription, Announcement]] = {}  # what Fastrouters know, by site
        self._due = 0.0
        self._told: dict[str, str] = {}  # what is wrong, by address

    def announces(self, name: str) -> bool:
        """Tell whether a site is announced and so needs its socket."""
        return name in self._announced

    def install(self, catalogue: Catalogue) -> None:
        """Follow a new catalogue, and withdraw at once whatever should no longer be announced."""
        default = catalogue.home.defaults.get("subscribe_to", ())
        wanted = {}
        for name, entry in catalogue.entries.items():
            named = entry.file.values.get("service", {}).get("subscribe_to", default)
            if not named or entry.broken or catalogue.hosting(name):
                continue
            site = catalogue.site(name)
            if site.is_restricted:
                continue  # a Fastrouter would bypass the check
            if (site.is_ours or site.protocol == "uwsgi") and self._has_processes(site, catalogue.home):
                wanted[name] = {subscription.parse(text) for text in named}
        if wanted != self._wanted:
            self._wanted, self._due = wanted, 0.0
        for name, known in list(self._announced.items()):
            self._withdraw(name, known.keys() - wanted.get(name, set()))

    @staticmethod
    def _has_processes(site: Site, home: Home) -> bool:
        return sharing.place(site, home).kind == "spawned" or sharing.is_examined(site, home)

    def tick(self, now: float) -> None:
        """Announce what is due, and withdraw sites that are unavailable now; call it about once a second."""
        if now >= self._due:
            self._due = now + EVERY
            for name in self._wanted:
                self._announce(name)
            return
        for name in list(self._announced):
            if not self._is_open(name):
                self._announce(name)

    def _is_open(self, name: str) -> bool:
        try:
            listener = self._supervise(name).listener
            return listener.is_open and not listener.is_shut
        except (KeyError, Unavailable):
            return False

    def _announce(self, name: str) -> None:
        """Open the socket of a site and announce it; if that fails, withdraw the site."""
        try:
            supervised = self._supervise(name)
            path = supervised.ensure()
        except (KeyError, Unavailable):
            self._withdraw(name, set(self._announced.get(name, ())))
            return
        cores = supervised.site.processes * supervised.site.threads
        known = self._announced.setdefault(name, {})
        for each in self._wanted.get(name, ()):
            said = Announcement(each.key, path, modifier1=each.modifier1, cores=cores)
            if each not in known:
                _log.info("site %s is announced at %s as %s", name, each.address, each.key)
            known[each] = said
            self._send(each, said)

    def _withdraw(self, name: str, gone: set[Subscription]) -> None:
        known = self._announced.get(name, {})
        for each in gone:
            said = known.pop(each)
            self._send(each, Announcement(said.key, said.address, leaves=True, modifier1=said.modifier1))
            _log.info("site %s is no longer announced at %s as %s", name, each.address, each.key)
        if not known:
            self._announced.pop(name, None)

    def _send(self, to: Subscription, said: Announcement) -> None:
        """Send one datagram. If nobody receives it, that is not our fault; it is logged once."""
        family = socket.AF_UNIX if to.is_unix else socket.AF_INET6 if ":" in to.target[0] else socket.AF_INET
        where = to.address.replace("@", "\0", 1) if to.address.startswith("@") else to.address
        try:
            with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(announcement.write(said), where if to.is_unix else to.target)
            self._told.pop(to.address, None)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if self._told.get(to.address) != reason:
                self._told[to.address] = reason
                _log.warning("MS556 subscribe_to = %s:%s: %s", to.address, to.key, reason)

    def close(self) -> None:
        """Withdraw all sites: the supervisor exits."""
        for name, known in list(self._announced.items()):
            self._withdraw(name, set(known))
