"""What is known about a home: its files, the supervisor's report, and the counts and notes about its sites.

Each part is read once, when it is first needed.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from multisite.errors import MultisiteError
from multisite.sites.enabling import Places
from multisite.status import sight

if TYPE_CHECKING:
    from collections.abc import Iterable

    from multisite.config.model import Home, SiteFile
    from multisite.control.client import Client
    from multisite.control.draining import Drain
    from multisite.errors import Problem
    from multisite.sites.catalogue import Catalogue
    from multisite.sites.claims import Names
    from multisite.sites.failures import Failure
    from multisite.sites.figures import Sums
    from multisite.sites.outages import Outages
    from multisite.sites.placements import Placements
    from multisite.sites.tally import Tally


class Inventory:
    """A home and its sites.

    Args:
        home: its directory; None: by the rule of `multisite.config.read.find_home`.
    """

    def __init__(self, home: str | None = None) -> None:
        self.home_option = home

    def warn(self, text: str) -> None:
        """Take a warning about what is hidden; commands print it."""

    def waiting(self, what: str) -> AbstractContextManager[Any]:
        """Enclose a task that may take longer than a moment; commands show it."""
        return nullcontext(what)

    @cached_property
    def home_path(self) -> str:
        """Directory of ``moya.conf``, by the rule of `multisite.config.read.find_home`."""
        from multisite.config.read import find_home

        return find_home(self.home_option)

    @cached_property
    def home(self) -> Home:
        """The home as ``moya.conf`` describes it, with the folders that its service uses."""
        from multisite.config.read import read_home

        return sight.of_service(read_home(self.home_path))

    @cached_property
    def catalogue(self) -> Catalogue:
        """Every enabled site and the host table, read from the files."""
        from multisite.sites import catalogue

        with self.waiting(f"reading the site files of {self.home.path}"):
            return catalogue.read(self.home)

    @cached_property
    def supervisor(self) -> dict[str, Any] | None:
        """The supervisor's report on itself and its sites; None if none is running or it does not answer this user.

        If another home's supervisor has its place, a warning goes to stderr, and the command works without it.
        """
        return self._asked[0]

    @cached_property
    def _asked(self) -> tuple[dict[str, Any] | None, str]:
        """Return the status, and the socket that is closed to this user, "" if none is."""
        from multisite.control.client import NotAdmitted, SupervisorError

        try:
            return self.ask("status"), ""
        except NotAdmitted as error:
            return None, error.path
        except SupervisorError as error:
            self.warn(f"{error.id} {error}")
            return None, ""

    @cached_property
    def hidden(self) -> str:
        """Why this user may not see the service's state, and the command that shows it; "" if everything is visible."""
        place = self._asked[1] or sight.closed(self.home)
        if not place:
            return ""
        again = sight.privileged(self.home)
        shown = f"; to see them: {again}" if again else ""
        user = sight.user_name(os.geteuid())
        return f"processes, states and counts are hidden: {place} is closed to the user '{user}'{shown}"

    def seen(self, problems: Iterable[Problem]) -> list[Problem]:
        """Return problems as this user sees them (`multisite.status.sight.as_seen`)."""
        return [sight.as_seen(problem, self.home) for problem in problems]

    @cached_property
    def unread(self) -> str:
        """The site files that this user may not read, and the command that shows them; "" if there are none."""
        from multisite.config.safefiles import LET_READ

        shut = [problem for problem in self.catalogue.problems if problem.remedy == LET_READ]
        again = sight.privileged(self.home) if shut else ""
        if not again:
            return ""
        more = f" (and {len(shut) - 1} more)" if len(shut) > 1 else ""
        return f"sites may be hidden: {shut[0].file}: {shut[0].reason}{more}; to see them: {again}"

    @cached_property
    def known(self) -> dict[str, dict[str, Any]]:
        """What is known about each site's processes: the supervisor's report, else the last saved one."""
        try:
            answer = self.supervisor
        except MultisiteError:  # it does not answer
            answer = None
        kept = {name: tally.as_dict() for name, tally in self.tallies.items()}
        return {**kept, **(answer["sites"] if answer else {})}

    def is_held(self, site: str) -> bool:
        """Tell whether the supervisor has processes of a site, or prevents it from starting any."""
        known = self.known.get(site, {})
        state = known.get("state")
        return bool(state and (known["pids"] or (state in ("backoff", "fatal") and not self.is_in_workers(site))))

    @cached_property
    def problems(self) -> dict[str, list[Problem]]:
        """The problems of enabled sites and of the home, by file."""
        found: dict[str, list[Problem]] = {}
        for problem in self.seen(self.catalogue.problems):
            found.setdefault(problem.file, []).append(problem)
        return found

    @cached_property
    def usage(self) -> tuple[dict[str, Sums], float]:
        """The workers' counts for each site, and since when (`multisite.sites.usage.read`), if they are readable."""
        from multisite.sites.statefile import StateFile
        from multisite.sites.usage import FOLDER, read

        try:
            return read(os.path.join(self.home.runtime_dir, FOLDER), StateFile(self.home, FOLDER))
        except PermissionError:
            return {}, 0.0

    @cached_property
    def drain(self) -> Drain | None:
        """The drain of this machine that is in force; None for none."""
        from multisite.control.draining import of_home

        return of_home(self.home, self.servers)

    def servers(self) -> set[int]:
        """Return the servers that have had requests for sites and run now, as far as this user may know."""
        from multisite.control.serverprocess import server_of
        from multisite.sites.statefile import StateFile
        from multisite.sites.usage import FOLDER, pids

        try:
            found = pids(os.path.join(self.home.runtime_dir, FOLDER), StateFile(self.home, FOLDER))
        except PermissionError:
            found = []
        answer = self.supervisor
        return {server_of(pid) for pid in found} | set(answer["supervisor"]["servers"] if answer else ())

    def ask(self, command: str, **arguments: Any) -> dict[str, Any] | None:
        """Ask the supervisor of the home; None if none is running."""
        from multisite.control.client import NotRunning

        try:
            with self.waiting("waiting for the supervisor"):
                return self.client.ask({"do": command, **arguments})
        except NotRunning:
            return None

    @cached_property
    def client(self) -> Client:
        """The client of the supervisor; root also accepts that of the service's user."""
        from multisite.control.client import Client

        return Client(self.home, believes=(sight.service_uid(self.home),) if os.geteuid() == 0 else ())

    @cached_property
    def _claims(self) -> dict[str, Names]:
        """The module names that the workers have given to sites."""
        from multisite.sites import catalogue

        return catalogue.ledger(self.home, lambda: self.catalogue).others("")

    def claims_beside(self, site: str) -> dict[str, Names]:
        """Return the module names that the workers have given to other sites than this one."""
        return {name: held for name, held in self._claims.items() if name != site}

    @cached_property
    def failed_loads(self) -> dict[str, Failure]:
        """The workers' notes on the last failure to load a site, by the site's name."""
        from multisite.sites.failures import LastFailures

        return LastFailures(self.home).all()

    @cached_property
    def outages(self) -> Outages:
        """The outages of sites."""
        from multisite.sites.outages import Outages

        outages = Outages(self.home)
        outages.look()
        return outages

    @cached_property
    def placements(self) -> Placements:
        """Where sites with mode = auto run at present."""
        from multisite.sites.placements import Placements

        return Placements(self.home)

    def is_in_workers(self, site: str) -> bool:
        """Tell whether a site with mode = auto runs in the workers at present."""
        row = self.placements.of(site)
        return row is not None and row.is_here

    @cached_property
    def failed_starts(self) -> dict[str, Failure]:
        """The supervisor's notes on the last failure to start a site, by the site's name."""
        from multisite.sites import failures

        return failures.of_starts(self.home).all()

    @cached_property
    def histories(self) -> dict[str, str]:
        """The files of the histories that are there, by the site's name."""
        from multisite.sites import history

        return history.paths(self.home)

    @cached_property
    def relative(self) -> dict[str, str]:
        """The workers' warnings about relative paths, by the site's name."""
        from multisite.sites import relativepaths

        return relativepaths.noted(self.home)

    @cached_property
    def tallies(self) -> dict[str, Tally]:
        """The use of sites that a supervisor saved last, by name."""
        from multisite.sites.tally import Tallies

        return Tallies(self.home).all()

    @cached_property
    def places(self) -> Places:
        """The directories of site files and of links."""
        return Places.of(self.home.path, self.home.projects.read)

    @cached_property
    def available(self) -> dict[str, SiteFile]:
        """Site files of ``sites-available`` by stem, including enabled ones."""
        return {stem: self.read_available(stem) for stem in self.places.choices()}

    @cached_property
    def disabled(self) -> dict[str, SiteFile]:
        """Site files of ``sites-available``, by stem, that are not enabled."""
        from multisite.sites.enabling import identity
        from multisite.sites.sitedir import enabled_paths

        enabled = {identity(path) for path in enabled_paths(self.home)}
        stems = (stem for stem in self.places.choices() if identity(self.places.source(stem)) not in enabled)
        return {stem: self.read_available(stem) for stem in stems}

    def read_available(self, stem: str) -> SiteFile:
        """Read the site file `stem` of ``sites-available``."""
        from multisite.config.read import read_site

        return read_site(self.places.source(stem), self.home.path, defaults=self.home.defaults)

    def reread(self, file: SiteFile) -> SiteFile:
        """Read a site file as it is now."""
        from multisite.config.read import read_site

        return read_site(file.path, self.home.path, defaults=self.home.defaults)
