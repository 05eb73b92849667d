"""Requests that take long, under real servers: nobody else waits for them, and nothing of them is lost."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import http.client
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import (
    PATIENCE,
    Answer,
    Client,
    HomeDir,
    Server,
    eventually,
    free_port,
    gunicorn,
    send_raw,
)
from .nginx import nginx_server

pytestmark = pytest.mark.servers

SLOW = '''
import hashlib, os, time

HERE = os.path.dirname(os.path.abspath(__file__))


def application(environ, start_response):
    return KINDS.get(environ["PATH_INFO"].strip("/"), wait)(environ, start_response)


def note(name):
    with open(os.path.join(HERE, name), "a") as file:
        file.write(".")


def wait(environ, start_response):
    """Until there is a file `go`."""
    note("begun")
    while not os.path.exists(os.path.join(HERE, "go")):
        time.sleep(0.005)
    return tell(environ, start_response)


def tell(environ, start_response):
    digest = hashlib.sha256()
    while True:
        data = environ["wsgi.input"].read(65536)
        if not data:
            break
        digest.update(data)
    note("executed")
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Digest", digest.hexdigest())])
    return [b"waited"]


def stream(environ, start_response):
    """An event now, and another when there is a file `go`; the client's leaving is written down."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    try:
        yield b"data: one\\n\\n"
        while not os.path.exists(os.path.join(HERE, "go")):
            time.sleep(0.005)
            yield b": \\n"
        yield b"data: two\\n\\n"
    finally:
        note("left")


def large(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(20 << 20))])
    return (bytes([65 + number % 26]) * 65536 for number in range(320))


def short(environ, start_response):
    """Dies in the middle; with a length or in chunks."""
    length = [("Content-Length", "1000")] if environ["QUERY_STRING"] else []
    start_response("200 OK", [("Content-Type", "text/plain"), *length])
    yield b"less"
    time.sleep(0.05)
    os._exit(1)


