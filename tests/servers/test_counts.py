"""Every request is counted once, in every way that it can take, over the ends of a worker and of the supervisor.

Clients keep their own books of what they were answered, and of requests that came to nothing, which may have been
counted or not.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from multisite.config.read import read_home
from multisite.sites import usage
from multisite.sites.statefile import StateFile
from multisite.sites.tally import Tallies
from multisite.supervisor import accounts
from multisite.supervisor.records.journal import Journal
from tests.processes import is_running

from .harness import PATIENCE, HomeDir, Server, eventually, gunicorn
from .test_spawned import supervisor_of

pytestmark = pytest.mark.servers

WSGI = """
import os, time

def application(environ, start_response):
    while environ["PATH_INFO"] == "/wait" and not os.path.exists(environ["QUERY_STRING"]):
        time.sleep(0.01)
    status = {"/500": "500 Oh", "/404": "404 No", "/302": "302 There"}.get(environ["PATH_INFO"], "200 OK")
    body = b"x" * (10 + len(environ["wsgi.input"].read()))
    start_response(status, [("Content-Length", str(len(body)))])
    return [body] if environ["PATH_INFO"] != "/parts" else iter([body[:5], body[5:]])
"""
ASGI = """
import asyncio, os

async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    while scope["path"] == "/wait" and not os.path.exists(scope["query_string"]):
        await asyncio.sleep(0.01)
    more, size = True, 10
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    status = {"/500": 500, "/404": 404, "/302": 302}.get(scope["path"], 200)
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % size)]})
    await send({"type": "http.response.body", "body": b"x" * size})
