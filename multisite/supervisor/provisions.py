"""Unknown domains: each is asked about once, in a separate process, by what ``provision =`` names.

Workers ask us and wait. An answer is valid for a while, and a node that was named for as long as we live; so we ask
about a domain once, however many workers want to know. Strangers can invent any number of domains. So we ask about few
at a time, refusals use up an allowance that grows back slowly, and memory is bounded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

from multisite.config import nodes
from multisite.config.model import Home
from multisite.control import program
from multisite.router import provisioner
from multisite.supervisor.control import Answer, Caller
from multisite.supervisor.loop import Loop
from multisite.supervisor.process import descriptors, privilege
from multisite.supervisor.process.kernel import describe_end
from multisite.supervisor.process.launch import base_environment
from multisite.supervisor.process.prctl import PR_SET_PDEATHSIG, prctl
from multisite.supervisor.reexec import Handed, kept

MOST_AT_ONCE = 4  # processes
REMEMBERED = 60.0  # seconds that a refusal, or the setup of a domain, is valid
FAILED_FOR = 10.0  # seconds until we ask again about a domain after a failure
MOST_REMEMBERED = 8192  # domains, and as many nodes
ALLOWANCE = 60  # refusals and failures in a row; it grows by one each second
RETRY_AFTER = 1
LONGEST_OUTPUT = 4096  # bytes that we read of a process's output, of each stream
_REFUSED = 1  # exit status

_log = logging.getLogger("multisite.router")


class Provisions(Handed):
    """Asks about domains.

    Args:
        claims: tells whether a site claims a host, however new its file is.
        is_held_back: tells whether nothing may begin, because another program replaces us soon.
    """

    KEPT = kept("_nodes _settled _target")
    ANEW = ("_loop", "_claims", "_is_held_back", "_running", "_allowance", "_counted_at")

    def __init__(self, loop: Loop, claims: Callable[[str], bool], is_held_back: Callable[[], bool]) -> None:
        self._loop, self._claims, self._is_held_back = loop, claims, is_held_back
        self._target = ""
        self._nodes: dict[str, str] = {}
        self._settled: dict[str, list[Any]] = {}  # the answer, and the monotonic second until which it is valid
        self._running: dict[str, _Asked] = {}
        self._allowance, self._counted_at = float(ALLOWANCE), loop.now()

    def __len__(self) -> int:
        """How many processes there are."""
        return len(self._running)

    @property
    def deadlines(self) -> list[float]:
        """Monotonic seconds at which `tick` next has something to do."""
        return [asked.deadline for asked in self._running.values()]

    def ask(self, domain: str, home: Home, caller: Caller) -> Answer | None:
        """Return what is known about `domain`; None: the caller is answered when it is known.

        The answer has an "outcome": "node" (its name is in "node"), "site", "refused" or "failed"; and "for", the
        seconds that it is valid.

        Raises:
            ValueError: it is not a domain.
        """
        if not provisioner.is_domain(domain):
            raise ValueError(domain)
        self._adopt(home.router.provision)
        now = self._loop.now()
        if domain in self._nodes:
            return {"outcome": "node", "node": self._nodes[domain], "for": REMEMBERED}
        outcome, until = self._settled.get(domain, ("", 0.0))
        if now < until:
            return {"outcome": outcome, "for": until - now}
        if not self._target:
            return {"outcome": "refused", "for": RETRY_AFTER}
        asked = self._running.get(domain)
        if not asked:
            if len(self._running) >= MOST_AT_ONCE or not self._has_allowance(now) or self._is_held_back():
                return {"error": "too many new domains are being set up already", "status": 503, "retry_after": 1}
            try:
                asked = self._running[domain] = _Asked(domain, home, self._loop)
            except (OSError, ValueError) as error:
                _log.error("MS548 provision = %s: cannot start it for %s: %s", self._target, domain, error)
                return self._noted(domain, {"outcome": "failed", "for": FAILED_FOR})
        asked.callers.append(caller)
        caller.on_close.append(partial(asked.forget, caller))
        return None

    def _adopt(self, target: str) -> None:
        """Forget all answers if they came from another target."""
        if target != self._target:
            self._target = target
            self._nodes.clear()
            self._settled.clear()

    def _has_allowance(self, now: float) -> bool:
        self._allowance = min(float(ALLOWANCE), self._allowance + now - self._counted_at)
        self._counted_at = now
        return self._allowance >= 1.0

    def tick(self, now: float) -> None:
        """End processes that take too long."""
        for asked in self._running.values():
            if now >= asked.deadline:
                asked.kill()

    def ended(self, pid: int, status: int) -> bool:
        """Handle the end of a process; False if it is not ours."""
        asked = next((one for one in self._running.values() if one.pid == pid), None)
        if not asked:
            return False
        del self._running[asked.domain]
        answer = asked.ended(status)
        if answer["outcome"] == "site" and not self._claims(asked.domain):
            answer["outcome"] = "refused"
        _log.info("%s: %s", asked.domain, answer.get("node", answer["outcome"]))
        self._noted(asked.domain, answer)
        for caller in list(asked.callers):
            caller.send(answer)
        return True

    def _noted(self, domain: str, answer: Answer) -> Answer:
        outcome = answer["outcome"]
        if outcome == "node":
            _keep(self._nodes, domain, answer["node"])
            return answer
        if outcome != "site":
            self._allowance -= 1.0
        _keep(self._settled, domain, [outcome, self._loop.now() + answer["for"]])
        return answer

    def describe(self) -> dict[str, str]:
        """Return the nodes that were named, by domain."""
        return dict(self._nodes)

    def close(self) -> None:
        """End all processes."""
        for asked in self._running.values():
            asked.kill()


def _keep(known: dict[str, Any], domain: str, value: Any) -> None:
    """Remember only the newest ones."""
    known.pop(domain, None)
    while len(known) >= MOST_REMEMBERED:
        del known[next(iter(known))]
    known[domain] = value


class _Asked:
    """One process that answers for a domain.

    Attributes:
        callers: the connections that wait for its answer.
        deadline: monotonic seconds at which it is killed.
    """

    def __init__(self, domain: str, home: Home, loop: Loop) -> None:
        self.domain, self._target, self._loop = domain, home.router.provision, loop
        self.callers: list[Caller] = []
        self.deadline = loop.now() + home.router.provision_timeout
        self._was_killed = False
        self._said = {"stdout": b"", "stderr": b""}
        self._process = _started(home, domain)
        for name in self._said:
            descriptor = getattr(self._process, name).fileno()
            os.set_blocking(descriptor, False)
            loop.watch(descriptor, partial(self._read_on, name))
        _log.info("%s is new: asking %s", domain, self._target)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def forget(self, caller: Caller) -> None:
        """Forget a caller that no longer waits."""
        with contextlib.suppress(ValueError):
            self.callers.remove(caller)

    def _read_on(self, name: str, _events: int) -> None:
        self._read(name)

    def _read(self, name: str) -> bool:
        """Read its output, keeping only the beginning; tell whether there was any."""
        descriptor = getattr(self._process, name).fileno()
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return False
        self._said[name] = (self._said[name] + data)[: LONGEST_OUTPUT + 1]
        if not data:
            self._loop.forget(descriptor)
        return bool(data)

    def kill(self) -> None:
        """End it, and whatever it has started."""
        self._was_killed = True
        self.deadline = self._loop.now() + 1.0  # try again if that did not work
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def ended(self, status: int) -> Answer:
        """Return its answer, now that it has ended."""
        self._process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
        for name in self._said:
            for _ in range(4):  # its surviving children may keep writing
                if not self._read(name):
                    break
            stream = getattr(self._process, name)
            self._loop.forget(stream.fileno())
            stream.close()
        try:
            answer = self._answer(status)
        except ValueError as error:
            said = self._said["stderr"].decode("utf-8", "replace").strip()
            _log.error(
                "MS549 provision = %s: asked for %s, %s%s", self._target, self.domain, error, said and f":\n{said}"
            )
            return {"outcome": "failed", "for": FAILED_FOR}
        return answer

    def _answer(self, status: int) -> Answer:
        """Return its answer.

        Raises:
            ValueError: it is not a valid answer.
        """
        if self._was_killed:
            raise ValueError("it took too long")
        if self._process.returncode == _REFUSED:
            return {"outcome": "refused", "for": REMEMBERED}
        if self._process.returncode:
            raise ValueError(f"it {describe_end(status)}")
        text = self._said["stdout"].decode("utf-8", "replace").strip()
        if not text:
            return {"outcome": "site", "for": REMEMBERED}
        if len(text) > LONGEST_OUTPUT or "\n" in text:
            raise ValueError("it printed more than one line")
        try:
            nodes.parse_all(text)
        except ValueError as error:
            raise ValueError(f"it named a node {text[:200]!r}: {error}") from None
        return {"outcome": "node", "node": text, "for": REMEMBERED}


def _started(home: Home, domain: str) -> subprocess.Popen[bytes]:
    """Start the process.

    Raises:
        OSError: it cannot be started.
        ValueError: the target is neither a function nor a command.
    """
    target = home.router.provision
    env = {**base_environment(os.environ, privilege.of_this_process()), **home.env, "MOYA_SERVICE_HOME": home.path}
    is_ours = provisioner.is_function(target)
    argv = provisioner.command(target, home.path, domain, program.own_interpreter())
    descriptors.claim(8)
    return subprocess.Popen(
        argv,
        cwd="/" if is_ours else home.path,  # Python looks for modules in the working directory
        env=program.environment(env) if is_ours else env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=partial(prctl, PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - prctl(2) takes no lock of another thread
    )
