"""Requests that are handed over with their connections: which are, and what becomes of those that wait."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import is_running

from .harness import (
    PATIENCE,
    Answer,
    Client,
    HomeDir,
    ServedSite,
    Server,
    ask,
    eventually,
    free_port,
    gunicorn,
    send_raw,
)
from .nginx import nginx_server

pytestmark = pytest.mark.servers

SITE = '''
import json, os, socket, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
if os.path.exists(os.path.join(HERE, "broken")):
    sys.exit("broken")


def note(name):
    with open(os.path.join(HERE, name), "a") as file:
        file.write(".")


def connections():
    """How many connections of clients this process could read from and write to."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found = socket.socket(fileno=int(name))
        except OSError:
            continue
        count += found.family == socket.AF_INET
        found.detach()
    return count


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/wait":
        note("begun")
        while not os.path.exists(os.path.join(HERE, "go")):
            time.sleep(0.005)
        note("executed")
    if path == "/die":
        note("dying")
        while not os.path.exists(os.path.join(HERE, "go")):
            time.sleep(0.005)
        os._exit(1)
    if path == "/hang":
        time.sleep(600)
    if path == "/file":
        start_response("200 OK", [("Content-Length", str(20 << 20))])
        return environ["wsgi.file_wrapper"](open(os.path.join(HERE, "large"), "rb"))
    body = json.dumps([connections(), environ["wsgi.input"].read().decode("latin-1")]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
'''

CONF = "[projects]\nread = sites-enabled/*.ini\n[supervisor]\nallow_root = yes\nhand_over = {}\n"
KINDS = {"sync": ["--workers", "1"], "gthread": ["--workers", "1", "--threads", "2"]}
CLOSE = {"Connection": "close"}


@dataclass(frozen=True)
class It(ServedSite):
    """A site that tells what it was given."""

    name: str = "it"

    def given(self, method: str = "GET", body: object = None, **fields: str) -> int:
        """Make a request, whose body comes with its head; return how many clients' connections the site then has."""
        return given(self.server.port, method, body, host=self.host, **fields)

    @contextlib.contextmanager
    def asking(self, count: int, path: str = "/wait") -> Iterator[list[concurrent.futures.Future[Answer]]]:
        """So many requests under way, each the last of its connection."""
        with concurrent.futures.ThreadPoolExecutor(count) as pool, pytest.MonkeyPatch.context() as patch:
            patch.setattr(Client, "is_last", True)
            yield [pool.submit(ask, self.server.port, self.host, path) for _ in range(count)]

    def raw(self, path: str = "/", more: str = "") -> bytes:
        return send_raw(self.server.port, f"GET {path} HTTP/1.0\r\nHost: {self.host}\r\n{more}\r\n".encode())


def given(port: int, method: str = "GET", body: object = None, host: str = "it.test", **fields: str) -> int:
    """The same, whoever listens there."""
    wire = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    wire.connect()
    wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    wire.request(method, "/", body, {"Host": host, **headers}, encode_chunked=not isinstance(body, bytes))
    wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    answer = wire.getresponse()
    count, echoed = json.loads(answer.read())
    wire.close()
    assert answer.status == 200
    assert not isinstance(body, bytes) or echoed.encode() == body
    return int(count)


def new_home(path: Path) -> HomeDir:
    home = HomeDir(path).create()
    home.conf(CONF.format("yes"))
    return home


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path) -> HomeDir:
    """For a test that ends its server, or wants it otherwise."""
    home = new_home(tmp_path)
    home.site("it", SITE, mode="spawned")
    return home


@contextlib.contextmanager
def served(home: HomeDir, kind: str, *more: str) -> Iterator[It]:
    """A worker that has met the site, which runs."""
    with gunicorn(home, kind, *KINDS[kind], *more) as server:
        assert server.ask("it.test").status == 200
        yield It(home, server)


@pytest.fixture(scope="module")
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[HomeDir, Server]]:
    """The server that the tests of one kind share."""
    home = new_home(tmp_path_factory.mktemp(request.param))
    with gunicorn(home, request.param, *KINDS[request.param]) as server:
        yield home, server
    eventually(lambda: not home.processes(), PATIENCE, "nothing is left")


@pytest.fixture
def it(request: pytest.FixtureRequest, shared: tuple[HomeDir, Server]) -> Iterator[It]:
    """A site of the test's own, which runs; the parameter is a dictionary of keys."""
    made = It(*shared, f"it{next(NUMBERS)}")
    made.home.site(made.name, SITE, mode="spawned", **getattr(request, "param", {}))
    assert made.server.ask(made.host).status == 200
    yield made
    (made.place / "go").touch()
    made.home.disable(made.name)


NUMBERS = itertools.count(1)
each = pytest.mark.parametrize("shared", ["sync", "gthread"], indirect=True)
sync = pytest.mark.parametrize("shared", ["sync"], indirect=True)


@each
def test_which_are_handed_over(it: It) -> None:
    """Those whose connections end, with a whole small body; a site never has the connection of any other."""
    assert it.given(**CLOSE) == 1
    assert it.given("POST", b"x" * 1000, **CLOSE) == 1
    # What does not fit into one segment may arrive in two steps, of which the worker sees the first only.
    eventually(lambda: it.given("POST", b"x" * 65536, **CLOSE) == 1, PATIENCE, "the largest body is handed over")
    assert it.raw().endswith(b'[1, ""]')
    assert it.given() == 0
    assert it.given(Connection="x-close") == 0
    assert it.given("POST", b"x" * 65537, **CLOSE) == 0
    assert it.given("POST", iter([b"chunk"]), Transfer_Encoding="chunked", **CLOSE) == 0
    assert it.given(Upgrade="websocket", Connection="upgrade, close") == 0
    assert it.raw(more="Connection: keep-alive\r\n").endswith(b'[0, ""]')


@pytest.mark.parametrize("wish", ["auto", "no"])
def test_nobody_gets_a_connection_unasked(home: HomeDir, wish: str) -> None:
    """Root's sites are somebody else's: with `auto` they are relayed."""
    home.conf(CONF.format(wish))
    with served(home, "sync") as it:
        assert it.given(**CLOSE) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_sites_of_the_workers_own_user_are_given_connections(public_path: Path) -> None:
    """With `auto`: they could take the workers' connections anyhow."""
    home = HomeDir(public_path).create()
    home.conf(CONF.format("auto"))
    home.site("it", SITE, mode="spawned")
    (public_path / "log").mkdir()
    for path in (home.runtime, *public_path.rglob("*"), public_path):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    server = gunicorn(home, "sync", "--workers", "1", "--worker-tmp-dir", str(home.runtime))
    server.argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *server.argv]
    with server:
        assert server.ask("it.test").status == 200
        assert given(server.port, **CLOSE) == 1


def test_what_is_logged_here_is_relayed(home: HomeDir, kind: str) -> None:
    """By the server's access log, or by the site's own."""
    with served(home, kind, "--access-logfile", "-") as it:
        assert it.given(**CLOSE) == 0
    text = (home.path / "sites-available" / "it.ini").read_text()
    home.ini("it", f"{text}\n[logging]\naccess = {home.path}/access.log\n")
    with served(home, kind) as it:
        assert it.given(**CLOSE) == 0
        log = home.path / "access.log"
        eventually(lambda: log.exists() and log.read_text().count("GET / HTTP/1.1") == 2, PATIENCE, "both are logged")


KEEPING = """
    upstream workers {{ server 127.0.0.1:{behind}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://workers;
            proxy_set_header Host $http_host;
            {settings}
        }}
    }}
"""


@pytest.mark.parametrize(
    ("wish", "settings"),
    [("yes", 'proxy_http_version 1.1; proxy_set_header Connection "";'), ("auto", "")],
    ids=["yes", "auto, and nginx keeps what it said to close"],
)
def test_a_front_end_that_keeps_its_connections(home: HomeDir, kind: str, wish: str, settings: str) -> None:
    """A hostile site has nothing in its process on which it could wait for the next visitor."""
    home.conf(CONF.format(wish))
    port = free_port()
    with served(home, kind) as it:
        inside = KEEPING.format(behind=it.server.port, port=port, settings=settings)
        with nginx_server(home.path / "nginx", inside, port, home.environ()):
            assert [given(port) for _ in range(10)] == [0] * 10


@each
def test_they_outlive_their_worker(it: It) -> None:
    """The worker has nothing to do with them any more, be they executed or in the queue."""
    with it.asking(4) as asked:
        eventually(lambda: it.noted("begun"), PATIENCE, "the site is at the first")
        eventually(lambda: it.home.queued() >= 3, PATIENCE, "the others wait")
        for worker in it.server.workers():
            os.kill(worker, signal.SIGKILL)
        (it.place / "go").touch()
        assert [future.result().status for future in asked] == [200] * 4
    assert it.noted("executed") == 4


def test_they_outlive_their_server(home: HomeDir) -> None:
    """The supervisor leaves when nobody waits any more."""
    with served(home, "sync") as it, it.asking(4) as asked:
        eventually(lambda: home.queued() >= 3, PATIENCE, "all but one wait")
        it.server.process.send_signal(signal.SIGTERM)
        it.server.process.wait(PATIENCE)
        (it.place / "go").touch()
        assert [future.result().status for future in asked] == [200] * 4


@sync
def test_a_process_that_is_killed_loses_what_it_executes(it: It) -> None:
    """The client of that one sees its connection end; the others are answered by the next process."""
    (pid,) = it.home.processes(backends=True, of=it.name)
    with it.asking(1) as first:
        eventually(lambda: it.noted("begun"), PATIENCE, "the site is at the first")
        os.kill(pid, signal.SIGSTOP)
        with it.asking(4, "/") as others:
            eventually(lambda: it.home.queued() >= 4, PATIENCE, "the others wait")
            os.kill(pid, signal.SIGKILL)
            assert [future.result().status for future in others] == [200] * 4
        with pytest.raises((http.client.HTTPException, OSError)):
            first[0].result()
    eventually(lambda: not is_running(pid), PATIENCE)


@sync
def test_who_waits_for_a_site_that_cannot_be_started_is_told(it: It) -> None:
    """As the clients of relayed requests are: 503, when to come back, and what the log calls it."""
    with it.asking(1, "/die") as first:
        eventually(lambda: it.noted("dying"), PATIENCE, "the site is at the first")
        with it.asking(3, "/") as others:
            eventually(lambda: it.home.queued() >= 3, PATIENCE, "the others wait")
            (it.place / "broken").touch()
            (it.place / "go").touch()
            answers = [future.result() for future in others]
        with pytest.raises((http.client.HTTPException, OSError)):
            first[0].result()
    assert [answer.status for answer in answers] == [503] * 3
    assert all(int(answer.headers["retry-after"]) > 0 and "Incident" in answer.text for answer in answers)


@sync
@pytest.mark.parametrize("it", [{"request_timeout": "2s"}], indirect=True, ids=["2s"])
def test_a_request_that_hangs_is_ended(it: It) -> None:
    """The process looks after its time itself."""
    with it.asking(1, "/hang") as hung:
        with pytest.raises((http.client.HTTPException, OSError)):
            hung[0].result()
        assert it.server.ask(it.host).status == 200


@sync
@pytest.mark.parametrize("it", [{"max_waiting": "2"}], indirect=True, ids=["two"])
def test_more_than_may_wait_get_503(it: It) -> None:
    with it.asking(10) as asked:
        eventually(lambda: any(future.done() for future in asked), PATIENCE, "somebody is refused")
        (it.place / "go").touch()
        answers = [future.result() for future in asked]
    refused = [answer for answer in answers if answer.status == 503]
    assert refused and all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert it.noted("executed") == 10 - len(refused) >= 3


@each
def test_a_large_file_and_a_client_that_leaves(it: It) -> None:
    with (it.place / "large").open("wb") as file:
        file.truncate(20 << 20)
    with socket.create_connection(("127.0.0.1", it.server.port)) as wire:
        wire.sendall(f"GET /file HTTP/1.0\r\nHost: {it.host}\r\n\r\n".encode())
        assert wire.recv(100)
    assert len(it.raw("/file").partition(b"\r\n\r\n")[2]) == 20 << 20


@each
def test_each_is_counted_once(it: It) -> None:
    for number in range(20):
        assert it.given(**(CLOSE if number % 2 else {})) == number % 2

    def told() -> tuple[int, int, int]:
        (row,) = json.loads(it.home.multisite("--json", "stats", it.name))["sites"]
        return row["requests"], row["in_flight"], row["errors"]

    eventually(lambda: told() == (21, 0, 0), PATIENCE, "each is counted, and has ended")
    assert told() == (21, 0, 0)
