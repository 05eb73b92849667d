"""The attempts to replace the serving version of a site with a new one, and their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from multisite.supervisor.lifecycle import Event, State
from multisite.supervisor.process.kernel import Connections
from multisite.supervisor.reexec import Handed, converted, kept
from multisite.supervisor.site.backend import Backend
from multisite.supervisor.site.backends import HELD, Backends
from multisite.supervisor.site.failures import Failures
from multisite.supervisor.site.queue import WaitQueue

NONE, TRYING, DONE, FAILED = "", "trying", "done", "failed"
TRIAL = "trial"  # the cause of an attempt before which nothing served
STOPPED = "the site was stopped before it was ready"


@dataclass(frozen=True)
class Deploy:
    """One attempt.

    Attributes:
        number: of the site's attempts, from 1; 0: there was none.
        cause: reload, restart, or trial if no process was serving.
        state: trying, done or failed; "" if there was none.
        failure: why the old version keeps running.
        version: when the site's file, as it is tried, was last changed, Unix seconds.
    """

    number: int = 0
    cause: str = ""
    state: str = NONE
    failure: str = ""
    version: float = 0.0

    def failed(self, reason: str) -> Deploy:
        """Return this attempt as given up."""
        return replace(self, state=FAILED, failure=reason) if self.state == TRYING else self

    def seen(self, backends: Backends, failure: str, is_wanted: bool = False) -> Deploy:
        """Return this attempt, judged by the site's `backends`.

        Args:
            backends: of the site.
            failure: of starts that fail in a row, "" for none.
            is_wanted: a start is still to come.
        """
        if self.state != TRYING:
            return self
        if failure and (not backends or backends.any_in(*HELD)):
            return self.failed(failure)
        old = any(one.obsolete and one.state in (State.STARTING, State.RUNNING) for one in backends)
        new = any(not one.obsolete and one.state is State.RUNNING for one in backends)
        rests = not backends and not is_wanted  # it was stopped meanwhile, and starts as the new version
        if rests and self.cause == TRIAL:
            return self.failed(STOPPED)
        return replace(self, state=DONE) if rests or (new and not old) else self

    def as_dict(self) -> dict[str, Any]:
        """Describe it for ``status``."""
        return asdict(self)


class Deploys(Handed):
    """The successive attempts of one site: a new generation starts beside the old one and shows whether it is good.

    Attributes:
        last: the newest attempt.
        is_followed: an older version serves in the workers until this one has shown that it is good.
        begun: when the newest attempt began, in Unix seconds.
    """

    KEPT = kept("is_followed begun", last=converted(Deploy.as_dict, lambda told: Deploy(**told)))
    ANEW = ("_backends", "_failures", "_queue")

    def __init__(self, backends: Backends, failures: Failures, queue: WaitQueue) -> None:
        self.last = Deploy()
        self.is_followed = False
        self.begun = 0.0
        self._backends, self._failures, self._queue = backends, failures, queue

    @property
    def needs_smoke(self) -> bool:
        """Whether a start must show that it is good: something better serves, or its version has failed."""
        failed = self.last.state == FAILED and self.last.cause != TRIAL
        return self._backends.any_in(State.RUNNING) or self.is_followed or self.last.state == TRYING or failed

    @property
    def is_trial(self) -> bool:
        """Whether a version is being tried before which nothing served."""
        return self.last.state == TRYING and self.last.cause == TRIAL

    def begin(self, cause: str, version: float, *, starts: bool = False) -> None:
        """Start new backends beside those that serve; the old ones end when the new ones are ready.

        `starts`: if none serves, start one all the same, and keep it if it is good.
        """
        serves = mark_all(self._backends, cause)
        if serves or starts:
            self.begun = time.time()
            self.last = Deploy(self.last.number + 1, cause if serves else TRIAL, TRYING, version=version)
            self._queue.want()

    def give_up(self, reason: str) -> None:
        """End the attempt: the new version failed."""
        self._become(self.last.failed(reason))

    def _become(self, newest: Deploy) -> None:
        """Take note of how the attempt stands, and tell of its end."""
        before, self.last = self.last, newest
        if newest.state != before.state and (newest.state == FAILED or (newest.state == DONE and self._backends)):
            self._failures.deployed(newest.cause, self.begun, newest.failure)

    def ready(self, wanted: int) -> None:
        """Continue now that a process is ready; `wanted` is how many the site should have."""
        self.is_followed = False
        relieve(self._backends, wanted)
        if self.last.state == FAILED and not self._failures.replacement:
            self._become(replace(self.last, state=DONE, failure=""))
        self.see()

    def see(self) -> None:
        """Note the outcome of the new version; one that serves clears all earlier failures."""
        was_tried, failures = self.last.state == TRYING, self._failures
        if failures.replacement:
            self._become(self.last.failed(failures.replacement))
        elif failures.last and (failures.in_a_row > 1 or (failures.in_a_row and not self._backends)):
            self._become(self.last.seen(self._backends, failures.last.failure, self._is_wanted))
        else:
            self._become(self.last.seen(self._backends, "", self._is_wanted))
        if was_tried and self.last.state == DONE and self._backends:
            failures.mended()

    @property
    def _is_wanted(self) -> bool:
        return self._queue.since is not None


PATIENCE = 5.0  # seconds that a replacement waits for room before its predecessor gives way
SERVING = (State.STARTING, State.RUNNING)  # a silent server may have accepted requests before it is known to be ready


def mark_all(backends: Iterable[Backend], reason: str) -> bool:
    """Replace all that serve; tells whether there are any. Those that are not ready yet, and report it, end at once."""
    serving = [backend for backend in backends if backend.state in SERVING]
    for backend in serving:
        backend.obsolete = reason
        if backend.state is State.STARTING and backend.told:
            backend.feed(Event.STOP, reason)
    return bool(serving)


def mark_large(backends: Iterable[Backend], limit: int | None) -> list[Backend]:
    """Replace those that use more than `limit` bytes; returns them."""
    large = [one for one in backends if limit and one.memory > limit and _may_go(one) and not one.obsolete]
    for backend in large:
        backend.obsolete = "memory"
    return large


def keep_all(backends: Iterable[Backend]) -> None:
    """Replace none of them after all."""
    for backend in backends:
        backend.obsolete = ""


def is_first(backends: Iterable[Backend]) -> bool:
    """Tell whether the next start is the first of a new version: that one is tried alone."""
    return any(backend.obsolete and backend.state in SERVING for backend in backends) and not is_proven(backends)


def is_proven(backends: Iterable[Backend]) -> bool:
    """Tell whether a new one already serves."""
    return any(not backend.obsolete and backend.state is State.RUNNING for backend in backends)


def relieve(backends: Sequence[Backend], wanted: int) -> None:
    """End as many old backends as exceed `wanted`, now that a new one is ready."""
    serving = [backend for backend in backends if backend.state is State.RUNNING]
    old = [backend for backend in serving if backend.obsolete]
    if len(old) < len(serving):
        for backend in old[: max(0, len(serving) - wanted)]:
            backend.feed(Event.STOP, backend.obsolete)


def make_room(backends: Sequence[Backend], waited: float) -> None:
    """End a predecessor first if there has been no room for two for `waited` seconds."""
    old = [backend for backend in backends if backend.obsolete and _may_go(backend)]
    if waited > PATIENCE and old and not any(backend.state is State.STARTING for backend in backends):
        old[0].feed(Event.STOP, old[0].obsolete)


def _may_go(backend: Backend) -> bool:
    return backend.state is State.RUNNING


def end_if_drained(backend: Backend, connected: Connections, look: Callable[[], Connections]) -> None:
    """End a draining server that would lose connections: freeze it, look again, and only then end it.

    Args:
        backend: in any state; one that ends by itself when it is drained is left alone.
        connected: the site's connections as they were a moment ago.
        look: asks the kernel for them as they are now.
    """
    if backend.state is not State.DRAINING or backend.graceful or connected.open:
        return
    backend.freeze()
    is_drained = False
    try:
        is_drained = not look().open
    finally:
        if not is_drained:
            backend.thaw()
    if is_drained:
        backend.feed(Event.DRAINED, backend.reason)
