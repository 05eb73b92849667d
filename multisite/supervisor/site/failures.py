"""The failures of a site in a row: counted, reported, and what follows for waiting requests."""

from __future__ import annotations

import logging
import random
import time

from multisite.logs import incidents, past
from multisite.runner import hangs
from multisite.sites.failures import MEMORY, LastFailures, part
from multisite.supervisor import planner
from multisite.supervisor.lifecycle import State
from multisite.supervisor.process.sitelog import JOURNEY, Journey
from multisite.supervisor.reexec import Handed, kept
from multisite.supervisor.site import triggers
from multisite.supervisor.site.backend import Backend, Exit
from multisite.supervisor.site.context import Tell, nobody
from multisite.supervisor.site.events import CRASH_LOOP, DEPLOY_FAILED, DEPLOYED, RECOVERED, START_FAILED

TOO_LATE = "start_timeout"  # the reason of a backend whose start took too long
HAS_TO_LISTEN = "; a command must listen on the %PORT or %SOCKET that it receives, or take over LISTEN_FDS"
TOLD_WITHIN = 60.0  # between a visitor's page and the end of the process that made the visitor wait
JUST_NOW = 2.0  # seconds
LOOP = 3  # crashes without an answer between them
STOPPED_BEFORE = "the site was stopped before another attempt had ended"
PAUSE_UNKNOWN = 60.0  # seconds in Retry-After if no deadline is known


class Unavailable(Exception):
    """No process of the site is available now."""

    def __init__(self, reason: str, retry_after: float, incident: str = "") -> None:
        super().__init__(reason)
        self.reason, self.retry_after, self.incident = reason, retry_after, incident


