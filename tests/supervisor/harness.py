"""A home with spawned sites, its supervisor, and the proof that nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import textwrap
import time
from ast import literal_eval
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from multisite.cli import main
from multisite.config.model import Home
from multisite.config.read import read_home
from multisite.control.client import Client, NotRunning
from multisite.control.rundir import RuntimeDir
from multisite.control.serverprocess import command_line
from multisite.supervisor.process import kernel, orphans
from tests.processes import is_running

# A threaded HTTP server on an inherited socket, which says nothing when it is ready. Hundreds are started: it imports
# little.
SERVER = """
import os, socket, socketserver, sys, time

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        words = self.rfile.readline().split()
        if not words:  # the supervisor looked whether we accept
            return
        while self.rfile.readline().strip():
            pass
        self.path = words[1].decode()
        status = 200
        if self.path.startswith("/sleep/"):
            time.sleep(float(self.path[7:]))
        if self.path.startswith("/until/"):
            while not os.path.exists(self.path[7:]):
                time.sleep(0.01)
        if self.path == "/die":
            os._exit(9)
        body = f"{os.getpid()} {os.environ.get('GREETING', '')}".encode()
        self.wfile.write(b"HTTP/1.0 %d .\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (status, len(body), body))

class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self):
        socketserver.BaseServer.__init__(self, ("", 0), Handler)
        self.socket = socket.socket(fileno=3)

    def get_request(self):
        return self.socket.accept()[0], ("client", 0)

if __name__ == "__main__":
    print("serving", flush=True)
    Server().serve_forever()
