"""How workers and commands talk to the supervisor, and how the first worker that needs it starts it.

A client keeps nothing open, so threads may share it and a fork does no harm.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from multisite.config.model import Home
from multisite.control import program
from multisite.control.peers import peer_of
from multisite.control.rundir import RuntimeDir, RuntimeDirError
from multisite.errors import BackendUnavailable, MultisiteError

FULL_FOR = 3.0  # seconds for which the queue of its socket may stay full
START_WITHIN = 10.0  # seconds for a supervisor to come up
START_PAUSE = 0.5  # seconds before the next attempt to start one that fails; doubled each time
ANSWER_WITHIN = 10.0
MOST_STARTS = 5  # in START_WITHIN, by each worker
RETRY_AFTER = 5  # seconds
LOOKS = (0.0, 0.02, 0.05, 0.1, 0.2)  # seconds before each look for why a process has ended
FORBIDDEN = 403  # the status of what is not done for everybody

_GONE = (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError, NotADirectoryError)


class Stuck(BackendUnavailable):
    """The queue of the supervisor's socket is full."""

    id = "MS523"


class NotAdmitted(BackendUnavailable):
    """The supervisor is another user's, and does not let this one in; `path` is its socket's."""

    id = "MS524"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason, RETRY_AFTER)
        self.path = path


class NotRunning(MultisiteError):
    """There is no supervisor."""

    id = "MS525"


class SupervisorError(MultisiteError):
    """The supervisor refused; `status` and `retry_after` are from its answer."""

    id = "MS528"

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(str(answer.get("error")))
        self.status = int(answer.get("status", 503))
        self.retry_after = answer.get("retry_after")
        self.incident = str(answer.get("incident") or "")


class SiteUnavailable(BackendUnavailable):
    """The supervisor has no process for a site; `incident` names the failure in the log, "" where there is none."""

    id = "MS529"

    def __init__(self, error: SupervisorError) -> None:
        super().__init__(error.reason, error.retry_after or RETRY_AFTER)
        self.status = error.status
        self.incident = error.incident


Limits = Mapping[str, int]
NO_LIMITS: Limits = {}