class Failures(Handed):
    """What went wrong with a site since it last worked.

    Attributes:
        in_a_row: how many starts or runs have failed, one after another.
        last: the journey of the last one; None once a process has worked.
        trouble: the journey of the last process that ended by itself, whatever followed.
        kept_waiting: the incident that a visitor saw because a process does not answer, and when.
        first: the journey of a start that failed and is tried once more; the log waits for the outcome.
        refused: why it cannot be started as its file is.
        replacement: why the last replacement of a running backend failed.
        mending: files whose change may mend that.
        begun: Unix time of its start.
        not_before: monotonic seconds at which the next may be started.
    """

    KEPT = kept(
        "in_a_row refused replacement mending begun not_before _counted_at _proven _crashes _is_down _announced",
        last=JOURNEY,
        first=JOURNEY,
    )
    ANEW = (
        *("trouble", "kept_waiting", "_has_grown", "_is_joint", "_is_noted", "_must_last"),
        *("_site", "_notes", "_logger", "_events"),
    )

    def __init__(self, site: str, notes: LastFailures, logger: logging.Logger, events: Tell = nobody) -> None:
        self.in_a_row = 0
        self.last: Journey | None = None
        self.trouble: Journey | None = None
        self.kept_waiting = "", 0.0
        self.first: Journey | None = None
        self.refused = ""
        self.replacement = ""
        self.mending: tuple[str, ...] = ()
        self.begun = 0.0
        self.not_before = 0.0
        self._counted_at = 0.0
        self._is_joint = False  # the last counted failure was counted together with another process
        self._proven = False  # a process has answered since the site was last changed
        self._crashes = 0  # since then, without an answer between them
        self._has_grown = True  # or it did before this supervisor
        self._is_noted = False  # an incident has been kept since a process was last ready
        self._is_down = False  # an administrator has been told of a failure, and of no recovery
        self._must_last = False  # a process that is ready does not show that it recovered: it fell while it served
        self._announced: set[str] = set()  # of what, since the site was last changed
        self._site, self._notes, self._logger, self._events = site, notes, logger, events

    def count(self, backend: Backend, exit_: Exit, now: float) -> float:
        """Count a failure, several processes that fail together as one; returns the pause before the next start.

        A start that took `start_timeout` counts twice: requests have waited long enough.
        """
        if exit_.served >= planner.STABLE_AFTER:
            self.in_a_row = 0
        self._is_joint = self.in_a_row > 0 and backend.journey.begun < self._counted_at
        if not self._is_joint:
            self.in_a_row = max(self.in_a_row + 1, 2 if _is_too_late(backend, exit_) else 1)
            self._counted_at = now
        return planner.backoff(self.in_a_row, random.random)

    def is_proven(self, exit_: Exit) -> bool:
        """Tell whether the site can serve: the process that ended has answered, or another had."""
        if exit_.answered:
            self._proven, self._crashes = True, 0
            self.end_row()
        return self._proven

    def crashed(self, backend: Backend, exit_: Exit, now: float, start_cost: float) -> None:
        """Note the end of a process of a site that can serve; this is not a failed start."""
        self._crashes += 1
        self.not_before = now + planner.crash_pause(self._crashes, start_cost)
        self._decide(backend, exit_, now)
        self._write(backend, crashed=True)  # in case the supervisor exits before a process is ready
        self._log(backend, exit_)
        if self._crashes >= LOOP:
            self._must_last = True
            self._announce(CRASH_LOOP, "backoff")

    def tell(self, backend: Backend, exit_: Exit, now: float) -> None:
        """Log the failure of a start or a run; a start that was tried twice is one incident."""
        self._decide(backend, exit_, now)
        self._log(backend, exit_)

    def _decide(self, backend: Backend, exit_: Exit, now: float) -> None:
        """Give the failure its reason and its incident."""
        journey, first = backend.journey, None
        if exit_.state is State.STARTING:
            first, self.first = self.first, None
        self.trouble = journey
        incident = first.incident if first else self._told_of(backend, exit_, now)
        journey.fail(reason_of(backend, exit_), incident or incidents.new(), now)
        if first:
            other = "" if first.failure == journey.failure else f"; the first time: {first.failure}"
            journey.failure += f" (tried twice{other})"

    def _told_of(self, backend: Backend, exit_: Exit, now: float) -> str:
        """Return the incident by which a visitor already knows that a process hangs; "" if there is none."""
        (incident, at), self.kept_waiting = self.kept_waiting, ("", 0.0)
        return incident if now - at <= TOLD_WITHIN and _what_hung(backend, exit_) else ""

    def _log(self, backend: Backend, exit_: Exit) -> None:
        """Log the failure, after it was noted: on a full disk the note needs the room more than the log."""
        journey, has_log = backend.journey, backend.site.error_log
        # What it printed is in the site's own log, or in the service's if the site has none.
        id = "MS542" if exit_.state is State.STARTING else "MS543"
        self._logger.error("%s incident %s: %s", id, journey.incident, journey if has_log else journey.headline)
        self._keep(journey)

    def _keep(self, journey: Journey, then: str = "") -> None:
        cause = f"{journey.headline}{then}"
        remedy = f"multisite explain {self._site} shows what the start went through"
        incidents.keep(journey.incident, self._site, cause, remedy=remedy, output=journey.tail.lines)
        self._is_noted = True

    # Events

    def announce(self, exit_: Exit, state: str, *, loops: bool) -> None:
        """Tell of a failure, each kind once until the site is changed or works; the first of two attempts waits.

        `loops`: there is a pause before the next start.
        """
        self._must_last = exit_.state is not State.STARTING
        if exit_.state is State.STARTING and not self.first:
            self._announce(START_FAILED, state)
        if loops:
            self._announce(CRASH_LOOP, state)

    def _announce(self, event: str, state: str) -> None:
        if event not in self._announced and self.trouble:
            self._announced.add(event)
            self._is_down = True
            remedy = f"multisite explain {self._site}"
            facts = {"cause": self.trouble.failure, "remedy": remedy, "incident": self.trouble.incident}
            self._events(event, self._site, state=state, **facts)

    def _recovered(self) -> None:
        if self._is_down:
            self._is_down = False
            self._announced.clear()
            self._events(RECOVERED, self._site, state="running")

    def deployed(self, cause: str, begun: float, failure: str) -> None:
        """Tell how an attempt to serve a new version has ended, and write it down.

        Args:
            cause: of the attempt.
            begun: Unix seconds.
            failure: why it failed, "" if it did not.
        """
        incident = self.trouble.incident if failure and self.trouble else ""
        past.deployed(self._site, cause, begun, time.time() - begun, failure=failure, incident=incident)
        if failure:
            remedy = f"multisite explain {self._site}"
            self._events(DEPLOY_FAILED, self._site, cause=failure, remedy=remedy, incident=incident)
        else:
            self._events(DEPLOYED, self._site, state="running")

    def fail(self, backend: Backend, exit_: Exit, now: float, *, is_retried: bool) -> None:
        """Report a failure that has been counted.

        `is_retried`: it is a start, and another one follows at once.
        """
        journey = backend.journey
        if self._is_joint and self.last:  # one of the same attempt has been reported
            journey.fail(reason_of(backend, exit_), self.last.incident, now)
        elif is_retried:
            journey.fail(reason_of(backend, exit_), incidents.new(), now)
            self.first = self.trouble = journey
            self._note(backend, exit_)
        else:
            self.report(backend, exit_, now)

    def report(self, backend: Backend, exit_: Exit, now: float, *, serving: bool = False) -> None:
        """Note why a start or a run has failed, for later questions, and log it.

        `serving`: another process keeps running.
        """
        self._decide(backend, exit_, now)
        self._note(backend, exit_, serving=serving)
        self._log(backend, exit_)

    def _note(self, backend: Backend, exit_: Exit, *, serving: bool = False) -> None:
        self.last = backend.journey
        self._write(backend, serving=serving, crashed=exit_.state is State.RUNNING and self.in_a_row <= 1)

    def _write(self, backend: Backend, *, serving: bool = False, crashed: bool = False) -> None:
        journey = backend.journey
        output = list(journey.tail.lines)
        self._notes.note(
            self._site,
            journey.failure,
            journey.incident,
            serving=serving,
            steps=journey.steps,
            output=output,
            watched=triggers.mending(backend.site, output),
            crashed=crashed,
        )

    def _tell_first(self, then: str) -> None:
        """Log a start that failed, and after which no other one has."""
        first, self.first = self.first, None
        if first:
            self._logger.warning("MS544 incident %s: %s; %s", first.incident, first.headline, then)
            self._keep(first, f"; {then}")

    def too_large(self, backend: Backend) -> None:
        """Report a process that is replaced because it uses more memory than it may; the site has not failed.

        This is reported until somebody changes or restarts the site: a site that grows does so again.
        """
        site, incident = backend.site, incidents.new()
        limit = (site.memory_limit or 0) >> 20
        reason = f"process {backend.pid} used {backend.memory >> 20} MiB, more than memory_limit = {limit}M"
        remedy = f"raise memory_limit in {site.file}, or set max_requests if the site keeps growing"
        self._logger.warning("MS545 incident %s: %s; it will be replaced; %s", incident, reason, remedy)
        incidents.keep(incident, self._site, reason, remedy=remedy)
        told = (part(self._site, MEMORY), f"{reason}; it was replaced", incident)
        self._notes.note(*told, serving=False, crashed=True, remedy=remedy, watched=(site.file,))
        self._has_grown = True

    def replaced_in_vain(self, backend: Backend, now: float) -> None:
        """Note that the old backends keep running, because the new one, whose end has been reported, failed."""
        self.replacement = backend.journey.failure
        self.mending = triggers.mending(backend.site, backend.journey.tail.lines)
        self.begun = time.time() - (now - backend.journey.begun)
        self._logger.error(
            "MS567 the new version failed to start (%s); the old version is still serving", self.replacement
        )

    def ready(self, journey: Journey) -> None:
        """Note that a process is ready; one that was started before the last failure mends nothing."""
        self._tell_first("the second attempt succeeded")
        if self._is_noted:
            self._is_noted = False
            incidents.did(self._site, incidents.RESTARTED)
        if not self._must_last:
            self._recovered()
        if self.last is None or journey.begun >= self.last.begun:
            self.replacement, self.mending = "", ()
            self._notes.clear(self._site)

    def mended(self) -> None:
        """Forget the failures: a version that was started since, on request, works."""
        self.last = None
        self._notes.clear(self._site)

    def well(self) -> None:
        """Note that a process has served for a while."""
        self._recovered()
        self.in_a_row, self.last = 0, None

    def end_row(self, then: str = "a later attempt succeeded") -> None:
        """Count the next failure as a first one: a process ended as asked, or somebody stopped the site."""
        self._tell_first(then)
        self.in_a_row = 0

    def reset(self) -> None:
        """Begin to count again: the cause of the failures may have been mended."""
        self._tell_first("it was changed or restarted before the second attempt")
        self._announced.clear()
        if self.in_a_row or self.refused or self.replacement:
            self._notes.clear(self._site)
        self.in_a_row, self.refused, self.replacement, self.mending = 0, "", "", ()
        self.not_before, self._proven, self._crashes = 0.0, False, 0
        if self._has_grown:
            self._has_grown = False
            self._notes.clear(part(self._site, MEMORY))

    def just_now(self, now: float, *, is_alive: bool) -> Journey | None:
        """Return the journey of a process that ended a moment ago: a request that it had gets no other answer.

        Args:
            now: monotonic seconds.
            is_alive: whether the site has a process.

        Raises:
            Unavailable: its starts fail. That is the answer during the pause, and who asks a little later gets it too.
        """
        if not self.trouble or now - self.trouble.failed_at > JUST_NOW:
            return None
        if self.last is self.trouble and self.in_a_row > 1 and not is_alive:
            raise self.unavailable(now, now)
        return self.trouble

    def unavailable(self, deadline: float | None, now: float) -> Unavailable:
        """Return the error for a request that needs a process now; the next one may start at `deadline`."""
        wait = max(1.0, (deadline or now + PAUSE_UNKNOWN) - now)
        if not self.last:
            return Unavailable("it cannot be started", wait)
        return Unavailable(self.last.failure, wait, self.last.incident)


