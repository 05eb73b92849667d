"""Events that an administrator is told of: ``[events]`` of moya.conf names a command, a URL, or both.

They are told by a process of its own (`multisite.supervisor.process.messenger`), which is started with the first event
and ends a while after the last. We only write a line into its pipe: if that is full, events are left out and counted,
so that a storm of them costs us nothing but that.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial

from multisite import __version__
from multisite.config.model import Home
from multisite.control import program
from multisite.logs import incidents
from multisite.sites.failures import Failure, LastFailures
from multisite.supervisor.loop import Loop
from multisite.supervisor.process import descriptors, privilege
from multisite.supervisor.process.launch import base_environment
from multisite.supervisor.process.prctl import PR_SET_PDEATHSIG, prctl

START_FAILED, CRASH_LOOP, RECOVERED = "start_failed", "crash_loop", "recovered"
DEPLOYED, DEPLOY_FAILED = "deployed", "deploy_failed"
ENABLED, DISABLED = "enabled", "disabled"

IDLE = 30.0  # seconds after which a messenger without events may go
START_EVERY = 5.0  # seconds between two messengers
LOOK_EVERY = 1.0  # seconds between two looks at what workers have noted
LAST = 3.0  # seconds that a messenger has when the supervisor exits
LONGEST = 4000  # bytes of a line, which a pipe takes as a whole or not at all (PIPE_BUF, pipe(7))
LONGEST_TEXT = 1000  # characters of a cause
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY")
_MODULE = "multisite.supervisor.process.messenger"

_log = logging.getLogger("multisite.events")


class Events:
    """Tells whoever moya.conf names.

    Args:
        loop: reads what a messenger prints.
        home: returns the home as it is now.
    """

    def __init__(self, loop: Loop, home: Callable[[], Home]) -> None:
        self._loop, self._home = loop, home
        self._messengers: list[_Messenger] = []  # the last is the one that takes events, if it is open
        self._left_out = 0
        self._not_before = self._look_at = 0.0
        self._noted = _Noted()

    def tell(self, event: str, site: str, **facts: object) -> None:
        """Tell of an event of a site, and note in its incidents what has been done.

        Args:
            event: one of the names above.
            site: its name.
            facts: "cause", "remedy", "incident" and "state".
        """
        if event in (RECOVERED, DEPLOYED):
            incidents.did(site, event)
        home = self._home()
        if not home.events.command and not home.events.url:
            return
        messenger = self._messenger(home)
        self._left_out += 1
        if messenger and messenger.write(_line(event, site, home, facts, self._left_out - 1)):
            messenger.used_at = self._loop.now()
            self._left_out = 0

    def _messenger(self, home: Home) -> _Messenger | None:
        """Return a messenger to those whom moya.conf names now; None where there cannot be one yet."""
        now, options = self._loop.now(), (home.events, home.path)
        last = self._messengers[-1] if self._messengers else None
        if last and last.is_open and last.options == options:
            return last
        if last:
            last.close()
            if last.options != options:
                self._not_before = 0.0
        if now < self._not_before:
            return None
        self._not_before = now + START_EVERY
        try:
            self._messengers.append(_Messenger(home, self._loop))
        except OSError as error:
            _log.error("MS566 [events]: cannot start the process that tells of events: %s", error.strerror)
            return None
        return self._messengers[-1]

    def tick(self, now: float) -> None:
        """Tell what workers have noted, and let a messenger go that has had nothing to tell for a while."""
        home = self._home()
        if now >= self._look_at and (home.events.command or home.events.url):
            self._look_at = now + LOOK_EVERY
            for event, site, facts in self._noted.news(home):
                self.tell(event, site, **facts)
        for messenger in self._messengers:
            if messenger.is_open and now - messenger.used_at > IDLE:
                messenger.close()

    def ended(self, pid: int, status: int) -> bool:
        """Handle the end of a process; False if it is not ours."""
        messenger = next((one for one in self._messengers if one.pid == pid), None)
        if messenger:
            messenger.ended(status)
            self._messengers.remove(messenger)
        return bool(messenger)

    def close(self) -> None:
        """Give the messengers a moment to tell the rest: the supervisor exits."""
        for messenger in self._messengers:
            messenger.close()
        for messenger in self._messengers:
            messenger.wait(LAST)
        self._messengers.clear()


def _line(event: str, site: str, home: Home, facts: dict[str, object], left_out: int) -> bytes:
    """Return an event as a line of JSON that is no longer than a pipe takes at once."""
    document = {
        "id": secrets.token_hex(8),
        "event": event,
        "at": round(time.time(), 3),
        "name": site,
        "state": "",
        "cause": "",
        "remedy": "",
        "incident": "",
        "host": socket.gethostname(),
        "home": home.path,
        "left_out": left_out,
        **facts,
    }
    for longest in (LONGEST_TEXT, 100, 0):
        short = {key: value[:longest] if key in ("cause", "remedy") else value for key, value in document.items()}  # type: ignore[index]
        line = json.dumps(short).encode() + b"\n"
        if len(line) <= LONGEST:
            break
    return line[:LONGEST]


class _Noted:
    """What workers note of the sites that they import: the first of several workers counts."""

    def __init__(self) -> None:
        self._stamp: tuple[int, ...] | None = None
        self._reasons: dict[str, str] | None = None  # by site; None before the first look

    def news(self, home: Home) -> Iterator[tuple[str, str, dict[str, object]]]:
        """Yield the events since the last look, with what is known of them."""
        failures = LastFailures(home)
        try:
            status = os.stat(failures.path)
            stamp = status.st_mtime_ns, status.st_ino
        except OSError:
            stamp = 0, 0
        if stamp == self._stamp:
            return
        self._stamp, before = stamp, self._reasons
        found = {name: one for name, one in failures.all().items() if name == name.partition("\n")[0] and _is_of(one)}
        self._reasons = {name: one.reason for name, one in found.items()}
        if before is None:
            return
        for name, one in found.items():
            if before.get(name) != one.reason:
                facts = {"cause": one.reason, "remedy": f"multisite explain {name}", "incident": one.incident}
                event, state = (DEPLOY_FAILED, "in-process") if one.serving else (START_FAILED, "broken")
                yield event, name, {**facts, "state": state}
        for name in before.keys() - found.keys():
            yield RECOVERED, name, {"state": "in-process"}


def _is_of(failure: Failure) -> bool:
    """Tell whether it is that of an import, rather than of a process."""
    return not failure.own_process and not failure.crashed


class _Messenger:
    """One process that tells of events.

    Attributes:
        options: whom it tells, and for which home.
        used_at: monotonic seconds of its last event.
        is_open: it takes events.
    """

    def __init__(self, home: Home, loop: Loop) -> None:
        self.options, self._loop = (home.events, home.path), loop
        self.used_at, self.is_open = loop.now(), True
        self._said = b""
        own = base_environment(os.environ, privilege.of_this_process())
        proxies = {name: os.environ[name] for name in _PROXIES if name in os.environ}
        descriptors.claim(8)
        self._process = subprocess.Popen(
            [program.own_interpreter(), "-m", _MODULE],
            cwd="/",  # Python looks for modules in the working directory
            env=program.environment({**own, **proxies}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
            preexec_fn=partial(prctl, PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - prctl(2) takes no lock of another thread
        )
        assert self._process.stdin and self._process.stdout
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        for descriptor in (self._in, self._out):
            os.set_blocking(descriptor, False)
        loop.watch(self._out, self._read)
        first = {
            "command": home.events.command,
            "url": home.events.url,
            "directory": home.path,
            "environ": {**own, **home.env, "MOYA_SERVICE_HOME": home.path},
            "agent": f"multisite/{__version__}",
        }
        self.write(json.dumps(first).encode() + b"\n")

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def write(self, line: bytes) -> bool:
        """Hand it a line; tell whether there was room."""
        try:
            return self.is_open and os.write(self._in, line) == len(line)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False

    def _read(self, _events: int) -> None:
        """Log what it prints."""
        data = descriptors.read(self._out, 4096)
        if data is None:
            return
        if not data:
            self._loop.forget(self._out)
        *lines, self._said = (self._said + data).split(b"\n")
        self._said = self._said[-1000:]
        for line in filter(None, lines):
            _log.warning("MS547 [events] %s", line.decode("utf-8", "replace"))

    def close(self) -> None:
        """Let it tell the rest, and end."""
        if self.is_open:
            self.is_open = False
            assert self._process.stdin
            self._process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Wait until it has ended; what takes longer is ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._put_away()

    def ended(self, status: int) -> None:
        """It has ended, and has been waited for."""
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._put_away()

    def _put_away(self) -> None:
        self.close()
        assert self._process.stdout
        for _ in range(4):  # what it printed last
            self._read(0)
        self._loop.forget(self._out)
        self._process.stdout.close()
