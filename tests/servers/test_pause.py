"""A pause, in every way in which a site is reached: requests wait, none is lost, and none runs twice."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .everyway import ASGI, WSGI, Reply, Way, every_way, reply
from .harness import PATIENCE, HomeDir, eventually, gunicorn

pytestmark = pytest.mark.servers

WSGI_APP = """
def application(environ, start_response):
    with open("asked", "a") as file:
        file.write(environ["REQUEST_METHOD"] + environ["PATH_INFO"] + "\\n")
    body = environ["QUERY_STRING"].encode() + environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
ASGI_APP = """
async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    with open("asked", "a") as file:
        file.write(scope["method"] + scope["path"] + "\\n")
    body, more = scope["query_string"], True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
THROUGH_WORKERS = [name for name in (*WSGI, *ASGI) if not name.endswith("own-socket")]


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Way]]:
    with every_way(tmp_path_factory.mktemp("ways"), WSGI_APP, ASGI_APP) as found:
        yield found


def asked(way: Way) -> list[str]:
    assert way.home
    path = way.home.path / "sites" / way.host.removesuffix(".test") / "asked"
    return path.read_text().splitlines() if path.exists() else []


class Several:
    """Requests that are made at once, each on a connection of its own."""

    def __init__(self, way: Way, *requests: tuple[str, str, bytes]) -> None:
        self.replies: list[Reply] = []
        self.wires: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        for target, method, body in requests:
            wire = way.connect()
            wire.sendall(way.head(target, method, f"Content-Length: {len(body)}") + body)
            self.wires.append(wire)
            thread = threading.Thread(target=lambda wire=wire: self.replies.append(reply(wire)))  # type: ignore[misc]
            thread.start()
            self.threads.append(thread)

    def done(self) -> list[tuple[int, bytes]]:
        for thread in self.threads:
            thread.join(PATIENCE)
        for wire in self.wires:
            wire.close()
        return sorted((one.status, one.body) for one in self.replies)


@pytest.mark.parametrize("name", THROUGH_WORKERS)
def test_requests_wait_until_it_is_resumed_and_each_runs_once(ways: dict[str, Way], name: str) -> None:
    way = ways[name]
    home, site = way.home, way.host.removesuffix(".test")
    assert home
    assert way.ask("/before").status == 200
    assert home.multisite("pause", site) == f"{site}: paused\n"
    before = asked(way)
    several = Several(way, ("/one?a=1", "GET", b""), ("/two", "POST", b"x" * 100_000), ("/three", "PUT", b"y"))
    gone = way.connect()
    gone.sendall(way.head("/gone"))
    neighbour = ways[name.replace("asgi-", "") if "asgi-" in name else f"asgi-{name}".replace("in-process", "relayed")]
    for _ in range(3):
        assert neighbour.ask("/neighbour").status == 200  # by the same one worker, although several wait in it
    gone.close()
    assert asked(way) == before
    assert home.multisite("resume", site) == f"{site}: resumed\n"
    assert several.done() == [(200, b"a=1"), (200, b"x" * 100_000), (200, b"y")]
    assert way.ask("/after").status == 200
    assert sorted(asked(way)[len(before) :]) == ["GET/after", "GET/one", "POST/two", "PUT/three"]


@pytest.mark.parametrize("name", ["own-socket", "asgi-own-socket"])
def test_nobody_goes_past_the_pause_to_the_site(ways: dict[str, Way], name: str) -> None:
    way = ways[name]
    home, site = way.home, way.host.removesuffix(".test")
    assert home
    folder = home.runtime / "multisite" / "domains" / way.host
    home.multisite("pause", site)
    eventually(lambda: not folder.exists() and not Path(way.path).exists(), PATIENCE, "the door is shut")
    home.multisite("resume", site)
    eventually((folder / "http.sock").exists, PATIENCE, "the door is open again")
    assert way.ask("/again").status == 200


@pytest.mark.parametrize("kind", ["gthread", "sync"])
def test_who_has_waited_long_enough_is_told_to_come_again(tmp_path: Path, kind: str) -> None:
    home = HomeDir(tmp_path).create()
    for name, mode in (("out", "spawned"), ("in", "in-process"), ("far", "proxy")):
        more = {"upstreams": "http://127.0.0.1:9"} if name == "far" else {}
        home.site(name, WSGI_APP, mode=mode, pause_timeout="0.3s", **more)
    with gunicorn(home, kind, "--workers", "1") as server:
        home.multisite("pause", "all")
        for name in ("out", "in", "far"):
            answer = server.ask(f"{name}.test", "/x")
            assert (answer.status, answer.headers["retry-after"]) == (503, "10")
            (row,) = json.loads(home.multisite("--json", "list", name))["sites"]
            assert row["service"] == "paused"
        assert not home.processes(backends=True)
        home.multisite("resume", "all")
        assert server.ask("out.test", "/y").status == server.ask("in.test", "/y").status == 200
        assert server.ask("far.test", "/y").status == 502
        for name in ("out", "in"):
            assert (home.path / "sites" / name / "asked").read_text() == "GET/y\n"


def waiting(home: HomeDir, name: str) -> int:
    """How many requests of a paused site its workers hold."""
    (row,) = json.loads(home.multisite("--json", "status", name))["sites"]
    return int(row["in_flight"])


def test_it_outlives_the_server_and_keeps_the_process(tmp_path: Path) -> None:
    home = HomeDir(tmp_path).create()
    home.site("out", WSGI_APP, mode="spawned", max_waiting="2")
    way = Way("", "out.test", home=home, says_close=True)
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "2") as server:
        way.port = server.port
        way.ask("/")
        before = home.processes(backends=True, of="out")
        home.multisite("pause", "out")
        eventually(lambda: not (home.runtime / "multisite/sites/out.sock").exists(), PATIENCE, "the door is shut")
        several = Several(way, ("/a", "GET", b""), ("/b", "GET", b""))
        eventually(lambda: waiting(home, "out") == 2, PATIENCE, "both wait")
        more = way.ask("/c")
        assert (more.status, more.all("Retry-After")) == (503, ["5"])  # as many wait as may
        home.multisite("resume", "out")
        assert [status for status, _ in several.done()] == [200, 200]
        assert home.processes(backends=True, of="out") == before
        home.multisite("pause", "out")
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "2") as server:
        way.port = server.port
        several = Several(way, ("/d", "GET", b""))
        assert json.loads((tmp_path / "outages.json").read_text())["out"][0]["kind"] == "paused"
        assert os.listdir(home.runtime / "multisite" / "domains") == []
        home.multisite("resume", "out")
        assert [status for status, _ in several.done()] == [200]