"""
SPAWNED = ("wsgi", "given", "asgi")
SITES = ("here", *SPAWNED, "far")
CLIENTS = 4
PATHS = ("/", "/", "/parts", "/404", "/302", "/500")


@dataclass
class Books:
    """What clients were answered.

    `answers` has each answer's site, and the monotonic seconds at which its request began; `begun` has the same of each
    client's last request.
    """

    sure: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in SITES})
    sent: Counter[str] = field(default_factory=Counter)
    unsure: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[str, float]] = field(default_factory=list)
    begun: dict[int, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, name: str, status: int, size: int, begun: float = 0.0) -> None:
        with self.lock:
            self.sure[name][f"{status // 100}xx"] += 1
            self.sent[name] += size
            self.answers.append((name, begun))

    def lost(self, name: str) -> None:
        with self.lock:
            self.unsure[name] += 1


class Upstream(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/500": 500, "/404": 404, "/302": 302}.get(self.path, 200))
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"x" * 10)

    def log_message(self, *_more: Any) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def home(tmp_path: Path, upstream: int) -> HomeDir:
    made = HomeDir(tmp_path).create()
    with (tmp_path / "moya.conf").open("a") as conf:
        conf.write("hand_over = yes\n")
    made.site("here", WSGI, mode="in-process")
    made.site("wsgi", WSGI, mode="spawned")
    made.site("given", WSGI, mode="spawned")
    made.site("asgi", ASGI, mode="spawned")
    made.site("far", mode="proxy", upstreams=f"http://127.0.0.1:{upstream}", application="")
    return made


def asked(books: Books, port: int, stop: threading.Event, seed: int, home: HomeDir) -> None:
    """Ask for anything of any site, by the server and straight at the sockets of sites."""
    chance = random.Random(seed)
    while not stop.wait(0.001):
        name, path = chance.choice(SITES), chance.choice(PATHS)
        books.begun[seed] = begun = time.monotonic()
        wire = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        if name in SPAWNED and chance.random() < 0.3:
            with contextlib.suppress(OSError):
                wire.sock = socket.socket(socket.AF_UNIX)
                wire.sock.settimeout(PATIENCE)
                wire.sock.connect(str(home.runtime / "multisite" / "domains" / f"{name}.test" / "http.sock"))
            if wire.sock is None:
                continue
            try:
                wire.sock.getpeername()
            except OSError:  # nobody listens there just now
                wire.close()
                continue
        try:
            body = b"y" * 7 if name != "far" and chance.random() < 0.2 else None
            headers = {"Host": f"{name}.test", "Connection": "close"}
            wire.request("POST" if body else "GET", path, body, headers)
            answer = wire.getresponse()
            size = len(answer.read())
        except (OSError, http.client.HTTPException):
            books.lost(name)
        else:
            books.answered(name, answer.status, size, begun)
        finally:
            wire.close()


@contextlib.contextmanager
def load(books: Books, server: Server, home: HomeDir) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=asked, args=(books, server.port, stop, seed, home)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def some(books: Books, count: int) -> None:
    """Wait until the clients have had so many answers more."""
    wanted = len(books.answers) + count
    eventually(lambda: len(books.answers) >= wanted, PATIENCE, "answers")


def figures(home: HomeDir, command: str = "status") -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(home.multisite("--json", command))["sites"]}


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_running(pid), PATIENCE, f"{pid} is dead")


def noted(home: HomeDir) -> Counter[str]:
    """What would be left of the counts if workers and supervisor were killed now."""
    made = read_home(str(home.path), home.environ())
    of_workers, _ = usage.read(os.path.join(made.runtime_dir, usage.FOLDER), StateFile(made, usage.FOLDER))
    found = Counter({name: sums.requests for name, sums in of_workers.items()})
    kept, since = Tallies(made).all(), Journal(made).read()
    for name in {*kept, *since}:
        found[name] += max(each[name].requests or 0 for each in (kept, since) if name in each)
    return found


def since(books: Books, count: int) -> Counter[str]:
    """Count by site those of all but the first `count` answers that began before now, once no other can come."""
    ended = time.monotonic()
    eventually(lambda: min(books.begun.values()) > ended, 2 * PATIENCE, "each client has had its last answer")
    return Counter(name for name, begun in books.answers[count:] if begun <= ended)


def end_of_worker(server: Server, books: Books) -> Counter[str]:
    """Kill a worker; return the requests that it may have answered without counting their ends.

    An end is counted after the answer has been sent, and each client has one request at a time.
    """
    before = len(books.answers) - CLIENTS
    kill(min(server.workers()))
    return since(books, before)


def end_of_supervisor(home: HomeDir, books: Books) -> Counter[str]:
    """Kill the supervisor once it has noted all that was answered until now; return what it may have missed since.

    Its sites end with it, one after the other: those that a preloader has made end with the preloader.
    """
    pid, before = supervisor_of(home), len(books.answers)
    backends = [backend for row in figures(home).values() for backend in row["pids"]]
    answered = Counter(name for name, _ in books.answers[:before])
    eventually(lambda: answered <= noted(home), PATIENCE, "all answers are noted")
    kill(pid)
    eventually(lambda: not any(map(is_running, backends)), PATIENCE, "its sites have ended")
    return since(books, before)


def test_every_request_of_a_quiet_service_is_counted_exactly(home: HomeDir) -> None:
    """Classes and bytes, too; and `stats` shows the same."""
    books = Books()
    with gunicorn(home, "gthread", "--workers", "2", "--threads", "4") as server:
        for name in SITES:
            books.answered(name, 200, len(server.ask(f"{name}.test").body))
        with load(books, server, home):
            some(books, 600)
        assert not books.unsure
        eventually(lambda: not any(figures(home)[name]["in_flight"] for name in SITES))
        seen = figures(home)
        for name in SITES:
            found, sure = seen[name], books.sure[name]
            assert {key: count for key, count in found["statuses"].items() if count} == dict(sure), name
            assert (found["requests"], found["errors"]) == (sum(sure.values()), sure["5xx"]), name
            assert found["sent"] == books.sent[name], name
        again = figures(home, "stats")
        for name in SITES:
            for key in ("requests", "errors", "statuses", "received", "sent"):
                assert again[name][key] == seen[name][key], (name, key)


def test_the_ends_of_a_worker_and_of_the_supervisor_cost_moments_and_count_nothing_twice(home: HomeDir) -> None:
    """The end of a worker costs no request, that of the supervisor what came after its last look at the scoreboards."""
    assert accounts.FOLLOW_EVERY <= 0.02
    books, late = Books(), Counter[str]()
    with gunicorn(home, "gthread", "--workers", "2", "--threads", "4") as server:
        with load(books, server, home):
            some(books, 300)
            unended = end_of_worker(server, books)
            some(books, 300)
            for _ in range(2):
                late += end_of_supervisor(home, books)
                some(books, 300)
        eventually(lambda: not any(figures(home)[name]["in_flight"] for name in SITES))
        seen = figures(home)
        for name in SITES:
            sure, unsure = sum(books.sure[name].values()), books.unsure[name]
            least = sure - (late[name] if name in SPAWNED else 0)
            assert least <= seen[name]["requests"] <= sure + unsure, (name, late, unsure)
            ended = sum(seen[name]["statuses"].values())
            assert least - unended[name] <= ended <= sure + unsure, (name, late, unended, unsure)


def test_requests_in_flight_are_shown_once_with_method_and_path(home: HomeDir, tmp_path: Path) -> None:
    """In the worker, relayed or handed over; without the query, which may have secrets."""
    sites = ("here", "wsgi", "asgi")
    go = tmp_path / "go"
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "8") as server:
        for name in sites:
            server.ask(f"{name}.test")
        path = f"/wait?{go}"
        threads = [threading.Thread(target=server.ask, args=(f"{name}.test", path)) for name in sites]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: all(figures(home)[name]["in_flight"] for name in sites))
            for name in sites:
                (shown,) = figures(home)[name]["requests_in_flight"]
                assert (shown["method"], shown["path"]) == ("GET", "/wait"), name
                assert 0 <= shown["age"] < 60
        finally:
            go.touch()
            for thread in threads:
                thread.join()
        eventually(lambda: not any(figures(home)[name]["requests_in_flight"] for name in sites))