class Client:
    """Talks to the supervisor of `home`, whose user is this one, or root, or one of `believes`."""

    def __init__(self, home: Home, start_within: float = START_WITHIN, believes: Collection[int] = ()) -> None:
        self._home = home
        self._rundir = RuntimeDir(home)
        self._start_within = start_within
        self._believed = (os.geteuid(), 0, *believes)

    def ensure(self, site: str, host: str = "", limits: Limits = NO_LIMITS) -> str:
        """Return the path of the listening socket of `site`, starting the supervisor if there is none.

        The caller's server is registered: the supervisor exits with the last one.

        Args:
            site: its name.
            host: of its instance, if it is a hosting site.
            limits: how large the head of a request may be in this server; the site's own process has the same limits.

        Raises:
            BackendUnavailable: no process of the site can be had just now; it says when to ask again.
        """
        return str(self._urge({"do": "ensure", "site": site, "host": host, "head_limits": limits})["socket"])

    def place(self, site: str, host: str = "", limits: Limits = NO_LIMITS, anew: bool = False) -> dict[str, Any]:
        """Return where requests for an exclusive site go, as `ensure` does for any other.

        The path of a "socket", or "elsewhere" the address of a node; and the seconds that this is valid "for". If this
        node drains, "passed_on" is true: a request that has been relayed to it goes on to the other node.
        With `anew`, what the supervisor has known for a moment does not count.

        Raises:
            BackendUnavailable: as `ensure`.
        """
        return self._urge({"do": "ensure", "site": site, "host": host, "head_limits": limits, "anew": anew})

    def wake(self, site: str, host: str = "", client: str | None = None, limits: Limits = NO_LIMITS) -> bool:
        """Have a process of `site` started if there is none; tell whether one serves.

        Args:
            site, host, limits: as for `ensure`.
            client: address of who is to have caused the start; None: that has been counted.

        Raises:
            BackendUnavailable: as `ensure`; with the status 429, the client has started as many sites as it may.
        """
        request = {"do": "wake", "site": site, "host": host, "client": client, "head_limits": limits}
        return bool(self._urge(request)["up"])

    def meet(self, limits: Limits = NO_LIMITS) -> None:
        """Make sure that a supervisor runs and stays as long as the caller's server; `limits` as for `ensure`.

        Raises:
            BackendUnavailable: there is none.
        """
        self._urge({"do": "meet", "head_limits": limits})

    def provision(self, domain: str, within: float, limits: Limits = NO_LIMITS) -> dict[str, Any]:
        """Have an unknown domain set up; return the result in the form of `supervisor.provisions`.

        Args:
            domain: in the normal form of hosts.
            within: seconds that this may take.
            limits: as for `ensure`.

        Raises:
            BackendUnavailable: no supervisor can be asked just now.
        """
        return self._urge({"do": "provision", "domain": domain, "head_limits": limits}, within)

    def _urge(self, request: dict[str, Any], within: float = ANSWER_WITHIN) -> dict[str, Any]:
        """Ask the supervisor, and start one if there is none."""
        began = time.monotonic()
        deadline = began + self._start_within
        pause = 0.005
        start_at, start_pause = 0.0, START_PAUSE
        while True:
            try:
                return self.ask(request, within)
            except SupervisorError as error:
                raise SiteUnavailable(error) from None
            except RuntimeDirError as error:
                raise BackendUnavailable(error.reason, RETRY_AFTER) from None
            except Stuck:
                if time.monotonic() >= began + FULL_FOR:
                    raise
            except (NotRunning, TimeoutError):
                if time.monotonic() >= start_at:
                    self._start_if_needed()
                    start_at, start_pause = time.monotonic() + start_pause, 2 * start_pause
            if time.monotonic() >= deadline:
                raise BackendUnavailable("the supervisor does not start; the log shows why", RETRY_AFTER)
            time.sleep(pause)
            pause = min(0.1, pause * 1.5)

    def is_awake(self, site: str, host: str = "") -> bool:
        """Tell whether a process of `site` serves, for a request that does not count as use; start nothing."""
        try:
            return bool(self.ask({"do": "awake", "site": site, "host": host})["awake"])
        except (SupervisorError, NotRunning, RuntimeDirError, BackendUnavailable, TimeoutError):
            return False

    def trouble(self, site: str, host: str = "") -> str:
        """Return the incident by which a process of `site` has just ended, "" where none has.

        Its connections are gone before the supervisor can know, so that is given a moment.

        Raises:
            SiteUnavailable: its starts fail.
        """
        for pause in LOOKS:
            time.sleep(pause)
            try:
                incident = self.ask({"do": "trouble", "site": site, "host": host}).get("incident")
            except SupervisorError as error:
                if error.incident:
                    raise SiteUnavailable(error) from None
                return ""
            except (NotRunning, RuntimeDirError, BackendUnavailable, TimeoutError):
                return ""
            if incident:
                return str(incident)
        return ""

    def take_note(self, site: str, host: str, incident: str) -> None:
        """Tell the supervisor, if there is one, by which incident a process of `site` has kept somebody waiting."""
        with contextlib.suppress(SupervisorError, NotRunning, RuntimeDirError, BackendUnavailable, TimeoutError):
            self.ask({"do": "hung", "site": site, "host": host, "incident": incident})

    def ask(self, request: dict[str, Any], within: float = ANSWER_WITHIN) -> dict[str, Any]:
        """Send one request and return the answer, which may take `within` seconds; start nothing.

        Raises:
            NotRunning: there is no supervisor.
            SupervisorError: it refused.
            BackendUnavailable: it cannot be asked.
        """
        with self._connect() as connected:
            connected.settimeout(within)
            try:
                connected.sendall(self._encode(request))
                line = connected.makefile("rb").readline()
            except _GONE:
                line = b""
        return self._decode(line)

    def follow(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Send one request and yield answers until the supervisor ends."""
        with self._connect() as connected:
            connected.settimeout(None)
            connected.sendall(self._encode(request))
            for line in connected.makefile("rb"):
                yield self._decode(line)

    def _encode(self, request: dict[str, Any]) -> bytes:
        return json.dumps({**request, "home": self._home.path}).encode() + b"\n"

    def _decode(self, line: bytes) -> dict[str, Any]:
        if not line.endswith(b"\n"):
            raise NotRunning("the supervisor has just exited")
        answer: dict[str, Any] = json.loads(line)
        if answer.get("status") == FORBIDDEN:
            raise NotAdmitted(self._rundir.control, str(answer.get("error")))
        if "error" in answer:
            raise SupervisorError(answer)
        return answer

    def _connect(self) -> socket.socket:
        self._rundir.check_length()
        try:
            return self._connect_to(self._rundir.control)
        except PermissionError:
            pass  # a supervisor of another user may let our group in
        try:
            return self._connect_to(self._rundir.workers)
        except (PermissionError, NotRunning):
            remedy = "[supervisor] socket_group in moya.conf can let this user's group in"
            reason = f"{self._rundir.control}: permission denied; the supervisor runs as another user; {remedy}"
            raise NotAdmitted(self._rundir.control, reason) from None

    def _connect_to(self, path: str) -> socket.socket:
        try:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:  # no descriptor is left
            raise BackendUnavailable(f"cannot ask the supervisor: {error.strerror}", RETRY_AFTER) from error
        connected.settimeout(ANSWER_WITHIN)
        try:
            connected.connect(path)
            if peer_of(connected)[1] not in self._believed:
                raise RuntimeDirError(f"{path} belongs to somebody else's process")
        except BaseException as error:
            connected.close()
            if isinstance(error, _GONE):
                raise NotRunning("no supervisor is running") from None
            if isinstance(error, BlockingIOError):
                raise Stuck("the supervisor does not answer; the queue of its socket is full", RETRY_AFTER) from None
            raise
        return connected

    def _start_if_needed(self) -> None:
        """Start the supervisor unless another process does."""
        try:
            self._rundir.make()
            lock = self._rundir.lock()
            if lock is None:
                return
            try:
                _take_start(self._rundir.path)
                _start(self._home.path, lock)
            finally:
                os.close(lock)
        except RuntimeDirError as error:
            raise BackendUnavailable(error.reason, RETRY_AFTER) from None
        except OSError as error:
            raise BackendUnavailable(f"cannot start the supervisor: {error}", RETRY_AFTER) from None


def wake(home: Home, limits: Limits) -> None:
    """Start the supervisor of `home` if there is none, as `Client.meet` does, in a thread: nobody waits for it.

    If that fails, the next caller that needs the supervisor gets the error.
    """

    def meet() -> None:
        with contextlib.suppress(MultisiteError, OSError):
            Client(home).meet(limits)

    threading.Thread(target=meet, name="multisite-wake", daemon=True).start()


def _take_start(rundir: str) -> None:
    """Count a start of the supervisor.

    Raises:
        BackendUnavailable: it has been started too often just now, and does not keep running.
    """
    now = time.monotonic()
    begun = _starts[rundir] = [at for at in _starts.get(rundir, ()) if now - at < START_WITHIN]
    if len(begun) >= MOST_STARTS:
        raise BackendUnavailable("the supervisor ends again and again; the log shows why", RETRY_AFTER)
    begun.append(now)


_starts: dict[str, list[float]] = {}  # by runtime directory: when this process started its supervisor


def _start(home: str, lock: int) -> None:
    """Start the supervisor of `home`, detached; of the open files, it inherits only the lock and the log."""
    env = program.environment(program.scrub(os.environ))
    argv = program.command(home, lock_fd=str(lock))
    null = subprocess.DEVNULL
    subprocess.run(argv, cwd="/", env=env, pass_fds=(lock,), stdin=null, stdout=null, close_fds=True, check=False)
