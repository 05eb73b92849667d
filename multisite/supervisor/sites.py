"""The supervised sites of a home, kept in line with its configuration."""

from __future__ import annotations

import ast
import contextlib
import logging
import os
import time
from dataclasses import asdict, fields, replace

from multisite.config import hosting
from multisite.config.domains import is_pattern
from multisite.config.model import Home, Site
from multisite.control.rundir import RuntimeDirError, access_of, access_problem
from multisite.sites import hosts, outages, usage
from multisite.sites.catalogue import Catalogue
from multisite.sites.live import LiveHome
from multisite.sites.sitedir import Entry, Stamp, has_errors
from multisite.supervisor.accounts import Accounts
from multisite.supervisor.announcer import Announcer
from multisite.supervisor.bill import Bill
from multisite.supervisor.prewarm import Warming
from multisite.supervisor.process import descriptors
from multisite.supervisor.process.kernel import Connections, connections
from multisite.supervisor.reexec import PART, Handed, Keeper, State, kept
from multisite.supervisor.site import exits
from multisite.supervisor.site.backends import HELD
from multisite.supervisor.site.context import Context
from multisite.supervisor.site.events import DISABLED, ENABLED
from multisite.supervisor.site.failures import Unavailable
from multisite.supervisor.site.supervised import SupervisedSite
from multisite.supervisor.site.triggers import Triggers

BROKEN_RETRY_AFTER = 30  # seconds
PUT_AWAY_AT_ONCE = 32  # sockets in a second, if descriptors run out
MOST_RESTING = 1000  # instances of hosting sites that keep their sockets while they do not run

_log = logging.getLogger("multisite.supervisor")


