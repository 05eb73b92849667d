"""Requests that take long, under real servers: nobody else waits for them, and nothing of them is lost."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import http.client
import itertools
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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


@dataclass(frozen=True)
class Slow(ServedSite):
    """A site that takes long; beside it, `near.test`."""

    name: str = "slow"

    def begun(self) -> int:
        return self.noted("begun")

    def go(self) -> None:
        (self.place / "go").touch()

    def ask(self, path: str = "/", **more: str | bytes) -> Answer:
        return self.server.ask(self.host, path, **more)

    @contextlib.contextmanager
    def asking(
        self, count: int, path: str = "/", **more: str | bytes
    ) -> Iterator[list[concurrent.futures.Future[Answer]]]:
        """So many requests under way at once."""
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            yield [pool.submit(ask, self.server.port, self.host, path, **more) for _ in range(count)]

    def assert_near_answers(self) -> None:
        for _ in range(5):
            answer = self.server.ask("near.test")
            assert (answer.status, answer.text) == (200, "site near")


def made(path: Path, hand: str) -> HomeDir:
    """`slow.test` in a process of its own, `near.test` in the workers; relayed, or given what can be."""
    home = HomeDir(path).create()
    if hand == "handed over":
        home.conf((home.path / "moya.conf").read_text() + "hand_over = yes\n")
    home.site("slow", SLOW, mode="spawned")
    home.site("near")
    return home


@pytest.fixture(params=["relayed", "handed over"])
def hand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether what can be handed over is."""
    monkeypatch.setattr(Client, "is_last", request.param == "handed over")
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path, hand: str) -> HomeDir:
    return made(tmp_path, hand)


@contextlib.contextmanager
def served(home: HomeDir, kind: str, *more: str) -> Iterator[Slow]:
    """A server for one test, which ends it or wants it otherwise."""
    with gunicorn(home, kind, *KINDS[kind], *more) as server:
        yield Slow(home, server)


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slow]:
    """The server that the tests of one kind share, with an access log."""
    kind, hand = request.param
    with served(made(tmp_path_factory.mktemp(kind), hand), kind, "--access-logfile", "-") as slow:
        yield slow


