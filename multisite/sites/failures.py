"""The last failure of each site that could not be served, noted for ``multisite explain``.

Workers and supervisors come and go and the command line is another process, so the last failure of a
site is kept in the state directory until the site is served again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from multisite.config.model import Home
from multisite.sites.changes import changed_at
from multisite.sites.statefile import StateFile

MEMORY = "memory"  # the part of a site whose failures are processes that used too much


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure.

    Attributes:
        at: Unix time.
        serving: whether an older application is still serving.
        own_process: that it is no failure of the site: it may not live in a process with others.
        steps: the steps of a start, with seconds.
        output: the last lines that a process printed.
        watched: files whose change may have mended it.
        crashed: that a process was ready before it ended, so that the next one may well answer.
        remedy: what would help, "" where nobody knows.
        unreachable: the upstream that could not be reached, as the site's file has it.
        answered: how many requests of the site had been answered by then (`multisite.sites.troubles`).
        basis: of `own_process`: what moya.conf said then (`multisite.sites.placement.basis`).
    """

    reason: str
    incident: str
    at: float
    serving: bool = False
    own_process: bool = False
    steps: tuple[tuple[str, float], ...] = ()
    output: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()
    basis: str = ""
    crashed: bool = False
    remedy: str = ""
    unreachable: str = ""
    answered: int = 0

    @property
    def broken(self) -> bool:
        """Whether visitors get an error page."""
        return not self.serving and not self.own_process and not self.crashed and not self.outdated

    @property
    def outdated(self) -> bool:
        """Whether a file has changed since, so that the next request may succeed."""
        return any(changed_at(path) > self.at for path in self.watched)


class LastFailures:
    """The last failure of each site of a home, of one `kind`.

    The workers note failed imports; the supervisor has another kind, so that neither clears the other's notes.
    """

    def __init__(self, home: Home, kind: str = "verdicts") -> None:
        self._file = StateFile(home, kind)

    @property
    def path(self) -> str:
        """Where they stand; the file is another one after each change."""
        return self._file.path

    def all(self) -> dict[str, Failure]:
        """Return the failures by site name."""
        document = self._file.load()
        try:
            return {str(name): _failure(row) for name, row in (document or {}).items()}
        except (AttributeError, TypeError, ValueError):
            return {}

    def note(
        self,
        site: str,
        reason: str,
        incident: str,
        *,
        serving: bool,
        own_process: bool = False,
        steps: Iterable[tuple[str, float]] = (),
        output: Iterable[str] = (),
        watched: Iterable[str] = (),
        basis: str = "",
        crashed: bool = False,
        remedy: str = "",
    ) -> None:
        """Note that `site` has failed; the arguments are those of `Failure`.

        If one process has noted that visitors get an error page, `serving` of another one does not change that: some
        visitors still get it.
        """
        told = (tuple(steps), tuple(output), tuple(watched), basis, crashed, remedy)
        with self._file.locked():
            kept = self.all()
            last = kept.get(site)
            serving = serving and not (last and not last.serving and not last.own_process)
            self._store({**kept, site: Failure(reason, incident, time.time(), serving, own_process, *told)})

    def join(self, site: str, joined: Callable[[Failure | None], Failure]) -> Failure:
        """Keep what `joined` makes of the last failure, and return it; nobody else notes one meanwhile."""
        with self._file.locked():
            kept = self.all()
            failure = joined(kept.get(site))
            self._store({**kept, site: failure})
        return failure

    def clear(self, site: str) -> bool:
        """Note that `site` is served; tell whether it had failed."""
        had_failed = site in self.all()
        if had_failed:
            with self._file.locked():
                self._store({name: failure for name, failure in self.all().items() if name != site})
        return had_failed

    def _store(self, failures: dict[str, Failure]) -> None:
        self._file.store({name: asdict(failure) for name, failure in failures.items()})


def _failure(row: dict[str, Any]) -> Failure:
    steps = tuple((str(step), float(seconds)) for step, seconds in row.pop("steps", ()))
    return Failure(steps=steps, output=tuple(row.pop("output", ())), watched=tuple(row.pop("watched", ())), **row)


def part(site: str, what: str) -> str:
    """Return the name under which a failure of a part of `site` is noted, beside the one of the whole."""
    return f"{site}\n{what}"


def of_starts(home: Home) -> LastFailures:
    """Return the last failed start or run of each spawned site."""
    return LastFailures(home, "starts")
