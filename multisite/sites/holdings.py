"""Which file has a name or a domain that two files claim: the one that had it first, over restarts, too.

Workers, the supervisor and the command line agree because all of them read the same note in the state directory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from multisite.config.model import Home
from multisite.sites.statefile import StateFile

Claim = tuple[str, str]  # (domain, mount)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What each enabled site file has, by its path.

    Attributes:
        names: site name → path of the file whose site has it.
        domains: claim → path of the file whose site answers there.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    domains: Mapping[Claim, str] = field(default_factory=dict)

    def above(self, other: Holdings) -> Holdings:
        """Return these, and further ones of `other`."""
        return Holdings({**other.names, **self.names}, {**other.domains, **self.domains})


NOBODY = Holdings()


class HoldingsFile:
    """The holdings of one home, shared by all its processes."""

    def __init__(self, home: Home) -> None:
        self._file = StateFile(home, "holdings")

    def load(self) -> Holdings:
        """Return the note; nothing if it cannot be read or trusted."""
        rows = self._file.rows()
        try:
            domains = {(str(domain), str(mount)): str(path) for domain, mount, path in rows.get("domains", ())}
            return Holdings({str(name): str(path) for name, path in rows.get("names", ())}, domains)
        except (TypeError, ValueError):
            return NOBODY

    def keep(self, holdings: Holdings) -> None:
        """Note who has what from now on, if that has changed."""
        if holdings != self.load():
            names = list(holdings.names.items())
            domains = [(*claim, path) for claim, path in holdings.domains.items()]
            self._file.store({"names": names, "domains": domains})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from deciding meanwhile."""
        with self._file.locked():
            yield
