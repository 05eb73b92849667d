"""What became of the last attempt to have a new version of a site in the place of the one that serves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from multisite.supervisor.backends import HELD, Backends
from multisite.supervisor.lifecycle import State

NONE, TRYING, DONE, FAILED = "", "trying", "done", "failed"


@dataclass(frozen=True)
class Deploy:
    """One attempt.

    Attributes:
        number: of the site's attempts, from 1; 0: there was none.
        cause: reload or restart.
        state: trying, done or failed; "" where there was none.
        failure: why the old version goes on.
    """

    number: int = 0
    cause: str = ""
    state: str = NONE
    failure: str = ""

    def next(self, cause: str) -> Deploy:
        """Return the attempt after this one."""
        return Deploy(self.number + 1, cause, TRYING)

    def done(self) -> Deploy:
        """Return this attempt, whole: the newest version serves."""
        return Deploy(self.number, self.cause, DONE)

    def failed(self, reason: str) -> Deploy:
        """Return this attempt, given up."""
        return Deploy(self.number, self.cause, FAILED, reason) if self.state == TRYING else self

    def seen(self, backends: Backends, failure: str) -> Deploy:
        """Return this attempt as the site's `backends` show it; `failure` is that of starts that fail in a row."""
        if self.state != TRYING:
            return self
        if failure and any(one.state in HELD for one in backends):
            return self.failed(failure)
        old = any(one.obsolete and one.state in (State.STARTING, State.RUNNING) for one in backends)
        new = any(not one.obsolete and one.state is State.RUNNING for one in backends)
        rests = not backends  # it was stopped meanwhile, and starts as the new version
        return self.done() if rests or (new and not old) else self

    def as_dict(self) -> dict[str, Any]:
        """Describe it for ``status``."""
        return asdict(self)
