"""Real servers for the tests: a home on disk, a process on a free loopback port, an HTTP client without manners."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner, Result

from multisite.cli import main

REPOSITORY = Path(__file__).parents[2]
PACKAGE_ROOT = Path(os.environ.get("MULTISITE_UNDER_TEST", REPOSITORY))  # the directory that holds `multisite/`
PATIENCE = 60.0  # seconds after which whoever waits has failed; no test asserts how quick anything is
STOP_DEADLINE = 20.0  # seconds between SIGTERM and SIGKILL

RUNNING: list[Server] = []  # for the report of a failed test
NOT_TESTED: list[str] = []  # printed at the end of the run
MEASURED: list[str] = []  # printed as well
HOMES: list[HomeDir] = []  # all that were made, to be cleared away
_CHANCE = random.SystemRandom()  # which nobody has seeded: tests that run side by side must not get the same

HELLO = """
import os

def application(environ, start_response):
    size = int(environ.get("CONTENT_LENGTH") or 0)
    body = b"{text} " + environ["wsgi.input"].read(size) if size else b"{text}"
    headers = [("Content-Length", str(len(body))), ("X-Worker", str(os.getpid()))]
    start_response("200 OK", [("Content-Type", "text/plain"), *headers])
    return [body]
"""


def eventually(question: Callable[[], object], within: float = PATIENCE, what: str = "") -> float:
    """Ask until the answer is true and return the seconds it took; fail after `within` seconds.

    The longer it takes, the longer the pauses: asking all processes or a server costs those that are waited for.
    """
    start, pause = time.monotonic(), 0.005
    while not question():
        if time.monotonic() - start > within:
            raise AssertionError(f"not within {within} s: {what or question}")
        time.sleep(pause)
        pause = min(pause * 1.2, 0.05)
    return time.monotonic() - start


def read(path: str) -> bytes:
    """A file of /proc, of which hundreds are read again and again."""
    with open(path, "rb", buffering=0) as file:
        return file.read()


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on, nor gets by chance before a server does.

    The system gives ports to clients, and to whoever wants any, from a range of its own (ip(7), ip_local_port_range).
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = _CHANCE.randrange(first // 3, first)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


# --- the home -------------------------------------------------------------------------------------------------------


@dataclass
class HomeDir:
    """A home under construction; links are made and removed as `ensite` and `dissite` do."""

    path: Path
    runtime: Path = field(init=False)  # not below `path`: the address of a unix socket holds 107 bytes

    def create(self) -> HomeDir:
        self.runtime = Path(tempfile.mkdtemp(prefix="ms-"))
        atexit.register(shutil.rmtree, self.runtime, ignore_errors=True)
        self.runtime.chmod(0o755)
        HOMES.append(self)
        for name in ("sites-available", "sites-enabled", "sites"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        # Tests run as root in containers; without allow_root no site would share root's interpreter.
        sharing = "[defaults]\nshare = yes\n[supervisor]\nallow_root = yes\nexamine = no\n"
        self.conf(f"[projects]\nread = sites-enabled/*.ini\n{sharing}")
        return self

    def conf(self, text: str) -> None:
        (self.path / "moya.conf").write_text(text)

    def site(self, name: str, code: str | None = None, /, *, enable: bool = True, **keys: str) -> Path:
        """Write site `name` (default: answers ``site NAME`` on NAME.test) and return its directory."""
        where = self.path / "sites" / name
        where.mkdir(exist_ok=True)
        application = keys.setdefault("application", f"{name}_app:application")
        keys.setdefault("domains", f"{name}.test")
        keys.setdefault("location", str(where))
        source = HELLO.replace("{text}", f"site {name}") if code is None else textwrap.dedent(code)
        module = application.partition(":")[0]
        (where / f"{module}.py").write_text(source)
        self.ini(name, "[service]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()), enable=enable)
        return where

    def ini(self, name: str, text: str | bytes, *, enable: bool = True) -> Path:
        """Replace the site file in one step, as a careful editor does."""
        target = self.path / "sites-available" / f"{name}.ini"
        draft = target.with_suffix(".tmp")
        draft.write_bytes(text if isinstance(text, bytes) else text.encode())
        draft.replace(target)
        if enable:
            self.enable(name)
        return target

    def enable(self, name: str) -> None:
        with contextlib.suppress(FileExistsError):
            self.link(name).symlink_to(f"../sites-available/{name}.ini")

    def disable(self, name: str) -> None:
        self.link(name).unlink()

    def link(self, name: str) -> Path:
        return self.path / "sites-enabled" / f"{name}.ini"

    def environ(self) -> dict[str, str]:
        """The environment of a server of this home, with its run-time files in places of its own."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GUNICORN_", "PYTEST_", "XDG_"))}
        return inherited | {
            "MOYA_SERVICE_HOME": str(self.path),
            "PYTHONPATH": str(PACKAGE_ROOT),
            "PYTHONUNBUFFERED": "1",
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_STATE_HOME": str(self.path / "state"),
        }

    def processes(self, *, backends: bool = False, of: str = "") -> dict[int, str]:
        """All processes whose environment or command line names this home, or only those of its spawned sites.

        With `of`, those of one spawned site.
        """
        run_time = self.runtime / "multisite"
        named = [] if backends else [os.fsencode(self.path), os.fsencode(self.runtime)]
        mark = b"?"
        with contextlib.suppress(FileNotFoundError):  # no supervisor has been started
            status = run_time.stat()
            mark = f"MULTISITE_BACKEND={status.st_dev:x}.{status.st_ino:x}:".encode()
            named.append(mark)
        found, preloader = {}, mark + b"%preloader:"
        named = [mark + of.encode() + b":"] if of else named
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            if pid not in (1, os.getpid(), os.getppid()):
                with contextlib.suppress(OSError):
                    environ = read(f"/proc/{pid}/environ")
                    if backends and (mark not in environ or preloader in environ):
                        continue  # the mark is in the environment alone
                    command = read(f"/proc/{pid}/cmdline")
                    if any(name in environ or name in command for name in named):
                        found[pid] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def queued(self) -> int:
        """How many requests are in the queues of sites, which no worker looks after."""
        path = os.fsencode(str(self.runtime / "multisite" / "sites"))
        lines = Path("/proc/net/unix").read_bytes().splitlines()
        return sum(path in line and line.split()[6] == b"0" for line in lines)

    def multisite(self, *arguments: str) -> str:
        """What the command prints."""
        done = self.typed(*arguments)
        return done.stdout + done.stderr

    def typed(self, *arguments: str) -> Result:
        """What comes of the command, which is called here: a process for each costs more than what it does."""
        env = dict.fromkeys(os.environ) | self.environ()
        done = CliRunner().invoke(main, arguments, prog_name="multisite", env=env)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done


