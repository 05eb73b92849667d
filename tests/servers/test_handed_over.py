"""Requests that are handed over with their connections: which are, and what becomes of those that wait."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import is_running

from .harness import (
    PATIENCE,
    Answer,
    Client,
    HomeDir,
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


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path) -> HomeDir:
    home = HomeDir(tmp_path).create()
    home.conf(CONF.format("yes"))
    home.site("it", SITE, mode="spawned")
    return home


@contextlib.contextmanager
def served(home: HomeDir, kind: str, *more: str) -> Iterator[Server]:
    """A worker that has met the site, which runs."""
    with gunicorn(home, kind, *KINDS[kind], *more) as server:
        assert server.ask("it.test").status == 200
        yield server


def given(port: int, method: str = "GET", body: object = None, **fields: str) -> int:
    """Make a request, whose body comes with its head; return how many clients' connections the site then has."""
    wire = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    wire.connect()
    wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    wire.request(method, "/", body, {"Host": "it.test", **headers}, encode_chunked=not isinstance(body, bytes))
    wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    answer = wire.getresponse()
    count, echoed = json.loads(answer.read())
    wire.close()
    assert answer.status == 200
    assert not isinstance(body, bytes) or echoed.encode() == body
    return int(count)


def place(home: HomeDir) -> Path:
    return home.path / "sites" / "it"


def size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


