"""The sites of a home as a whole: who has which name and which domain.

Built from all entries, then only read; replaced as a whole when something has changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from multisite.config import hosting
from multisite.config.domains import HostMatch, HostTable, local_host
from multisite.config.model import Home, Site, SiteFile
from multisite.config.read import make_site
from multisite.errors import Problem
from multisite.sites import hosts, sharing
from multisite.sites.claims import Ledger
from multisite.sites.holdings import NOBODY, Holdings, HoldingsFile
from multisite.sites.sitedir import Entry, SiteDir
from multisite.sites.statefile import StateFile

Mounts = tuple[tuple[str, str], ...]  # (mount, site name), the longest mount first


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every enabled site by its name, and the host table over all of them."""

    home: Home
    entries: dict[str, Entry] = field(default_factory=dict)  # by site name, in read order
    table: HostTable[Mounts] = field(default_factory=lambda: HostTable(()))
    owners: dict[tuple[str, str], str] = field(default_factory=dict)  # (domain, mount) → site name
    problems: tuple[Problem, ...] = ()
    _hosting: dict[str, Site | None] = field(default_factory=dict)  # the hosting sites among those asked for

    def site(self, name: str) -> Site:
        """Return the site with all defaults filled in; KeyError if there is none of that name."""
        return make_site(self.entries[name].file, self.home)

    def hosting(self, name: str) -> Site | None:
        """Return the site of that name if each of its hosts is a separate instance, else None."""
        if name not in self._hosting:
            site = self.site(name) if name in self.entries else None
            self._hosting[name] = site if site and hosting.is_hosting(site.location) else None
        return self._hosting[name]

    def instance(self, name: str, host: str) -> tuple[Entry, Site] | None:
        """Return the instance of a hosting site for a normalised host; None if the host has no folder.

        A folder that is a link to another host's folder leads to that host's instance.
        """
        site = self.hosting(name)
        if not site:
            return None
        found = hosting.values(site.domains, host) if self.leads_to(name, host) else None
        stamp = found and hosts.stamp_of(hosting.fill(site.location, found))
        if not found or not stamp:
            return None
        canonical = hosts.canonical(site.location, host)
        if canonical != host:
            instance = self.instance(name, canonical)
            if instance:
                return instance
        entry = self.entries[name]
        settled = make_site(entry.file, self.home, host, found)
        if settled.files_only:
            settled = replace(settled, application=hosts.application(settled.location))
        file = replace(entry.file, name=settled.name, domains=(host,))
        return replace(entry, file=file, stamp=(*entry.stamp, *stamp)), settled

    def claims(self, host: str) -> bool:
        """Tell whether a site, and not only the default one, answers a normalised host."""
        names = [name for claim in self.table.lookup(host) for _mount, name in claim.value]
        return any(not self.hosting(name) or self.instance(name, host) for name in names)

    def leads_to(self, name: str, host: str) -> bool:
        """Tell whether the site `name` has a claim on a normalised host."""
        return any(name == claimant for claim in self.answering(host) for _mount, claimant in claim.value)

    @property
    def holdings(self) -> Holdings:
        """Who has which name and which domain."""
        names = {name: entry.path for name, entry in self.entries.items()}
        return Holdings(names, {claim: names[name] for claim, name in self.owners.items()})

    @property
    def sites(self) -> dict[str, SiteFile]:
        """The content of each site's file, by name, in read order."""
        return {name: entry.file for name, entry in self.entries.items()}

    def answering(self, host: str) -> list[HostMatch[Mounts]]:
        """Return the claims that match a normalised host, the best first; the default site's where none does."""
        found = self.table.lookup(host)
        default = self.home.service.default_site
        if not found and default in self.entries:
            found = [HostMatch("", (("/", default),), {})]
        return found


def read(home: Home) -> Catalogue:
    """Read all sites of `home` in one go, as the command line does; a last good version that is serving counts."""
    folder = SiteDir(home, store=False)
    folder.scan()
    return build(folder.entries.values(), home, HoldingsFile(home).load(), folder.problems)


def ledger(home: Home, current: Callable[[], Catalogue | None]) -> Ledger:
    """Return the claims on module names of `home`; claims that no longer hold in `current` do not count."""

    def is_live(name: str, names: Mapping[str, str]) -> bool:
        sites = current()
        return sites is not None and name in sites.entries and sharing.holds(sites.site(name), home, names)

    return Ledger(StateFile(home, "claims"), is_live)