# --- the process ----------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """One server process with its log; a context manager that leaves only when the process is gone."""

    argv: list[str]
    port: int
    log_path: Path
    env: dict[str, str]
    pass_fds: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] = field(init=False)

    def __enter__(self) -> Server:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                env=self.env,
                cwd=self.log_path.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.pass_fds,
                start_new_session=True,
            )
        RUNNING.append(self)
        try:
            eventually(self.answers, PATIENCE, f"{self.argv[0]} answers\n{self.log()}")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def answers(self) -> bool:
        """Whether something speaks HTTP on the port yet; which status it says does not matter."""
        assert self.process.poll() is None, f"{self.argv} ended with {self.process.returncode}:\n{self.log()}"
        try:
            return self.ask("ready.invalid").status > 0
        except (OSError, http.client.HTTPException):
            return False

    def stop(self) -> None:
        RUNNING.remove(self)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(ProcessLookupError):  # workers that outlived their master
            os.killpg(self.process.pid, signal.SIGKILL)

    def ask(self, host: str, path: str = "/", **more: object) -> Answer:
        return ask(self.port, host, path, **more)  # type: ignore[arg-type]

    def workers(self) -> set[int]:
        """Process ids of the direct children: under gunicorn, its workers."""
        return set(map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()))

    def log(self) -> str:
        """All that the process wrote so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


def gunicorn(home: HomeDir, worker_class: str = "gthread", *options: str) -> Server:
    """A gunicorn that serves `home`, not started yet; it waits for the next request of a client that is held up."""
    port = free_port()
    argv = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", worker_class]
    argv += ["--no-control-socket", "--keep-alive", "60", *options, "multisite.service:application"]
    return Server(argv, port, home.path / "log" / f"gunicorn-{worker_class}.log", home.environ())


# --- the client -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ServedSite:
    """A site in a process of its own, and the server before it."""

    home: HomeDir
    server: Server
    name: str

    @property
    def host(self) -> str:
        return f"{self.name}.test"

    @property
    def place(self) -> Path:
        return self.home.path / "sites" / self.name

    def noted(self, what: str) -> int:
        """How often the site has noted something: the size of a file beside its code."""
        with contextlib.suppress(FileNotFoundError):
            return (self.place / what).stat().st_size
        return 0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Client:
    """One keep-alive connection, unless `is_last` has each request say that it ends; `ask` sends any Host."""

    is_last = False

    def __init__(self, port: int, timeout: float = PATIENCE) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def ask(self, host: str, path: str = "/", method: str = "GET", body: bytes = b"", accept: str = "*/*") -> Answer:
        wire = self.connection
        wire.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        wire.putheader("Host", host)
        wire.putheader("Accept", accept)
        if body:
            wire.putheader("Content-Length", str(len(body)))
        if self.is_last:
            wire.putheader("Connection", "close")
        wire.endheaders(body or None)
        response = wire.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())

    def close(self) -> None:
        self.connection.close()


def ask(port: int, host: str, path: str = "/", **more: str | bytes) -> Answer:
    """One request on a connection of its own."""
    client = Client(port)
    try:
        return client.ask(host, path, **more)  # type: ignore[arg-type]
    finally:
        client.close()


def send_raw(port: int, request: bytes) -> bytes:
    """Bytes as they are; all that comes back until the server closes.

    The end of them travels with the last: a client that closes its side later counts as one that has left.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        wire.sendall(request)
        wire.shutdown(socket.SHUT_WR)
        answer = bytearray()  # which grows in place: twenty megabytes come in thousands of pieces
        with contextlib.suppress(ConnectionResetError):
            while block := wire.recv(65536):
                answer += block
        return bytes(answer)


