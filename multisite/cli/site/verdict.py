"""What the commands print about a new or enabled site: its problems with their remedies, or its address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from multisite.cli.output import say, say_problems
from multisite.cli.site.address import address_of

if TYPE_CHECKING:
    from multisite.cli.session import Session
    from multisite.config.model import SiteFile
    from multisite.errors import Problem

PROMISES = ("static", "logging")  # sections whose folders have to exist, although the site works without them


@dataclass(frozen=True)
class Verdict:
    """The result of checking a site now.

    Attributes:
        file: file of the site.
        problems: all problems that the checks found.
    """

    session: Session
    file: SiteFile
    problems: tuple[Problem, ...]

    @property
    def is_good(self) -> bool:
        """Whether the only problems are warnings that may be intended, or that only the service's user can verify."""
        return not any(problem.is_error or problem.section in PROMISES for problem in self.problems)

    @cached_property
    def address(self) -> tuple[str, str]:
        """The site's URL, and a note about it."""
        return address_of(self.session, self.file) if self.is_good else ("", "")

    def say(self) -> None:
        """Print the problems, each with its remedy, or the address."""
        say_problems(self.problems)
        if self.is_good:
            say(f"{self.file.name}: {''.join(self.address)}")

    def as_dict(self) -> dict[str, Any]:
        """Return the members for ``--json``."""
        return {"problems": [problem.as_dict() for problem in self.problems], "address": self.address[0] or None}


def of_enabled(session: Session, path: str, forced: bool = False) -> Verdict | None:
    """Return the verdict on the enabled site whose link or file is `path`; None if another site has its name.

    With `forced`, a domain that another site keeps is a warning: whoever typed the command has accepted that.
    """
    from multisite.status.report import problems_of

    for name, entry in session.catalogue.entries.items():
        if entry.path == path:
            file, found = entry.file, problems_of(session, name)
            accepted = {one for one in found if forced and one.key == "domains" and one.value in file.domains}
            problems = (replace(one, severity="warning") if one in accepted else one for one in found)
            return Verdict(session, file, tuple(problems))
    return None


def of_available(session: Session, stem: str) -> Verdict:
    """Return the verdict on a site file that is not enabled."""
    from multisite.status.report import problems_of_file

    file = session.read_available(stem)
    return Verdict(session, file, problems_of_file(session, file))


def say_once_fixed(verdicts: Iterable[Verdict]) -> None:
    """Print that sites with problems stay enabled, as with a2ensite."""
    for verdict in verdicts:
        if not verdict.is_good:
            name = verdict.file.name
            then = f"it starts serving when they are fixed; multisite dissite {name} takes it out of service"
            say(f"multisite: {name} is enabled but has problems; {then}", err=True)
