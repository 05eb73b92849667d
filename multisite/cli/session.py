"""The state of one run of the command: the home and its sites, read when they are first needed."""

from __future__ import annotations

import fnmatch
import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from multisite.cli.output import complain, suggestion, waiting
from multisite.errors import MultisiteError
from multisite.status.inventory import Inventory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from multisite.config.model import Site, SiteFile

ALL = "all"  # a word for all enabled sites, unless one has that name


class UnknownSite(MultisiteError):
    """No site has the given name."""

    id = "MS912"


@dataclass(frozen=True)
class Named:
    """A site, or an instance of a hosting site, that the user named."""

    file: SiteFile
    site: Site

    @property
    def request(self) -> dict[str, str]:
        """The arguments that name the site to the supervisor."""
        return {"site": self.site.entry_name, "host": self.site.host}


class Session(Inventory):
    """The home and its sites as commands name them, and whether to print JSON."""

    def __init__(self, home: str | None = None, as_json: bool = False) -> None:
        super().__init__(home)
        self.as_json = as_json

    def warn(self, text: str) -> None:
        """Print a warning on stderr."""
        complain("warning", text)

    def waiting(self, what: str) -> AbstractContextManager[Any]:
        """Show on a terminal what takes longer than a moment."""
        return waiting(what)

    def warn_of_drain(self) -> None:
        """Print on stderr that this machine is draining, if it is; a JSON document contains that."""
        if self.drain and not self.as_json:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.drain.since))
            complain("warning", f"this machine has been draining since {since}; multisite drain --undo ends that")

    def warn_of_hidden(self) -> None:
        """Print on stderr what is hidden from this user, if anything."""
        for text in filter(None, (self.hidden, self.unread)):
            complain("warning", text)

    def enabled_site(self, name: str) -> SiteFile:
        """Return the enabled site with this name, or whose file has it.

        Raises:
            UnknownSite: no enabled site has the name.
        """
        sites = self.catalogue.sites
        if name in sites:
            return sites[name]
        stem = stem_of(name)
        for site in sites.values():
            if stem in (site.name, stem_of(os.path.basename(site.path))):
                return site
        raise UnknownSite(self._unknown(name, stem, sites))

    def named(self, name: str) -> Named:
        """Return the enabled site with this name, or whose file has it, or the instance with this name or host.

        Raises:
            UnknownSite: no enabled site has the name.
        """
        try:
            file = self.enabled_site(name)
        except UnknownSite:
            found = self._instance(name)
            if not found:
                raise
            return found
        return Named(file, self.catalogue.site(file.name))

    def chosen(self, names: Iterable[str]) -> list[Named]:
        """Return the enabled sites for names, each once: `ALL`, wildcards, or names as for `named`.

        Raises:
            UnknownSite: a name or a wildcard matches no site.
        """
        found = [self.named(one) for name in names for one in self._meant(name)]
        return list({each.site.name: each for each in found}.values())

    def _meant(self, name: str) -> list[str]:
        """Return the names that `ALL` or a wildcard stands for; any other name stands for itself."""
        sites = self.catalogue.sites
        if name in sites or not (name == ALL or is_wildcard(name)):
            return [name]
        matching = list(sites) if name == ALL else fnmatch.filter(sites, stem_of(name))
        if not matching:
            raise UnknownSite(f"no enabled site matches {name!r}" if name != ALL else "no site is enabled")
        return matching

    def any_site(self, name: str) -> Named:
        """Return the site or instance with this name, enabled or only available.

        Raises:
            UnknownSite: there is none.
        """
        from multisite.config.read import make_site

        try:
            return self.named(name)
        except UnknownSite:
            file = self.known_site(name)
            return Named(file, make_site(file, self.home))

    def _instance(self, name: str) -> Named | None:
        for site, host in self._instances_called(name):
            found = self.catalogue.instance(site, host)
            if found:
                return Named(found[0].file, found[1])
        return None

    def _instances_called(self, name: str) -> Iterator[tuple[str, str]]:
        from multisite.config import hosting
        from multisite.config.domains import normalise
        from multisite.errors import BadHost

        yield hosting.split_name(name)
        try:
            host = normalise(name)
        except BadHost:
            return
        for claim in self.catalogue.answering(host)[:1]:
            yield from ((site, host) for _mount, site in claim.value)
        known = self.supervisor["sites"].get(name) if self.supervisor else None
        if known:  # a shortened name
            yield known["template"], known["host"]

    def known_site(self, name: str) -> SiteFile:
        """Return the site with this name, enabled or only available.

        Raises:
            UnknownSite: there is none.
        """
        try:
            return self.enabled_site(name)
        except UnknownSite:
            stem = stem_of(name)
            for available, file in self.disabled.items():
                if stem in (available, file.name):
                    return file
            raise

    def _unknown(self, name: str, stem: str, sites: dict[str, SiteFile]) -> str:
        if stem in self.places.choices():
            return f"the site {stem} is not enabled; multisite ensite {stem} enables it"
        if self.unread:
            return f"no visible site in {self.home.path} is called {name!r}; {self.unread}"
        return f"there is no site {name!r} in {self.home.path}{suggestion(stem, [*sites, *self.places.choices()])}"


def is_wildcard(name: str) -> bool:
    """Tell whether `name` is a wildcard."""
    return bool(set(name) & set("*?["))


def stem_of(name: str) -> str:
    """Strip ``.ini``: users may name a site by its file."""
    return name[:-4] if name.endswith(".ini") else name


pass_session = click.make_pass_decorator(Session)