def _is_too_late(backend: Backend, exit_: Exit) -> bool:
    return exit_.state is State.STARTING and backend.reason == TOO_LATE


def reason_of(backend: Backend, exit_: Exit) -> str:
    """Return why a backend did not become ready, or stopped serving."""
    if exit_.code is None:
        return exit_.reason
    if backend.reason == TOO_LATE:
        return f"it was not ready within {backend.site.start_timeout:g} s{_what_it_lacks(backend)}"
    if backend.refusal and exit_.state is State.STARTING:
        return backend.refusal
    if exit_.state in (State.RUNNING, State.DRAINING):
        return f"{exit_.reason} while serving{_what_hung(backend, exit_)}"
    forked = exit_.code == 0 and backend.site.command
    return f"{exit_.reason} before it was ready" + ("; a command must stay in the foreground" if forked else "")


def _what_hung(backend: Backend, exit_: Exit) -> str:
    if not backend.ours or not backend.site.request_timeout:
        return ""
    if backend.hung and exit_.code == hangs.STATUS:
        return f": {backend.hung}"
    held = exit_.code == hangs.HELD_STATUS and any(map(hangs.is_timer, backend.journey.tail.lines))
    limit = f"{backend.site.request_timeout:g}"
    return f": no progress for {limit} s, and the interpreter was held (request_timeout = {limit}s)" if held else ""


def _what_it_lacks(backend: Backend) -> str:
    """Describe what is known about a start that took too long, and what would help."""
    if backend.status:
        lacks = f": {backend.status}"
    else:
        lacks = "" if backend.told else ": it accepted no connection on the socket that it received (LISTEN_FDS)"
    return lacks + (HAS_TO_LISTEN if backend.site.command else "; a slow start needs a longer start_timeout")