"""

MOYA_CONF = """[service]
state_dir = state
temp_dir = temp
runtime_dir = run
[supervisor]
allow_root = yes
{supervisor}
"""


WITHIN = 60.0  # seconds, on a machine that has other things to do


def wait_until(what: Callable[[], Any], seconds: float = WITHIN) -> Any:
    """Return the first true answer of `what`; fails when time is up.

    The longer it takes, the less often it asks: what is asked has something to do as well, and only one processor.
    """
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < seconds:
        answer = what()
        if answer:
            return answer
        time.sleep(min(0.1, max(0.01, waited / 10)))
    raise AssertionError(f"waited {seconds} s in vain")


class Patient(Client):
    """A client for whom a supervisor may be slow to come up and to answer."""

    def __init__(self, home: Home) -> None:
        super().__init__(home, start_within=WITHIN)

    def ask(self, request: dict[str, Any], within: float = WITHIN) -> dict[str, Any]:
        return super().ask(request, within)


class SupervisedHome:
    """Site files and code in `path`, and a client of the supervisor."""

    def __init__(self, path: Path, supervisor: str = "") -> None:
        self.path = path
        for name in ("sites-enabled", "temp"):
            (path / name).mkdir(parents=True, exist_ok=True)
        (path / "moya.conf").write_text(MOYA_CONF.format(supervisor=supervisor))
        self.home = read_home(str(path))
        self.client = Patient(self.home)
        self.rundir = RuntimeDir(self.home)
        self.supervisors: set[int] = set()

    def rival(self) -> Path:
        """Another home that names the same runtime directory, by mistake."""
        other = self.path / "other"
        (other / "sites-enabled").mkdir(parents=True)
        (other / "moya.conf").write_text(f"[service]\nruntime_dir = {self.rundir.path}\nstate_dir = state\n")
        return other

    def site(self, name: str, code: str = SERVER, more: str = "", **keys: str) -> Path:
        """Write a site whose command runs `code`, unless `keys` say otherwise."""
        folder = self.path / "sites" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "srv.py").write_text(textwrap.dedent(code))
        keys = {"domains": f"{name}.test", "location": str(folder), **keys}
        if not {"application", "command"} & set(keys):
            keys["command"] = f"{sys.executable} srv.py"
        body = "[service]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        draft = self.path / "sites-enabled" / f"{name}.tmp"
        draft.write_text(body + textwrap.dedent(more))
        draft.replace(draft.with_suffix(".ini"))  # so that nobody reads half of it
        return folder

    def app(self, name: str, code: str, **keys: str) -> Path:
        """Write a WSGI site that our own runner serves."""
        folder = self.site(name, **{"application": "app:application", "mode": "spawned", **keys})
        (folder / "app.py").write_text(textwrap.dedent(code))
        return folder

    def ensure(self, name: str) -> str:
        """Return the site's socket; the supervisor that answers is remembered."""
        path = self.client.ensure(name)
        self.supervisors.add(self.pid)
        return path

    def get(self, name: str, path: str = "/", seconds: float = WITHIN) -> str:
        """Ask a site over its socket; returns the body."""
        return ask(self.ensure(name), path, seconds)

    def status(self) -> dict[str, Any]:
        """What ``status`` tells."""
        return self.client.ask({"do": "status"})

    def state(self, name: str) -> dict[str, Any]:
        """What ``status`` tells of one site."""
        state: dict[str, Any] = self.status()["sites"][name]
        return state

    def wait_for(self, name: str, state: str, seconds: float = WITHIN) -> dict[str, Any]:
        """Wait until a site is in a state."""
        return dict(wait_until(lambda: (s := self.state(name))["state"] == state and s, seconds))

    def failed(self, name: str) -> dict[str, Any]:
        """Wait until a site has been tried twice, or for as long as it may take, and given up for a while.

        The pause that follows is short. When it is over the site is stopped, and soon nobody keeps it: on a
        machine so busy it is asked once more.
        """

        def given_up() -> dict[str, Any] | bool:
            state = self.status()["sites"].get(name)
            if state is None:
                with contextlib.suppress(Exception):
                    self.get(name)
                return False
            return _is_given_up(state) and state

        return dict(wait_until(given_up))

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return int(self.client.ask({"do": "ping"})["pid"])

    def left(self) -> list[int]:
        """Return the processes of this home's sites."""
        if not os.path.isdir(self.rundir.path):
            return []
        prefix = self.rundir.mark + ":"
        return [pid for pid in kernel.pids() if orphans._mark(pid).startswith(prefix) and is_running(pid)]

    def close(self) -> None:
        """End the supervisor and prove that nothing is left."""
        with contextlib.suppress(NotRunning):
            self.supervisors.add(self.pid)
        for pid in self.supervisors:
            if self._is_ours(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        try:
            wait_until(lambda: not any(map(self._is_ours, self.supervisors)))
            wait_until(lambda: not self.left())
        finally:
            for pid in self.left():  # a test that fails leaves nothing either
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _is_ours(self, pid: int) -> bool:
        """Tell whether a supervisor of this home still has that pid, which others may get later."""
        return is_running(pid) and os.fsencode(str(self.path)) in command_line(pid)


def _is_given_up(state: dict[str, Any]) -> bool:
    if state["state"] not in ("backoff", "stopped") or not state["failure"]:
        return False
    return state["starts"] >= 2 or "it was not ready within" in state["failure"]["failure"]


@contextlib.contextmanager
def supervised(path: Path, supervisor: str = "") -> Iterator[SupervisedHome]:
    """A home whose supervisor is gone afterwards."""
    home = SupervisedHome(path, supervisor)
    try:
        yield home
    finally:
        home.close()


def ask(path: str, target: str = "/", seconds: float = WITHIN) -> str:
    """GET over a unix socket; returns the body.

    Raises:
        OSError: there was no whole answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connected:
        connected.settimeout(seconds)
        connected.connect(path)
        connected.sendall(f"GET {target} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        data = b"".join(iter(lambda: connected.recv(65536), b""))
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator or b" 200 " not in head.split(b"\r\n")[0]:
        raise ConnectionError(f"no answer: {data!r}")
    return body.decode()


def run(path: Path, *words: str) -> Result:
    """What comes of a command on the home in `path`; it is called here, since a process for each costs more."""
    done = CliRunner().invoke(main, ["--home", str(path), *words], prog_name="multisite")
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def as_user(uid: int, gid: int, what: Callable[[], Any], groups: tuple[int, ...] = ()) -> Any:
    """Do something as somebody else, in a child; returns what came of it, or the name of the exception."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
            answer = what()
        except BaseException as error:
            answer = type(error).__name__
        os.write(writer, repr(answer).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader) as file:
        return literal_eval(file.read())