class SupervisedSites(Handed, dict[str, SupervisedSite]):
    """The sites by name, each supervised from the first time that it is asked for.

    Args:
        live: the configuration, opened.
        context: what the sites share.
    """

    KEPT = kept(_triggers=PART, _warming=PART, accounts=PART, bill=PART)
    ANEW = ("_live", "_context", "_outages", "_told", "_enabled", "announcer")

    def __init__(self, live: LiveHome, context: Context) -> None:
        super().__init__()
        self._live, self._context = live, context
        self._triggers = Triggers()
        self._warming = Warming(self.home)
        self._warming.install(self.catalogue)
        self.accounts = Accounts(self.home)
        self.bill = Bill(self.home, os.path.join(context.rundir.path, usage.FOLDER), self.accounts.totals(()))
        self.announcer = Announcer(self.supervise)
        self.announcer.install(self.catalogue)
        self._outages = outages.of_home(self.home)
        self._told: dict[str, str] = {}  # what is wrong, by subject
        self._enabled = set(self.catalogue.entries)

    def pack(self, keep: Keeper) -> State:
        """Return what `take_over` accepts."""
        # A site as repr(), because JSON has no tuples.
        sites = [[repr(asdict(one.site)), one.domains, one.pack(keep)] for one in self.values()]
        return {**super().pack(keep), "crews": sites, "env": self.home.env}

    def take_over(self, state: State) -> None:
        """Continue where another program stopped, with what has changed meanwhile."""
        super().take_over(state)
        then = replace(self.home, env=state["env"])
        known = {field.name for field in fields(Site)}
        for site, domains, packed in state["crews"]:
            values = {name: value for name, value in ast.literal_eval(site).items() if name in known}
            supervised = SupervisedSite(Site(**values), then, tuple(domains), tuple(packed["stamp"]), self._context)
            self[supervised.site.name] = supervised
            supervised.take_over(packed)
        self._install()

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
    def busy(self) -> list[SupervisedSite]:
        """Those with anything to watch, and those that should start before a request."""
        return [one for one in self.values() if one.is_busy or one.is_due]

    def connections(self) -> dict[str, Connections]:
        """Ask the kernel for the connections of all sites, by the path of their sockets."""
        return connections(os.path.join(self._context.rundir.path, "sites"))

    def supervise(self, name: str, host: str = "") -> SupervisedSite:
        """Return a site, and supervise it from now on.

        Args:
            name: of the site, or of an instance of a hosting site.
            host: which instance is meant, if `name` is that of the hosting site.

        Raises:
            KeyError: there is no such site, or the host has no directory.
            Unavailable: its file is broken.
        """
        supervised = self.get(name)
        if supervised and name in self.catalogue.entries:
            return supervised
        entry, site = self._newest(name, host)
        if site.name not in self:
            new = SupervisedSite(site, self.home, self._domains(site), entry.stamp, self._context)
            new.heed(self._outages.of(site), time.time())
            self[site.name] = new
        return self[site.name]

    def claims(self, host: str) -> bool:
        """Tell whether a site claims a host in its normal form, however new its file is."""
        if self._live.look_again(at_once=True):
            self._install()
        return bool(self.catalogue.table.lookup(host))

    def asked_for(self, name: str, host: str = "") -> list[SupervisedSite]:
        """Return a site that is supervised: of a hosting site, all its instances.

        Raises:
            KeyError, Unavailable: as `supervise`.
        """
        supervised = self.get(hosting.instance_name(name, host) if host else name)
        if supervised:
            return [supervised]
        if not host and self.catalogue.hosting(name):
            return [one for one in self.values() if one.site.template == name]
        supervised = self.get(self._newest(name, host)[1].name)
        return [supervised] if supervised else []

    def is_hosting(self, name: str, host: str = "") -> bool:
        """Tell whether a name stands for a site for each directory, rather than for one of them."""
        return not host and bool(self.catalogue.hosting(name))

    def renewed(self, name: str, host: str = "") -> list[SupervisedSite]:
        """Return what `asked_for` does, after reading the files that it depends on again.

        Raises:
            KeyError, Unavailable: as `supervise`.
        """
        entries = self.catalogue.entries
        entry = entries.get(name) or entries.get(hosting.split_name(name)[0])
        if entry and self._live.renew(entry.path):
            self._install()
        return self.asked_for(name, host)

    def _newest(self, name: str, host: str) -> tuple[Entry, Site]:
        """Return a site according to its file as it is now."""
        if not host and name not in self.catalogue.entries:
            name, host = hosting.split_name(name)
        entry = self.catalogue.entries.get(name)
        if not entry:
            self._live.look_again()
        elif self._live.refresh(entry.path):
            self._install()
        entry = self.catalogue.entries[name]
        if entry.broken:
            error = next(str(problem) for problem in entry.problems if problem.is_error)
            raise Unavailable(f"its file has errors: {error}", BROKEN_RETRY_AFTER)
        found = self._settled(name, host)
        if not found:
            raise KeyError(name)
        return found

    def _settled(self, name: str, host: str) -> tuple[Entry, Site] | None:
        if self.catalogue.hosting(name):
            return self.catalogue.instance(name, host) if host else None
        entry = self.catalogue.entries.get(name)
        return (entry, self.catalogue.site(name)) if entry else None

    def is_known(self, name: str) -> bool:
        """Tell whether a site of this name is enabled or supervised."""
        return name in self or hosting.split_name(name)[0] in self.catalogue.entries or name in self.catalogue.entries

    def check_due(self, now: float) -> None:
        """Bring the sites into line with the files as they are now, and put away those that are no longer needed."""
        try:
            changed = self._live.check_due(now)
            entries = self.catalogue.entries
            names = {one.site.entry_name for one in self.values()}
            for path in {entries[name].path for name in names & entries.keys()}:
                changed |= self._live.refresh(path)
        except OSError as error:
            return self._tell("look", f"cannot read the configuration: {error}")
        self._tell("look", "")
        self._outages.look()
        if changed:
            self._install()
        guard = self._context.loop.attempt
        for supervised in list(self.values()):
            guard(self._check, supervised, now)
        guard(self._warm, now)
        guard(self.announcer.tick, now)
        guard(self._rest)
        self.accounts.keep(self.values(), now)
        guard(self.bill.tick, self.values(), self.accounts, now)

    def heed(self, supervised: SupervisedSite) -> None:
        """Note whether a site is in service now."""
        self._outages.look()
        supervised.heed(self._outages.of(supervised.site), time.time())

    def _check(self, supervised: SupervisedSite, now: float) -> None:
        supervised.heed(self._outages.of(supervised.site), time.time())
        if supervised.site.host and hosts.stamp_of(supervised.site.location) != supervised.stamp[-hosts.PARTS :]:
            self._update(supervised)
        if supervised.is_busy:
            failed = supervised.failures
            if self._triggers.pulled(supervised.site, self.home, now, failed.mending, failed.begun):
                _pull(supervised)
            return
        self._triggers.rest(supervised.site)
        if not supervised.listener.is_open and not supervised.is_due:
            self._put_away(supervised)

    def _warm(self, now: float) -> None:
        """Supervise each site that should run before a request."""
        for name in self._warming.wanted():
            with contextlib.suppress(KeyError, Unavailable):
                self.supervise(name)
        for supervised in self.values():
            supervised.is_due = False
        entries = self.catalogue.entries
        self._warming.check_due((one for one in self.values() if one.site.entry_name in entries), now)

    @property
    def is_expecting(self) -> bool:
        """Whether a change of a site's files will be taken as soon as nothing more changes."""
        return self._triggers.is_expecting

    def _put_away(self, supervised: SupervisedSite) -> None:
        self.accounts.settle(supervised)
        supervised.put_away()
        del self[supervised.site.name]
        self._triggers.forget(supervised.site)

    def put_away(self) -> None:
        """Keep only the counts: the supervisor exits."""
        for supervised in list(self.values()):
            self._put_away(supervised)
        self.accounts.close()
        self.bill.write(self.accounts.totals(()), self._context.loop.now())

    def _rest(self) -> None:
        """Put away sites that have long been unused: instances if there are many, all if descriptors run out.

        First new connections are refused. A second later, if none came before, the socket is closed.
        """
        idle = [one for one in self.values() if not one.is_busy and one.listener.is_open]
        resting = [one for one in idle if not self.announcer.announces(one.site.name)]
        for supervised in [one for one in resting if one.listener.is_withdrawn]:
            supervised.close()
        resting.sort(key=lambda supervised: supervised.activity.last_use)
        instances = [one for one in resting if one.site.host]
        scarce = resting[:PUT_AWAY_AT_ONCE] if descriptors.are_low() else []
        for supervised in (*instances[: max(0, len(instances) - MOST_RESTING)], *scarce):
            supervised.listener.withdraw()

    def starting(self, name: str) -> SupervisedSite:
        """Return a site that is about to start a process: from now on its files may ask for another."""
        supervised = self[name]
        if not supervised.backends.alive:  # else those would never learn of an unseen change
            self._triggers.begin(supervised.site, self.home)
        return supervised

    def _install(self) -> None:
        self._tell_switched()
        self.let_in()
        self._warming.install(self.catalogue)
        self._outages = outages.of_home(self.home)
        self.announcer.install(self.catalogue)  # withdraws sites before their sockets are closed
        for supervised in list(self.values()):
            self._context.loop.attempt(self._update, supervised)

    def _tell_switched(self) -> None:
        """Tell which sites have been enabled or disabled."""
        before, self._enabled = self._enabled, set(self.catalogue.entries)
        for event, names in ((ENABLED, self._enabled - before), (DISABLED, before - self._enabled)):
            for name in sorted(names):
                self._context.tell(event, name)

    def let_in(self) -> None:
        """Open the runtime directory to the users that moya.conf names, and log it if that fails."""
        problem = access_problem(self.home)
        self._tell("access", str(problem or ""), problem.id if problem else "")
        try:
            self._context.rundir.let_in(access_of(self.home))
        except RuntimeDirError as error:
            self._tell("rundir", error.reason, error.id)
        else:
            self._tell("rundir", "")

    def _tell(self, about: str, wrong: str, id: str = "") -> None:
        """Log a problem once, until it is solved or changes."""
        if wrong and wrong != self._told.get(about):
            _log.error("%s %s", id, wrong)
        self._told[about] = wrong

    def _update(self, supervised: SupervisedSite) -> None:
        """Give a site the newest version of its file, or remove it if there is none."""
        found = self._settled(supervised.site.entry_name, supervised.site.host)
        if found and found[0].broken:
            return
        if found and found[1].name == supervised.site.name:
            supervised.update(found[1], self.home, self._domains(found[1]), _stamp_for(supervised, found[0]))
        else:
            supervised.close()

    def _domains(self, site: Site) -> tuple[str, ...]:
        """Return the domains that lead to this site alone, whatever the path."""
        if site.ignore_activity or site.ignore_agents or site.is_restricted or site.is_greeted or site.exclusive:
            return ()  # a front end that goes there directly would wake it, let everybody in, or not find it
        if site.host:
            best = self.catalogue.answering(site.host)[:1]
            return (site.host,) if best and best[0].value == (("/", site.template),) else ()
        name, owners = site.name, self.catalogue.owners
        shared = {domain for domain, mount in owners if mount != "/"}
        exact = [domain for domain in site.domains if not is_pattern(domain) and domain not in shared]
        if site.redirect_to_canonical:
            exact = exact[:1]
        return tuple(domain for domain in exact if owners.get((domain, "/")) == name and "/" not in domain)


def _stamp_for(supervised: SupervisedSite, entry: Entry) -> Stamp:
    """Return the stamp of the wanted version: an edit with errors is no version, another directory may be one."""
    if not has_errors(entry.problems):
        return entry.stamp
    parts = hosts.PARTS if supervised.site.host else 0
    return supervised.stamp[: len(supervised.stamp) - parts] + entry.stamp[len(entry.stamp) - parts :]


def _pull(supervised: SupervisedSite) -> None:
    """A file asks for a reload of the site."""
    if supervised.state in HELD:
        exits.reset(supervised)
    elif supervised.pids:
        supervised.replace("reload")
