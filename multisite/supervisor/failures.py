"""The failures of a site in a row: counted, reported, and what follows for whoever waits."""

from __future__ import annotations

import logging
import random

from multisite import logs
from multisite.supervisor import planner
from multisite.supervisor.backend import Backend, Exit
from multisite.supervisor.journey import Journey
from multisite.supervisor.lifecycle import State

NOT_LOADED = 3  # the exit status of our runner for an application that cannot be imported; its STATUS= says why
PAUSE_UNKNOWN = 60.0  # seconds that somebody is sent away for where no deadline is known


class Unavailable(Exception):
    """No process of the site can be had just now."""

    def __init__(self, reason: str, retry_after: float, incident: str = "") -> None:
        super().__init__(reason)
        self.reason, self.retry_after, self.incident = reason, retry_after, incident


class Failures:
    """What went wrong with a site since it was last well.

    Attributes:
        in_a_row: how many starts or runs have failed, one after another.
        last: the journey of the last one; None once a process was well.
        refused: why it could not be started as its file says.
        replacement: why the last replacement of a running backend did not come about.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.in_a_row = 0
        self.last: Journey | None = None
        self.refused = ""
        self.replacement = ""
        self._counted_at = 0.0
        self._logger = logger

    def count(self, backend: Backend, exit_: Exit, now: float) -> float:
        """Count a failure, several processes that fail together as one; returns the pause before the next start."""
        if exit_.served >= planner.STABLE_AFTER:
            self.in_a_row = 0
        if not self.in_a_row or backend.journey.begun >= self._counted_at:
            self.in_a_row += 1
            self._counted_at = now
        return planner.backoff(self.in_a_row, random.random)

    def report(self, backend: Backend, exit_: Exit, now: float) -> None:
        """Tell in the log what became of a start or a run."""
        backend.journey.fail(_reason(backend, exit_), logs.incident(), now)
        self.last = backend.journey
        self._logger.error("incident %s: %s", backend.journey.incident, backend.journey)

    def well(self) -> None:
        """Note that a process serves."""
        self.in_a_row, self.last = 0, None

    def reset(self) -> None:
        """Begin to count anew."""
        self.in_a_row, self.refused, self.replacement = 0, "", ""

    def try_once(self) -> None:
        """Allow one attempt after all."""
        self.in_a_row = planner.GIVE_UP_AFTER - 1

    def unavailable(self, deadline: float | None, now: float) -> Unavailable:
        """Return what somebody is told who asks for a process now, the next of which may start at `deadline`."""
        wait = max(1.0, (deadline or now + PAUSE_UNKNOWN) - now)
        if not self.last:
            return Unavailable("it cannot be started", wait)
        return Unavailable(self.last.failure, wait, self.last.incident)


def _reason(backend: Backend, exit_: Exit) -> str:
    if exit_.code is None:
        return exit_.reason
    if backend.reason == "start_timeout":
        return f"it was not ready within {backend.site.start_timeout:g} s{_what_it_lacks(backend)}"
    if exit_.code == NOT_LOADED and backend.status and backend.launch and backend.launch.job:
        return backend.status
    if exit_.state is State.RUNNING:
        return f"{exit_.reason} while serving"
    forked = exit_.code == 0 and backend.site.command
    return f"{exit_.reason} before it was ready" + ("; a command has to stay in the foreground" if forked else "")


def _what_it_lacks(backend: Backend) -> str:
    if backend.status:
        return f": {backend.status}"
    silent = backend.launch and not backend.launch.told
    return ": it took no connection from the socket that it was given (LISTEN_FDS)" if silent else ""