@pytest.fixture
def slow(request: pytest.FixtureRequest, shared: Slow, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """A site of the test's own, which no request has reached yet; its parameter is a dictionary of keys."""
    monkeypatch.setattr(Client, "is_last", "hand_over" in (shared.home.path / "moya.conf").read_text())
    site = Slow(shared.home, shared.server, f"slow{next(NUMBERS)}")
    site.home.site(site.name, SLOW, mode="spawned", **getattr(request, "param", {}))
    yield site
    site.go()  # where the test has failed, too
    site.home.disable(site.name)


NUMBERS = itertools.count(1)
HANDS = ("relayed", "handed over")


def each_of(*kinds: str) -> pytest.MarkDecorator:
    pairs = [(kind, hand) for kind in kinds for hand in HANDS]
    return pytest.mark.parametrize("shared", pairs, indirect=True, ids="-".join)


each, each_plain = each_of(*KINDS), each_of("sync", "gthread")
alone = pytest.mark.parametrize("kind", ["sync", "gthread"])


@each
def test_waiting_requests_hold_nobody_up(slow: Slow) -> None:
    """Twelve requests wait for a site that lets them; a worker of one or two threads answers others meanwhile."""
    with slow.asking(12) as waiting:
        eventually(slow.begun, PATIENCE, "the site is at the first request")
        slow.assert_near_answers()
        assert not any(future.done() for future in waiting)
        slow.go()
        assert [(future.result().status, future.result().text) for future in waiting] == [(200, "waited")] * 12
        assert slow.noted("executed") == 12


@each
def test_a_cold_start_with_a_large_body_holds_nobody_up(slow: Slow) -> None:
    """16 MB, more than all buffers on the way hold, wait for a site whose import takes its time."""
    module = slow.place / f"{slow.name}_app.py"
    module.write_text(SLOW_IMPORT + module.read_text())
    body = os.urandom(1 << 20) * 16
    with slow.asking(2, "/tell", method="POST", body=body) as waiting:
        eventually(lambda: slow.noted("importing"), PATIENCE, "the site is being started")
        slow.assert_near_answers()
        assert not any(future.done() for future in waiting)
        slow.go()
        for future in waiting:
            assert future.result().headers["x-digest"] == hashlib.sha256(body).hexdigest()


SLOW_IMPORT = """
import os, time
with open(os.path.join(os.path.dirname(__file__), "importing"), "w") as file:
    file.write(".")
while not os.path.exists(os.path.join(os.path.dirname(__file__), "go")):
    time.sleep(0.005)
"""


@each
def test_a_stream_holds_nobody_up_and_ends_with_its_client(slow: Slow) -> None:
    wire = http.client.HTTPConnection("127.0.0.1", slow.server.port, timeout=PATIENCE)
    wire.request("GET", "/stream", headers={"Host": slow.host})
    answer = wire.getresponse()
    assert answer.readline() == b"data: one\n"
    slow.assert_near_answers()
    answer.close()
    wire.close()
    eventually(lambda: slow.noted("left"), PATIENCE, "the site knows that its client left")


@each
def test_a_large_answer_comes_whole(slow: Slow) -> None:
    for _ in range(2):  # of a site that has to be started, and of one that runs
        assert slow.ask("/large").body == LARGE


@each
@pytest.mark.parametrize("query", ["", "?length"], ids=["chunks", "length"])
def test_a_site_that_dies_in_its_answer_shows(slow: Slow, query: str) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        slow.ask(f"/short{query}")
    assert slow.ask("/tell").status == 200


@each
@pytest.mark.parametrize("slow", [{"max_waiting": "3"}], indirect=True, ids=["three"])
def test_more_than_may_wait_get_503(slow: Slow) -> None:
    """What is in the queue of a site is bounded, by `max_waiting`."""
    with slow.asking(1) as first:  # while it is in the queue itself, it has a place there
        eventually(slow.begun, PATIENCE, "the site is at the first request")
        with slow.asking(11) as waiting:
            eventually(lambda: any(future.done() for future in waiting), PATIENCE, "somebody is refused")
            slow.go()
            answers = [future.result() for future in (*first, *waiting)]
    refused = [answer for answer in answers if answer.status == 503]
    assert {answer.status for answer in answers} == {200, 503}
    assert len(refused) < 12 - 3
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert slow.noted("executed") == 12 - len(refused)


def test_a_slow_site_in_the_workers_holds_its_share_of_their_threads(home: HomeDir) -> None:
    """The rest of its requests are answered by a process of its own, and a neighbour finds threads that are free."""
    home.site("slow", SLOW, in_process_at_once="2")
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "4") as server:
        slow = Slow(home, server)
        slow.ask("/tell")
        with slow.asking(12) as waiting:
            eventually(lambda: slow.begun() > 2, PATIENCE, "the worker and the process are at it")
            slow.assert_near_answers()
            assert not any(future.done() for future in waiting)
            assert home.processes(backends=True)
            slow.go()
            assert [future.result().text for future in waiting] == ["waited"] * 12
        assert slow.noted("executed") == 13


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP], ids=["TERM", "HUP"])
@alone
def test_a_worker_that_ends_finishes_what_is_in_flight(home: HomeDir, kind: str, how: signal.Signals) -> None:
    with served(home, kind) as slow, slow.asking(3) as waiting:
        eventually(slow.begun, PATIENCE, "the site is at the first request")
        eventually(lambda: home.queued() == 2, PATIENCE, "the others are in its queue")
        old = slow.server.workers()
        slow.server.process.send_signal(how)
        if how == signal.SIGHUP:
            eventually(lambda: slow.server.workers() - old, PATIENCE, "there is a new worker")
            slow.assert_near_answers()
        slow.go()
        assert [future.result().text for future in waiting] == ["waited"] * 3
        eventually(lambda: not old & slow.server.workers(), PATIENCE, "the old worker ends")


@alone
def test_a_worker_that_is_replaced_leaves_what_is_in_flight_to_nobody(home: HomeDir, kind: str) -> None:
    """After `max_requests` there is a new worker at once, though requests of the old one still wait."""
    with served(home, kind, "--max-requests", "4") as slow, slow.asking(3) as waiting:
        eventually(slow.begun, PATIENCE, "the site is at the first request")
        old = slow.server.workers()
        near = [slow.server.ask("near.test").text for _ in range(4)]
        eventually(lambda: slow.server.workers() - old, PATIENCE, "there is a new worker")
        assert near == ["site near"] * 4
        assert not any(future.done() for future in waiting)
        slow.go()
        assert [future.result().text for future in waiting] == ["waited"] * 3
        eventually(lambda: not old & slow.server.workers(), PATIENCE, "the old worker has ended")


@alone
def test_a_server_told_to_end_at_once_does(home: HomeDir, kind: str) -> None:
    with served(home, kind) as slow, slow.asking(2) as waiting:
        eventually(slow.begun, PATIENCE, "the site is at the first request")
        slow.server.process.send_signal(signal.SIGINT)
        slow.server.process.wait(PATIENCE / 3)  # not until they end, which they never do
        for future in waiting:
            with pytest.raises((http.client.HTTPException, OSError)):
                future.result()
        slow.go()  # for the site, whose process the supervisor lets finish


@each_plain
def test_the_access_log_has_a_line_for_each_request(slow: Slow) -> None:
    assert slow.ask("/tell?quick").status == 200
    assert slow.ask("/large?taken-over").status == 200
    expected = ('"GET /tell?quick HTTP/1.1" 200 6 ', f'"GET /large?taken-over HTTP/1.1" 200 {20 << 20} ')
    before = slow.server.log()
    eventually(
        lambda: all(line in slow.server.log() for line in expected), PATIENCE, f"the lines are written\n{before}"
    )
    assert [slow.server.log().count(line) for line in expected] == [1, 1]
    assert [slow.server.log().count(f"GET {path}?") for path in ("/tell", "/large")] == [1, 1]


