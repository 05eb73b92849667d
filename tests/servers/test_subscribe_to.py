"""Sites with `subscribe_to`, in front of which a real Fastrouter of uWSGI is: asleep or awake, it finds them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.proxy.wire import uwsgi
from tests.processes import is_running

from .harness import REPOSITORY, HomeDir, eventually, free_port
from .system_python import uwsgi_of_debian

pytestmark = [pytest.mark.servers, pytest.mark.processes]

KEY = "sleeper.example"


class Fastrouter:
    """The program, and what it knows."""

    def __init__(self, log: Path) -> None:
        self.port, self.subscriptions, self.stats = free_port(), free_port(), free_port()
        self.log = log

    @contextlib.contextmanager
    def running(self) -> Iterator[Fastrouter]:
        argv = [uwsgi_of_debian(), "--plugins-dir", "/usr/lib/uwsgi/plugins", "--plugin", "fastrouter", "--master"]
        argv += ["--die-on-term", "--fastrouter", f"127.0.0.1:{self.port}"]
        argv += ["--fastrouter-subscription-server", f"127.0.0.1:{self.subscriptions}"]
        argv += ["--fastrouter-stats-server", f"127.0.0.1:{self.stats}"]
        with self.log.open("wb") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.log.parent)
        try:
            eventually(lambda: self.keys() is not None, what=f"the fastrouter serves: {self.log.read_text()}")
            yield self
        finally:
            process.terminate()
            process.wait(20)

    def keys(self) -> dict[str, list[str]] | None:
        """The keys it knows and their nodes, as its statistics say."""
        try:
            with socket.create_connection(("127.0.0.1", self.stats), 5) as connection:
                document = connection.makefile().read()
            subscriptions = json.loads(document)["subscriptions"]
        except (OSError, ValueError, KeyError):
            return None
        return {told["key"]: [node["name"] for node in told["nodes"]] for told in subscriptions}

    def ask(self, host: str) -> bytes:
        """What a front end that speaks uwsgi gets."""
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": "", "SERVER_PROTOCOL": "HTTP/1.1"}
        with socket.create_connection(("127.0.0.1", self.port), 60) as connection:
            connection.sendall(uwsgi.encode(environ, [("HTTP_HOST", host)], None))
            return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture(scope="module")
def fastrouter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fastrouter]:
    with Fastrouter(tmp_path_factory.mktemp("fastrouter") / "log").running() as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> HomeDir:
    return HomeDir(tmp_path_factory.mktemp("home")).create()


@contextlib.contextmanager
def supervisor(home: HomeDir) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor in the foreground, without any worker."""
    argv = [sys.executable, "-m", "multisite", "--home", str(home.path), "supervise"]
    log = home.path / "supervisor.log"
    with log.open("ab") as file:
        process = subprocess.Popen(argv, env=home.environ(), stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)
        print(log.read_text())


SERVERS = {"our own server": {}, "uWSGI": {"server": "uwsgi", "protocol": "uwsgi"}}


def announced(home: HomeDir, name: str, *keys: str, port: int, **more: str) -> None:
    to = ", ".join(f"127.0.0.1:{port}:{key}" for key in keys)
    home.site(name, mode="spawned", idle_timeout="0", subscribe_to=to, **more)


@pytest.mark.parametrize("server", SERVERS)
def test_a_request_through_the_fastrouter_starts_a_sleeping_site(
    home: HomeDir, fastrouter: Fastrouter, server: str
) -> None:
    """It is announced for both of its keys while nothing of it runs; it leaves when it is disabled, and comes back."""
    announced(home, "sleeper", KEY, f"www.{KEY},0", port=fastrouter.subscriptions, **SERVERS[server])
    with supervisor(home):
        eventually(lambda: set(fastrouter.keys() or ()) == {KEY, f"www.{KEY}"}, what=str(fastrouter.log.read_text()))
        sock = str(home.runtime / "multisite" / "sites" / "sleeper.sock")
        assert fastrouter.keys() == {KEY: [sock], f"www.{KEY}": [sock]}
        assert not home.processes(backends=True), "it is asleep"
        assert fastrouter.ask(KEY).endswith(b"\r\n\r\nsite sleeper")
        assert fastrouter.ask(f"www.{KEY}").endswith(b"\r\n\r\nsite sleeper")
        assert home.processes(backends=True)
        home.multisite("stop", "sleeper")
        eventually(lambda: not home.processes(backends=True), what="it sleeps again")
        assert fastrouter.ask(KEY).endswith(b"\r\n\r\nsite sleeper")
        home.disable("sleeper")
        eventually(lambda: fastrouter.keys() == {}, what="it has left")
        home.enable("sleeper")
        eventually(lambda: set(fastrouter.keys() or ()) == {KEY, f"www.{KEY}"}, what="it is back")
        announced(home, "sleeper", KEY, port=fastrouter.subscriptions, **SERVERS[server])
        eventually(lambda: fastrouter.keys() == {KEY: [sock]}, what="the other key has left")
    assert "no announce" not in fastrouter.log.read_text(), "it said so itself, each time"


def test_whoever_ends_leaves(home: HomeDir, fastrouter: Fastrouter) -> None:
    """The supervisor says farewell for its sites; a new program in its place does not, and goes on."""
    announced(home, "sleeper", KEY, port=fastrouter.subscriptions)
    with supervisor(home) as process:
        eventually(lambda: KEY in (fastrouter.keys() or ()), what="it is announced")
        before = os.readlink(f"/proc/{process.pid}/exe")
        assert "Traceback" not in home.multisite("reload", "--supervisor")
        assert is_running(process.pid) and os.readlink(f"/proc/{process.pid}/exe") == before
        assert fastrouter.ask(KEY).endswith(b"\r\n\r\nsite sleeper")
    assert fastrouter.keys() == {}
    assert "no announce" not in fastrouter.log.read_text()


def test_what_cannot_be_announced_is_told(home: HomeDir) -> None:
    """A site whose server speaks HTTP serves, and `check` says why no Fastrouter hears of it."""
    home.site("plain", mode="spawned", server="uwsgi", subscribe_to="127.0.0.1:7000:plain.example")
    try:
        told = home.multisite("check")
    finally:
        home.disable("plain")
    assert "warning" in told and "subscribe_to" in told and "a fastrouter speaks only uwsgi" in told, told
    assert "protocol = uwsgi" in told


def test_a_wrong_address_is_told(home: HomeDir) -> None:
    """Names are not looked up by the supervisor, and a key is needed."""
    home.site("wrong", mode="spawned", server="uwsgi", protocol="uwsgi", subscribe_to="localhost:7000:a.example")
    try:
        told = home.multisite("check")
    finally:
        home.disable("wrong")
    assert "'localhost' is not an IP address" in told, told


def test_each_option_of_the_fastrouter_has_its_counterpart() -> None:
    """The page on moving from it names all options that the program knows."""
    argv = [uwsgi_of_debian(), "--plugins-dir", "/usr/lib/uwsgi/plugins", "--plugin", "fastrouter", "--help"]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout
    options = set(re.findall(r"--(fastrouter[a-z-]*)", told))
    page = (REPOSITORY / "docs" / "moving-from-fastrouter.md").read_text()
    assert options and not [name for name in options if not re.search(rf"`{name}[` ]", page)]