@contextlib.contextmanager
def asking(count: int, port: int, path: str = "/wait") -> Iterator[list[concurrent.futures.Future[Answer]]]:
    """So many requests under way, each the last of its connection."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "is_last", True)
        yield [pool.submit(ask, port, "it.test", path) for _ in range(count)]


def test_which_are_handed_over(home: HomeDir, kind: str) -> None:
    """Those whose connections end, with a whole small body; a site never has the connection of any other."""
    with served(home, kind) as server:
        port = server.port
        assert given(port, **CLOSE) == 1
        assert given(port, "POST", b"x" * 1000, **CLOSE) == 1
        assert given(port, "POST", b"x" * 65536, **CLOSE) == 1
        assert send_raw(port, b"GET / HTTP/1.0\r\nHost: it.test\r\n\r\n").endswith(b'[1, ""]')
        assert given(port) == 0
        assert given(port, Connection="x-close") == 0
        assert given(port, "POST", b"x" * 65537, **CLOSE) == 0
        assert given(port, "POST", iter([b"chunk"]), Transfer_Encoding="chunked", **CLOSE) == 0
        assert given(port, Upgrade="websocket", Connection="upgrade, close") == 0
        kept = b"GET / HTTP/1.0\r\nHost: it.test\r\nConnection: keep-alive\r\n\r\n"
        assert send_raw(port, kept).endswith(b'[0, ""]')


@pytest.mark.parametrize("wish", ["auto", "no"])
def test_nobody_gets_a_connection_unasked(home: HomeDir, wish: str) -> None:
    """Root's sites are somebody else's: with `auto` they are relayed."""
    home.conf(CONF.format(wish))
    with served(home, "sync") as server:
        assert given(server.port, **CLOSE) == 0


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
    with served(home, kind, "--access-logfile", "-") as server:
        assert given(server.port, **CLOSE) == 0
    text = (home.path / "sites-available" / "it.ini").read_text()
    home.ini("it", f"{text}\n[logging]\naccess = {home.path}/access.log\n")
    with served(home, kind) as server:
        assert given(server.port, **CLOSE) == 0
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
    with served(home, kind) as behind:
        inside = KEEPING.format(behind=behind.port, port=port, settings=settings)
        with nginx_server(home.path / "nginx", inside, port, home.environ()):
            assert [given(port) for _ in range(10)] == [0] * 10


def test_they_outlive_their_worker(home: HomeDir, kind: str) -> None:
    """The worker has nothing to do with them any more, be they executed or in the queue."""
    with served(home, kind) as server, asking(4, server.port) as asked:
        eventually(lambda: size(place(home) / "begun"), PATIENCE, "the site is at the first")
        eventually(lambda: home.queued() >= 3, PATIENCE, "the others wait")
        for worker in server.workers():
            os.kill(worker, signal.SIGKILL)
        (place(home) / "go").touch()
        assert [future.result().status for future in asked] == [200] * 4
    assert size(place(home) / "executed") == 4


def test_they_outlive_their_server(home: HomeDir) -> None:
    """The supervisor leaves when nobody waits any more."""
    with served(home, "sync") as server, asking(4, server.port) as asked:
        eventually(lambda: home.queued() >= 3, PATIENCE, "all but one wait")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(PATIENCE)
        (place(home) / "go").touch()
        assert [future.result().status for future in asked] == [200] * 4


def test_a_process_that_is_killed_loses_what_it_executes(home: HomeDir) -> None:
    """The client of that one sees its connection end; the others are answered by the next process."""
    with served(home, "sync") as server:
        (pid,) = home.processes(backends=True)
        with asking(1, server.port) as first:
            eventually(lambda: size(place(home) / "begun"), PATIENCE, "the site is at the first")
            os.kill(pid, signal.SIGSTOP)
            with asking(4, server.port, "/") as others:
                eventually(lambda: home.queued() >= 4, PATIENCE, "the others wait")
                os.kill(pid, signal.SIGKILL)
                assert [future.result().status for future in others] == [200] * 4
            with pytest.raises((http.client.HTTPException, OSError)):
                first[0].result()
        eventually(lambda: not is_running(pid), PATIENCE)


def test_who_waits_for_a_site_that_cannot_be_started_is_told(home: HomeDir) -> None:
    """As the clients of relayed requests are: 503, when to come back, and what the log calls it."""
    with served(home, "sync") as server, asking(1, server.port, "/die") as first:
        eventually(lambda: size(place(home) / "dying"), PATIENCE, "the site is at the first")
        with asking(3, server.port, "/") as others:
            eventually(lambda: home.queued() >= 3, PATIENCE, "the others wait")
            (place(home) / "broken").touch()
            (place(home) / "go").touch()
            answers = [future.result() for future in others]
        with pytest.raises((http.client.HTTPException, OSError)):
            first[0].result()
    assert [answer.status for answer in answers] == [503] * 3
    assert all(int(answer.headers["retry-after"]) > 0 and "Incident" in answer.text for answer in answers)


def test_a_request_that_hangs_is_ended(home: HomeDir) -> None:
    """The process looks after its time itself."""
    home.site("it", SITE, mode="spawned", request_timeout="2s")
    with served(home, "sync") as server, asking(1, server.port, "/hang") as hung:
        with pytest.raises((http.client.HTTPException, OSError)):
            hung[0].result()
        assert server.ask("it.test").status == 200


def test_more_than_may_wait_get_503(home: HomeDir) -> None:
    home.site("it", SITE, mode="spawned", max_waiting="2")
    with served(home, "sync") as server, asking(10, server.port) as asked:
        eventually(lambda: any(future.done() for future in asked), PATIENCE, "somebody is refused")
        (place(home) / "go").touch()
        answers = [future.result() for future in asked]
    refused = [answer for answer in answers if answer.status == 503]
    assert refused and all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert size(place(home) / "executed") == 10 - len(refused) >= 3


def test_a_large_file_and_a_client_that_leaves(home: HomeDir, kind: str) -> None:
    with (place(home) / "large").open("wb") as file:
        file.truncate(20 << 20)
    with served(home, kind) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as wire:
            wire.sendall(b"GET /file HTTP/1.0\r\nHost: it.test\r\n\r\n")
            assert wire.recv(100)
        answer = send_raw(server.port, b"GET /file HTTP/1.0\r\nHost: it.test\r\n\r\n")
        assert len(answer.partition(b"\r\n\r\n")[2]) == 20 << 20


def test_each_is_counted_once(home: HomeDir, kind: str) -> None:
    with served(home, kind) as server:
        for number in range(20):
            assert given(server.port, **(CLOSE if number % 2 else {})) == number % 2

        def told() -> tuple[int, int, int]:
            (row,) = json.loads(home.multisite("--json", "stats", "it"))["sites"]
            return row["requests"], row["in_flight"], row["errors"]

        eventually(lambda: told() == (21, 0, 0), PATIENCE, "each is counted, and has ended")
        assert told() == (21, 0, 0)
