"""Starts each site once, beside its running processes and without their noticing, to see whether it would start.

Each site gets a separate process, started as the supervisor would start it, on a socket in a temporary directory.
The process answers the site's smoke request, if it has one, and is ended. It gets no other request and counts nowhere.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from multisite.config.model import Home, Site
from multisite.config.policies import Refused
from multisite.logs.kept import Tracebacks
from multisite.sites import sharing
from multisite.supervisor.lifecycle import Event
from multisite.supervisor.loop import Loop
from multisite.supervisor.notify import Said
from multisite.supervisor.process import kernel, launch, orphans
from multisite.supervisor.process.descriptors import DescriptorLimits
from multisite.supervisor.process.kernel import Connections, connections
from multisite.supervisor.process.sitelog import SiteLog
from multisite.supervisor.process.spec import Given, Launch, Surroundings
from multisite.supervisor.site.backend import Backend
from multisite.supervisor.site.costs import Scoreboard
from multisite.supervisor.site.failures import TOO_LATE, reason_of

_UNKNOWN = Connections(waiting=1)
GRACE = 5.0  # seconds for a process to end after SIGTERM
TURN = 0.05  # seconds between two looks at processes that report nothing


@dataclass(frozen=True)
class Outcome:
    """How the start of one site went.

    Attributes:
        failure: why the start failed, "" if it did not.
        seconds: how long it took.
        output: the last lines that it printed.
    """

    name: str
    failure: str = ""
    seconds: float = 0.0
    output: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Describe it for JSON."""
        told = asdict(self)
        return {**told, "ok": not self.failure, "seconds": round(self.seconds, 3), "output": list(self.output)}


def is_startable(site: Site) -> bool:
    """Tell whether `site` has anything to start."""
    return not site.files_only and not (site.upstreams and site.mode in ("auto", "proxy"))


def boot(sites: Iterable[Site], home: Home, at_once: int) -> Iterator[Outcome]:
    """Start each of `sites`, so many at a time, and yield each outcome as soon as it is known.

    Call it from the main thread: the processes end with the thread that started them.
    """
    with tempfile.TemporaryDirectory(prefix="multisite-boot-") as folder:
        os.chmod(folder, 0o711)
        sandbox = Sandbox(home, folder)
        waiting, trials = list(sites)[::-1], list[Trial]()
        try:
            while waiting or trials:
                while waiting and len(trials) < at_once:
                    site = waiting.pop()
                    try:
                        trials.append(Trial(site, sandbox))
                    except Exception as error:  # of that site; the others are still tried
                        yield Outcome(site.name, f"it could not be tried: {type(error).__name__}: {error}")
                sandbox.turn(trials)
                yield from (trial.outcome for trial in trials if trial.outcome)
                trials = [trial for trial in trials if not trial.outcome]
        finally:
            for trial in trials:
                trial.end()
            sandbox.close()


class Sandbox:
    """What all test starts share."""

    def __init__(self, home: Home, folder: str) -> None:
        kernel.become_subreaper()
        self.home, self.folder = home, folder
        self.loop = Loop()
        self.mark = f"boot-{os.getpid()}"
        self.serial = 0
        self.board = Scoreboard()

    def turn(self, trials: list[Trial]) -> None:
        """Wait for events, and let each test start look at them."""
        self.loop.turn(TURN)
        for trial in trials:
            trial.check_due(self.loop.now())

    def close(self) -> None:
        """End all remaining processes."""
        orphans.strays(self.mark, {}, ())
        self.board.close()
        self.loop.close()


class _NoLog(SiteLog):
    """Keeps the output for the outcome and writes it nowhere else."""

    def write(self, lines: list[str], now: float, tracebacks: Tracebacks | None = None) -> None:
        """Write nothing."""


