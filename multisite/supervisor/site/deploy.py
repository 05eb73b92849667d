"""The attempts to have a new version of a site in the place of the one that serves, and what became of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from multisite.supervisor.handover import Handed
from multisite.supervisor.handover import State as Packed
from multisite.supervisor.lifecycle import State
from multisite.supervisor.site import replacement
from multisite.supervisor.site.backends import HELD, Backends
from multisite.supervisor.site.failures import Failures
from multisite.supervisor.site.waiting import WaitingRoom

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
        if failure and (not backends or backends.any_in(*HELD)):
            return self.failed(failure)
        old = any(one.obsolete and one.state in (State.STARTING, State.RUNNING) for one in backends)
        new = any(not one.obsolete and one.state is State.RUNNING for one in backends)
        rests = not backends  # it was stopped meanwhile, and starts as the new version
        return self.done() if rests or (new and not old) else self

    def as_dict(self) -> dict[str, Any]:
        """Describe it for ``status``."""
        return asdict(self)


class Deploys(Handed):
    """The attempts of one site, one after another: a new generation starts beside the old one, and which stays shows.

    Attributes:
        last: the newest attempt.
        is_followed: an older version serves in the workers, until this one has shown that it is good.
    """

    HANDED = ("is_followed",)
    PARTS = ("last",)
    ANEW = ("_backends", "_failures", "_room")

    def __init__(self, backends: Backends, failures: Failures, room: WaitingRoom) -> None:
        self.last = Deploy()
        self.is_followed = False
        self._backends, self._failures, self._room = backends, failures, room

    def pack(self) -> Packed:
        """Return what `take_over` takes."""
        return {**self.hand(), "last": self.last.as_dict()}

    def take_over(self, state: Packed) -> None:
        """Go on where another program was."""
        self.go_on(state)
        self.last = Deploy(**state["last"])

    @property
    def needs_smoke(self) -> bool:
        """Whether what starts now has to show that it is good: there is something better, or its version failed."""
        return self._backends.any_in(State.RUNNING) or self.is_followed or self.last.state in (TRYING, FAILED)

    def begin(self, cause: str) -> None:
        """Have new backends beside those that serve, which end when the new ones are ready."""
        if replacement.mark_all(self._backends, cause):
            self.last = self.last.next(cause)
            self._room.want()

    def ready(self, wanted: int) -> None:
        """Go on now that a process is ready; `wanted` is how many the site is to have."""
        self.is_followed = False
        replacement.relieve(self._backends, wanted)
        if self.last.state == FAILED and not self._failures.replacement:
            self.last = self.last.done()
        self.see()

    def see(self) -> None:
        """Note what has become of the new version."""
        failures = self._failures
        if failures.replacement:
            self.last = self.last.failed(failures.replacement)
        elif failures.last and (failures.in_a_row > 1 or (failures.in_a_row and not self._backends)):
            self.last = self.last.seen(self._backends, failures.last.failure)
        else:
            self.last = self.last.seen(self._backends, "")
