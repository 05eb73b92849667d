"""What is said of a site when it is written or enabled: its problems with their remedies, or its address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from multisite.cli.output import say, say_problems
from multisite.cli.site.address import address_of

if TYPE_CHECKING:
    from multisite.cli.session import Session
    from multisite.config.model import SiteFile
    from multisite.errors import Problem

PROMISES = ("static", "logging")  # sections whose places have to be there, although the site is served without


@dataclass(frozen=True)
class Verdict:
    """What there is to say of a site at this moment.

    Attributes:
        file: of the site.
        problems: everything that is wrong with it.
    """

    session: Session
    file: SiteFile
    problems: tuple[Problem, ...]

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong but what may be meant, or what only the service's user can tell."""
        return not any(problem.is_error or problem.section in PROMISES for problem in self.problems)

    @cached_property
    def address(self) -> tuple[str, str]:
        """Where the site can be visited, and what has to be said about that."""
        return address_of(self.session, self.file) if self.is_good else ("", "")

    def say(self) -> None:
        """Print the problems, each with its remedy, or the address."""
        say_problems(self.problems)
        if self.is_good:
            say(f"{self.file.name}: {''.join(self.address)}")

    def as_dict(self) -> dict[str, Any]:
        """Return the members for ``--json``."""
        return {"problems": [problem.as_dict() for problem in self.problems], "address": self.address[0] or None}


def of_enabled(session: Session, path: str) -> Verdict | None:
    """Return the verdict on the enabled site whose link or file is `path`; None where another has its name."""
    from multisite.cli.sitestate import problems_of

    for name, entry in session.catalogue.entries.items():
        if entry.path == path:
            return Verdict(session, entry.file, problems_of(session, name))
    return None


def of_available(session: Session, stem: str) -> Verdict:
    """Return the verdict on a site file that is not enabled."""
    from multisite.cli.sitestate import problems_of_file

    file = session.read_available(stem)
    return Verdict(session, file, problems_of_file(session, file))


def say_once_fixed(verdicts: Iterable[Verdict]) -> None:
    """Print what becomes of enabled sites that have problems: they stay enabled, as a2ensite leaves them."""
    for verdict in verdicts:
        if not verdict.is_good:
            name = verdict.file.name
            then = f"it starts serving once they are fixed; multisite dissite {name} takes it out of service"
            say(f"multisite: {name} is enabled, but has problems: {then}", err=True)