KINDS = {"tell": tell, "stream": stream, "large": large, "short": short}
'''

LARGE = b"".join(bytes([65 + number % 26]) * 65536 for number in range(320))
KINDS = {"sync": ["--workers", "1"], "gthread": ["--workers", "1", "--threads", "2"], "gevent": ["--workers", "1"]}


@pytest.fixture(params=["sync", "gthread", "gevent"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["relayed", "handed over"])
def home(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> HomeDir:
    """`slow.test` in a process of its own, `near.test` in the workers; relayed, or given what can be."""
    home = HomeDir(tmp_path).create()
    if request.param == "handed over":
        monkeypatch.setattr(Client, "is_last", True)
        home.conf((home.path / "moya.conf").read_text() + "hand_over = yes\n")
    home.site("slow", SLOW, mode="spawned")
    home.site("near")
    return home


def place(home: HomeDir) -> Path:
    return home.path / "sites" / "slow"


def served(home: HomeDir, kind: str, *more: str) -> Server:
    return gunicorn(home, kind, *KINDS[kind], *more)


@contextlib.contextmanager
def asking(count: int, port: int, path: str = "/", **more: object) -> Iterator[list[concurrent.futures.Future[Answer]]]:
    """So many requests under way at once."""
    from .harness import ask

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        yield [pool.submit(ask, port, "slow.test", path, **more) for _ in range(count)]  # type: ignore[arg-type]


def begun(home: HomeDir) -> int:
    with contextlib.suppress(FileNotFoundError):
        return (place(home) / "begun").stat().st_size
    return 0


def go(home: HomeDir) -> None:
    (place(home) / "go").touch()


def assert_near_answers(server: Server) -> None:
    for _ in range(5):
        answer = server.ask("near.test")
        assert (answer.status, answer.text) == (200, "site near")


def test_waiting_requests_hold_nobody_up(home: HomeDir, kind: str) -> None:
    """Twelve requests wait for a site that lets them; a worker of one or two threads answers others meanwhile."""
    with served(home, kind) as server, asking(12, server.port) as waiting:
        eventually(lambda: begun(home), PATIENCE, "the site is at the first request")
        assert_near_answers(server)
        assert not any(future.done() for future in waiting)
        go(home)
        assert [(future.result().status, future.result().text) for future in waiting] == [(200, "waited")] * 12
        assert (place(home) / "executed").stat().st_size == 12


def test_a_cold_start_with_a_large_body_holds_nobody_up(home: HomeDir, kind: str) -> None:
    """50 MB wait for a site whose import takes its time."""
    slow_import = "import os, time\nwhile not os.path.exists(os.path.join(os.path.dirname(__file__), 'go')):\n"
    module = place(home) / "slow_app.py"
    module.write_text(slow_import + "    time.sleep(0.005)\n" + module.read_text())
    body = os.urandom(1 << 20) * 50
    with served(home, kind) as server, asking(2, server.port, "/tell", method="POST", body=body) as waiting:
        eventually(lambda: home.processes(backends=True), PATIENCE, "the site is being started")
        assert_near_answers(server)
        assert not any(future.done() for future in waiting)
        go(home)
        for future in waiting:
            assert future.result().headers["x-digest"] == hashlib.sha256(body).hexdigest()


def test_a_stream_holds_nobody_up_and_ends_with_its_client(home: HomeDir, kind: str) -> None:
    with served(home, kind) as server:
        wire = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        wire.request("GET", "/stream", headers={"Host": "slow.test"})
        answer = wire.getresponse()
        assert answer.readline() == b"data: one\n"
        assert_near_answers(server)
        answer.close()
        wire.close()
        eventually((place(home) / "left").exists, PATIENCE, "the site knows that its client left")


def test_a_large_answer_comes_whole(home: HomeDir, kind: str) -> None:
    with served(home, kind) as server:
        for _ in range(3):
            assert server.ask("slow.test", "/large").body == LARGE


@pytest.mark.parametrize("query", ["", "?length"], ids=["chunks", "length"])
def test_a_site_that_dies_in_its_answer_shows(home: HomeDir, kind: str, query: str) -> None:
    with served(home, kind) as server:
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            server.ask("slow.test", f"/short{query}")
        assert server.ask("slow.test", "/tell").status == 200


def test_more_than_may_wait_get_503(home: HomeDir, kind: str) -> None:
    """What is in the queue of a site is bounded, by `max_waiting`."""
    home.site("slow", SLOW, mode="spawned", max_waiting="3")
    with served(home, kind) as server, asking(12, server.port) as waiting:
        eventually(lambda: begun(home), PATIENCE, "the site is at the first request")
        eventually(lambda: any(future.done() for future in waiting), PATIENCE, "somebody is refused")
        go(home)
        answers = [future.result() for future in waiting]
    refused = [answer for answer in answers if answer.status == 503]
    assert {answer.status for answer in answers} == {200, 503}
    assert len(refused) < 12 - 3
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert (place(home) / "executed").stat().st_size == 12 - len(refused)


def test_a_slow_site_in_the_workers_holds_its_share_of_their_threads(home: HomeDir) -> None:
    """The rest of its requests are answered by a process of its own, and a neighbour finds threads that are free."""
    home.site("slow", SLOW, in_process_at_once="2")
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "4") as server:
        server.ask("slow.test", "/tell")
        with asking(12, server.port) as waiting:
            eventually(lambda: begun(home) > 2, PATIENCE, "the worker and the process are at it")
            assert_near_answers(server)
            assert not any(future.done() for future in waiting)
            assert home.processes(backends=True)
            go(home)
            assert [future.result().text for future in waiting] == ["waited"] * 12
        assert (place(home) / "executed").stat().st_size == 13


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP], ids=["TERM", "HUP"])
@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_a_worker_that_ends_finishes_what_is_in_flight(home: HomeDir, kind: str, how: signal.Signals) -> None:
    with served(home, kind) as server, asking(3, server.port) as waiting:
        eventually(lambda: begun(home), PATIENCE, "the site is at the first request")
        eventually(lambda: home.queued() == 2, PATIENCE, "the others are in its queue")
        old = server.workers()
        server.process.send_signal(how)
        if how == signal.SIGHUP:
            eventually(lambda: server.workers() - old, PATIENCE, "there is a new worker")
            assert_near_answers(server)
        go(home)
        assert [future.result().text for future in waiting] == ["waited"] * 3
        eventually(lambda: not old & server.workers(), PATIENCE, "the old worker ends")


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_a_worker_that_is_replaced_leaves_what_is_in_flight_to_nobody(home: HomeDir, kind: str) -> None:
    """After `max_requests` there is a new worker at once, though requests of the old one still wait."""
    with served(home, kind, "--max-requests", "4") as server, asking(3, server.port) as waiting:
        eventually(lambda: begun(home), PATIENCE, "the site is at the first request")
        old = server.workers()
        near = [server.ask("near.test").text for _ in range(4)]
        eventually(lambda: server.workers() - old, PATIENCE, "there is a new worker")
        assert near == ["site near"] * 4
        assert not any(future.done() for future in waiting)
        go(home)
        assert [future.result().text for future in waiting] == ["waited"] * 3
        eventually(lambda: not old & server.workers(), PATIENCE, "the old worker has ended")


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_a_server_told_to_end_at_once_does(home: HomeDir, kind: str) -> None:
    with served(home, kind) as server, asking(2, server.port) as waiting:
        eventually(lambda: begun(home), PATIENCE, "the site is at the first request")
        server.process.send_signal(signal.SIGINT)
        server.process.wait(PATIENCE / 3)  # not until they end, which they never do
        for future in waiting:
            with pytest.raises((http.client.HTTPException, OSError)):
                future.result()
        go(home)  # for the site, whose process the supervisor lets finish


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_the_access_log_has_a_line_for_each_request(home: HomeDir, kind: str) -> None:
    with served(home, kind, "--access-logfile", "-") as server:
        go(home)
        assert server.ask("slow.test", "/tell?quick").status == 200
        assert server.ask("slow.test", "/large?taken-over").status == 200
        both = ("/large?taken-over", "/tell?quick")
        eventually(lambda: all(path in server.log() for path in both), PATIENCE, "the lines are written")
        lines = [line for line in server.log().splitlines() if "GET /" in line and "slow" not in line]
    assert [line.count('"GET /tell?quick HTTP/1.1" 200 6 ') for line in lines].count(1) == 1
    assert [line.count(f'"GET /large?taken-over HTTP/1.1" 200 {20 << 20} ') for line in lines].count(1) == 1


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_connections_that_were_taken_are_given_back(home: HomeDir, kind: str) -> None:
    """Neither descriptors nor places in the worker leak."""
    with served(home, kind) as server:
        go(home)

        def descriptors() -> int:
            (worker,) = server.workers()
            return len(os.listdir(f"/proc/{worker}/fd"))

        for _ in range(5):
            server.ask("slow.test", "/large")
        before = descriptors()
        for _ in range(40):
            assert server.ask("slow.test", "/large").status == 200
            assert server.ask("slow.test", "/tell").status == 200
        eventually(lambda: descriptors() <= before + 2, PATIENCE, "the connections are closed")


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_a_client_that_waits_keeps_its_connection_where_it_may(home: HomeDir, kind: str) -> None:
    """Quick answers leave the connection to the server, which keeps it if it can; others end it, and say so."""
    with served(home, kind) as server:
        go(home)
        server.ask("slow.test", "/tell")
        client = Client(server.port)
        large = client.ask("slow.test", "/large")
        assert large.headers["connection"] == "close"
        assert client.ask("slow.test", "/tell").status == 200  # http.client connects anew
        client.close()


HOSTILE = """
import socket, sys

listener = socket.socket(fileno=3)
listener.setblocking(True)
answer = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: keep-alive\\r\\n\\r\\n"
while True:
    wire, _ = listener.accept()
    wire.settimeout(10)
    try:
        asked = wire.recv(65536)
        body = b"x" * (70000 if b"/much" in asked else 10)
        wire.sendall(answer % len(body) + body)
        wire.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nSTOLEN" * 3)
        asked = wire.recv(65536)
        if asked:
            open(sys.argv[1], "ab").write(asked)
    except OSError:
        pass
    wire.close()
"""

STRAIGHT_ON = """
    proxy_max_temp_file_size 0;
    upstream workers {{ server 127.0.0.1:{behind}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://workers;
            proxy_http_version 1.1;
            proxy_set_header Connection {connection};
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
        }}
    }}
"""


@contextlib.contextmanager
def behind_nginx(home: HomeDir, behind: Server, upgrade: bool = False) -> Iterator[Server]:
    """nginx that keeps its connections to the workers, or has them changed to another protocol."""
    port, connection = free_port(), "Upgrade" if upgrade else '""'
    inside = STRAIGHT_ON.format(behind=behind.port, port=port, connection=connection)
    with nginx_server(home.path / "nginx", inside, port, home.environ()) as server:
        yield server


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_a_hostile_backend_meets_nobody_elses_request(home: HomeDir, kind: str) -> None:
    """It says that the connection stays open, and more than it was asked; no visitor of a neighbour ever sees that."""
    where = home.site("evil", "", command=f"{sys.executable} {home.path}/sites/evil/evil.py {home.path}/stolen")
    (where / "evil.py").write_text(HOSTILE)
    with served(home, kind) as workers, behind_nginx(home, workers) as server:
        for path in ("/", "/much"):
            for _ in range(20):
                evil = server.ask("evil.test", path)
                near = server.ask("near.test")
                assert (evil.status, set(evil.text)) == (200, {"x"})
                assert (near.status, near.text) == (200, "site near")
    assert not (home.path / "stolen").exists()


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_behind_nginx_all_of_it_holds(home: HomeDir, kind: str) -> None:
    with served(home, kind) as workers, behind_nginx(home, workers) as server:
        with asking(12, server.port) as waiting:
            eventually(lambda: begun(home), PATIENCE, "the site is at the first request")
            assert_near_answers(server)
            go(home)
            assert [future.result().text for future in waiting] == ["waited"] * 12
        assert server.ask("slow.test", "/large").body == LARGE


def test_a_client_that_says_it_is_done_is_answered(home: HomeDir, kind: str) -> None:
    """Closing its side for sending is not leaving."""
    with served(home, kind) as server:
        server.ask("slow.test", "/tell")
        (place(home) / "begun").unlink(missing_ok=True)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            request = b"GET / HTTP/1.1\r\nHost: slow.test\r\nConnection: close\r\n\r\n"
            future = pool.submit(send_raw, server.port, request)
            eventually(lambda: begun(home), PATIENCE, "the site is at the request")
            time.sleep(0.1)
            go(home)
            assert b"waited" in future.result()


def test_a_client_that_leaves_frees_the_site(home: HomeDir) -> None:
    """The connection to the backend is closed though the site says nothing."""
    (place(home) / "slow_app.py").write_text(LISTENS)
    home.ini(
        "slow",
        f"[service]\ndomains = slow.test\nlocation = {place(home)}\ncommand = {sys.executable} slow_app.py\n",
    )
    with served(home, "gthread") as server:
        with socket.create_connection(("127.0.0.1", server.port)) as wire:
            wire.sendall(b"GET / HTTP/1.1\r\nHost: slow.test\r\n\r\n")
            eventually((place(home) / "begun").exists, PATIENCE, "the site has the request")
            time.sleep(0.05)
        eventually((place(home) / "left").exists, PATIENCE, "the site sees its connection closed")


LISTENS = """
import pathlib, socket

listener = socket.socket(fileno=3)
listener.setblocking(True)
while True:
    wire, _ = listener.accept()
    if wire.recv(65536):
        pathlib.Path("begun").touch()
        if not wire.recv(1):
            pathlib.Path("left").touch()
    wire.close()
"""


def test_where_threads_must_wait_a_slow_site_holds_its_share(home: HomeDir) -> None:
    """waitress keeps its clients' connections; the visitors of a slow site beyond its share are told to come back."""
    port = free_port()
    argv = [
        sys.executable,
        "-m",
        "waitress",
        f"--listen=127.0.0.1:{port}",
        "--threads=4",
        "multisite.service:application",
    ]
    with Server(argv, port, home.path / "log" / "waitress.log", home.environ()) as server:
        server.ask("near.test")
        with asking(8, port) as waiting:
            eventually(lambda: begun(home), PATIENCE, "the site is at the first request")
            eventually(lambda: sum(future.done() for future in waiting) >= 5, PATIENCE, "the others are refused")
            assert_near_answers(server)
            go(home)
            answers = [future.result() for future in waiting]
    refused = [answer for answer in answers if answer.status == 503]
    assert {answer.status for answer in answers} == {200, 503}
    assert 5 <= len(refused) <= 7
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)


def test_heads_that_do_not_end_hold_nobody_up(home: HomeDir) -> None:
    """Connections on which nothing comes, or half a head, are no thread's; what is whole in the end is answered."""
    with served(home, "gthread") as server, contextlib.ExitStack() as stack:
        head = b"GET / HTTP/1.1\r\nHost: near.test\r\nConnection: close\r\nX-A: "
        silent, begun = [], []
        for _ in range(4):
            for wires in (silent, begun):
                wires.append(
                    stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
                )
        for wire in begun:
            wire.sendall(head)
        for turn in range(3):
            for wire in begun:
                wire.sendall(b"%d" % turn)
            assert_near_answers(server)
        for wire in begun:
            wire.sendall(b"\r\n\r\n")
            answer = b""
            while block := wire.recv(65536):
                answer += block
            assert answer.endswith(b"site near")