def build(entries: Iterable[Entry], home: Home, held: Holdings = NOBODY, problems: Iterable[Problem] = ()) -> Catalogue:
    """Give names and domains to `entries` in their order.

    If two files claim the same, the one in `held` keeps it, else the earlier one gets it: an addition never takes
    anything from a serving site. `problems` are those of the folders.
    """
    entries = list(entries)
    problems = [*problems, *(problem for entry in entries for problem in entry.problems)]
    named, clashes = _name(entries, held)
    claims, owners, conflicts = _claim(named, held)
    problems += clashes + conflicts
    default = home.service.default_site
    if default and default not in named:
        problems.append(
            Problem(
                "MS240",
                home.file,
                "no enabled site has this name",
                "service",
                "default_site",
                default,
                remedy="enable it or clear the key",
            )
        )
    problems += _of_the_pages(named.values(), home.service.status_domain.lower())
    local = named.items() if home.service.localhost_names else ()
    hosts = {host: ((entry.file.mount, name),) for name, entry in local if (host := local_host(name))}
    table = HostTable(claims, hosts)
    return Catalogue(home, named, table, owners, (*home.problems, *problems))


def _of_the_pages(entries: Iterable[Entry], domain: str) -> list[Problem]:
    """Return the sites that claim the domain of the status pages; they never get its requests."""
    remedy = "remove it, or give the status pages another domain"
    what = "the status pages have this domain and keep it: [service] status_domain in moya.conf"
    claiming = [entry for entry in entries if domain and domain in entry.file.domains]
    return [Problem("MS241", entry.path, what, "service", "domains", domain, remedy) for entry in claiming]


def _name(entries: list[Entry], held: Holdings) -> tuple[dict[str, Entry], list[Problem]]:
    holders: dict[str, Entry] = {}
    for entry in entries:
        name = entry.file.name
        if name not in holders or held.names.get(name) == entry.path:
            holders[name] = entry
    named: dict[str, Entry] = {}
    problems = []
    for entry in entries:
        holder = holders[entry.file.name]
        if holder is entry:
            named[entry.file.name] = entry
            continue
        problems.append(_same_name(entry, holder))
        loser = _renamed(entry, problems[-1], holders.keys() | named.keys())
        named[loser.file.name] = loser
    return named, problems


def _same_name(loser: Entry, holder: Entry) -> Problem:
    return Problem(
        "MS242",
        loser.path,
        f"{holder.path} has this name, too, and keeps it",
        "service",
        "name",
        loser.file.name,
        remedy="give one of the two another name",
    )


def _renamed(entry: Entry, problem: Problem, taken: Iterable[str]) -> Entry:
    """Return a broken site under a free name, so that its domains answer with an error page."""
    stem = entry.file.name[:60]
    name = next(each for each in (f"{stem}-{number}" for number in itertools.count(2)) if each not in taken)
    file = replace(entry.file, name=name, problems=(*entry.file.problems, problem))
    return replace(entry, file=file, problems=(*entry.problems, problem))


def _claim(
    named: dict[str, Entry], held: Holdings
) -> tuple[list[tuple[str, Mounts]], dict[tuple[str, str], str], list[Problem]]:
    claims = [((domain, e.file.mount), name) for name, e in named.items() for domain in e.file.domains]
    owners: dict[tuple[str, str], str] = {}
    for claim, name in claims:
        if claim not in owners or held.domains.get(claim) == named[name].path:
            owners[claim] = name
    problems = [_conflict(named[name], named[owners[claim]], *claim) for claim, name in claims if owners[claim] != name]
    mounts: dict[str, list[tuple[str, str]]] = {}
    for (domain, mount), name in owners.items():
        mounts.setdefault(domain, []).append((mount, name))
    return [(d, tuple(sorted(m, key=lambda pair: -len(pair[0])))) for d, m in mounts.items()], owners, problems


def _conflict(loser: Entry, holder: Entry, domain: str, mount: str) -> Problem:
    where = "" if mount == "/" else f" at {mount}"
    return Problem(
        "MS243",
        loser.path,
        f"{holder.path} claims this domain{where}, too, and keeps it",
        "service",
        "domains",
        domain,
        remedy="remove it from one of the two files, or give one another mount",
    )