@each_plain
def test_connections_that_were_taken_are_given_back(slow: Slow) -> None:
    """Neither descriptors nor places in the worker leak."""

    def descriptors() -> int:
        (worker,) = slow.server.workers()
        return len(os.listdir(f"/proc/{worker}/fd"))

    for _ in range(3):
        slow.ask("/large")
    before = descriptors()
    for _ in range(6):
        assert slow.ask("/large").status == 200
        for _ in range(4):
            assert slow.ask("/tell").status == 200
    eventually(lambda: descriptors() <= before + 2, PATIENCE, "the connections are closed")


@each_plain
def test_a_client_that_waits_keeps_its_connection_where_it_may(slow: Slow) -> None:
    """Quick answers leave the connection to the server, which keeps it if it can; others end it, and say so."""
    slow.ask("/tell")
    client = Client(slow.server.port)
    large = client.ask(slow.host, "/large")
    assert large.headers["connection"] == "close"
    assert client.ask(slow.host, "/tell").status == 200  # http.client connects anew
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


@each_plain
def test_a_hostile_backend_meets_nobody_elses_request(slow: Slow) -> None:
    """It says that the connection stays open, and more than it was asked; no visitor of a neighbour ever sees that."""
    command = f"{sys.executable} {slow.place}/evil.py {slow.place}/stolen"
    slow.home.site(slow.name, "", command=command)
    (slow.place / "evil.py").write_text(HOSTILE)
    with behind_nginx(slow.home, slow.server) as server:
        for path in ("/", "/much"):
            for _ in range(20):
                evil = server.ask(slow.host, path)
                near = server.ask("near.test")
                assert (evil.status, set(evil.text)) == (200, {"x"})
                assert (near.status, near.text) == (200, "site near")
    assert not (slow.place / "stolen").exists()


@each_plain
def test_behind_nginx_all_of_it_holds(slow: Slow) -> None:
    with behind_nginx(slow.home, slow.server) as server:
        ahead = Slow(slow.home, server, slow.name)
        with ahead.asking(12) as waiting:
            eventually(slow.begun, PATIENCE, "the site is at the first request")
            ahead.assert_near_answers()
            slow.go()
            assert [future.result().text for future in waiting] == ["waited"] * 12
        assert ahead.ask("/large").body == LARGE


@each
def test_a_client_that_says_it_is_done_is_answered(slow: Slow) -> None:
    """Closing its side for sending is not leaving."""
    slow.ask("/tell")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        request = f"GET / HTTP/1.1\r\nHost: {slow.host}\r\nConnection: close\r\n\r\n".encode()
        future = pool.submit(send_raw, slow.server.port, request)
        eventually(slow.begun, PATIENCE, "the site is at the request")
        time.sleep(0.1)
        slow.go()
        assert b"waited" in future.result()


@each_of("gthread")
def test_a_client_that_leaves_frees_the_site(slow: Slow) -> None:
    """The connection to the backend is closed though the site says nothing."""
    slow.home.site(slow.name, LISTENS, command=f"{sys.executable} {slow.name}_app.py")
    with socket.create_connection(("127.0.0.1", slow.server.port)) as wire:
        wire.sendall(f"GET / HTTP/1.1\r\nHost: {slow.host}\r\n\r\n".encode())
        eventually((slow.place / "begun").exists, PATIENCE, "the site has the request")
        time.sleep(0.05)
    eventually((slow.place / "left").exists, PATIENCE, "the site sees its connection closed")


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
    argv = [sys.executable, "-m", "waitress", f"--listen=127.0.0.1:{port}", "--threads=4"]
    argv.append("multisite.service:application")
    with Server(argv, port, home.path / "log" / "waitress.log", home.environ()) as server:
        slow = Slow(home, server)
        slow.assert_near_answers()
        with slow.asking(8) as waiting:
            eventually(slow.begun, PATIENCE, "the site is at the first request")
            eventually(lambda: sum(future.done() for future in waiting) >= 5, PATIENCE, "the others are refused")
            slow.assert_near_answers()
            slow.go()
            answers = [future.result() for future in waiting]
    refused = [answer for answer in answers if answer.status == 503]
    assert {answer.status for answer in answers} == {200, 503}
    assert 5 <= len(refused) <= 7
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)


@each_of("gthread")
def test_heads_that_do_not_end_hold_nobody_up(slow: Slow) -> None:
    """Connections on which nothing comes, or half a head, are no thread's; what is whole in the end is answered."""
    with contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", slow.server.port), timeout=PATIENCE))

        head = b"GET / HTTP/1.1\r\nHost: near.test\r\nConnection: close\r\nX-A: "
        silent, begun = zip(*((connect(), connect()) for _ in range(4)), strict=True)
        assert len(silent) == 4
        for wire in begun:
            wire.sendall(head)
        for turn in range(3):
            for wire in begun:
                wire.sendall(b"%d" % turn)
            slow.assert_near_answers()
        for wire in begun:
            wire.sendall(b"\r\n\r\n")
            answer = b""
            while block := wire.recv(65536):
                answer += block
            assert answer.endswith(b"site near")