class Trial:
    """One test start.

    Attributes:
        outcome: None until it is over.
    """

    def __init__(self, site: Site, sandbox: Sandbox) -> None:
        self.outcome: Outcome | None = None
        sandbox.serial += 1
        self._site, self._sandbox, self._begun = site, sandbox, sandbox.loop.now()
        self._folder = os.path.join(sandbox.folder, str(sandbox.serial))
        quiet = replace(site, error_log="")
        self._backend = Backend(quiet, 0, sandbox.serial, sandbox.loop, lambda _said: None, self._notified)
        self._backend.feed(Event.WANTED)
        self._is_well = False
        self._log = _NoLog(quiet)
        self._listener = socket.socket(socket.AF_UNIX)
        self._probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._start(self._plan())
        except Refused as error:
            self._over(str(error))
        except OSError as error:
            self._over(f"{error.filename or 'a process'}: {error.strerror}")

    def _plan(self) -> Launch:
        sandbox, name = self._sandbox, self._site.name
        around = Surroundings(
            environ=os.environ,
            notify=os.path.join(self._folder, "notify"),
            private=os.path.join(self._folder, "private"),
            mark=f"{sandbox.mark}:{name}:{sandbox.serial}",
            smoke=True,
        )
        how = launch.plan(self._site, sandbox.home, around)
        if sharing.place(self._site, sandbox.home).shareable:  # it runs as the workers do, so it runs as we do
            how = replace(how, identity=replace(how.identity, change=False))
        return how

    def _start(self, how: Launch) -> None:
        os.mkdir(self._folder, 0o711)
        self._listener.bind(self._address)
        self._listener.listen(8)
        if launch.needs_private(self._site):
            private = os.path.join(self._folder, "private")
            os.mkdir(private, 0o700)
            if how.identity.change:
                os.chown(private, how.identity.uid, how.identity.gid)
        self._backend.spawn(
            how, Given(self._listener.fileno(), board=self._sandbox.board.make(0)), DescriptorLimits(), self._log
        )
        self._silent = not how.told and not how.tried
        if self._silent:
            self._probe.connect(self._address)

    def _notified(self, backend: Backend, variables: Said) -> None:
        """Handle what its process reports."""
        backend.told_of_start(variables)
        self._is_well |= variables.get("READY") == "1" or (variables.get("TRIED") == "1" and backend.tried)

    def check_due(self, now: float) -> None:
        """See whether it has reported that it is ready, has ended, has taken too long, or accepts connections."""
        if self.outcome:
            return
        backend = self._backend
        if self._is_well:
            self._over("")
        elif _is_over(backend.pid):  # it may have reported why
            self._ended()
        elif backend.deadline is not None and now >= backend.deadline:
            backend.reason = TOO_LATE
            backend.kill()
            self._ended()
        elif self._silent and not connections(self._folder).get(self._address, _UNKNOWN).waiting:
            self._over("")
        else:
            backend.resume(now)

    @property
    def _address(self) -> str:
        return os.path.join(self._folder, "s.sock")

    def _ended(self) -> None:
        """The process has ended before it was ready, or is about to."""
        exit_ = self._backend.ended(kernel.reap(self._backend.pid)[0])
        self._over("" if self._is_well else reason_of(self._backend, exit_))

    def _over(self, failure: str) -> None:
        self.end()
        lines = tuple(self._backend.journey.tail.lines)
        self.outcome = Outcome(self._site.name, failure, self._sandbox.loop.now() - self._begun, lines)

    def end(self) -> None:
        """End the process, if there is one."""
        backend = self._backend
        if backend.pid:
            backend.terminate()
            deadline = self._sandbox.loop.now() + min(GRACE, self._site.stop_timeout)
            while not _is_over(backend.pid) and self._sandbox.loop.now() < deadline:
                self._sandbox.loop.turn(TURN)
            backend.kill()
            backend.ended(kernel.reap(backend.pid)[0])
        for each in (self._listener, self._probe):
            each.close()


def _is_over(pid: int) -> bool:
    return bool(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