def remove(path: Path) -> None:
    """Remove a folder when nothing of the homes there runs any more: a supervisor that leaves writes a last file."""
    for home in HOMES:
        if home.path.is_relative_to(path):
            with contextlib.suppress(AssertionError):  # which the test itself is told of
                eventually(lambda home=home: not home.processes(), PATIENCE)  # type: ignore[misc]
    shutil.rmtree(path, ignore_errors=True)


# --- what every server has to show ----------------------------------------------------------------------------------


def two_sites(path: Path) -> HomeDir:
    """The home of the server tests: a.test and b.test."""
    home = HomeDir(path).create()
    home.site("a")
    home.site("b")
    return home


def assert_serves(server: Server, home: HomeDir) -> None:
    """Two domains, bodies, unknown and bad hosts, and a site that is added while the server runs."""
    for _ in range(20):  # enough to meet every worker
        for name in ("a", "b"):
            answer = server.ask(f"{name}.test")
            assert (answer.status, answer.text) == (200, f"site {name}")
    assert server.ask("B.Test:8000").text == "site b"
    assert server.ask("a.test", method="POST", body=b"posted").text == "site a posted"
    unknown = server.ask("unknown.test", accept="application/json")
    assert unknown.status == 404
    assert server.ask("bad..host").status == 400
    home.site("added")
    for _ in range(10):
        answer = server.ask("added.test")
        assert (answer.status, answer.text) == (200, "site added")
    home.disable("added")
    eventually(
        lambda: all(server.ask("added.test").status == 404 for _ in range(10)), PATIENCE, "a removed site is 404"
    )


# --- servers that have to be installed ------------------------------------------------------------------------------


def debian_program(program: str, *packages: str) -> str:
    """The path of a program, from Debian's packages when it is missing and we are root; else a loud skip."""
    found = find_program(program)
    if not found and debian_install(*packages):
        found = find_program(program)
    return found or not_tested(f"{program}: not installed (apt-get install {' '.join(packages)})")


def debian_install(*packages: str) -> bool:
    """Install packages where that is possible and start no service of theirs; whether they are there now."""
    install = [str(REPOSITORY / ".ci" / "apt"), *packages]
    return subprocess.run(install, capture_output=True, timeout=300, check=False).returncode == 0


def find_program(program: str) -> str | None:
    """Beside our interpreter, on the path, or where Debian keeps daemons."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin"]
    return shutil.which(program, path=os.pathsep.join(places))


def not_tested(reason: str) -> str:
    """Skip, and say so once more at the end of the run."""
    import pytest

    NOT_TESTED.append(reason)
    pytest.skip(f"NOT TESTED: {reason}")


# --- the deployment pages -------------------------------------------------------------------------------------------


def documented(page: str, caption: str, replacements: dict[str, str]) -> str:
    """The code block with this caption in docs/deploy/`page`, its example values replaced (all of them must occur)."""
    text = (REPOSITORY / "docs" / "deploy" / page).read_text()
    block = re.search(rf"```\{{code-block\}} \w+\n *:caption: {re.escape(caption)}\n+(.*?)```", text, re.DOTALL)
    assert block, f"docs/deploy/{page} has no block {caption!r}"
    found = textwrap.dedent(block[1].rstrip(" "))
    for example, real in replacements.items():
        assert example in found, f"{example!r} is not in {caption!r} of docs/deploy/{page}"
        found = found.replace(example, real)
    return found
