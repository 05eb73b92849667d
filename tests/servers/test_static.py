"""Static files, access logs and figures under real gunicorns: what the server itself has a part in."""

from __future__ import annotations

import http.client
import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import PATIENCE, HomeDir, Server, eventually, gunicorn, send_raw

pytestmark = pytest.mark.servers

LARGE = random.Random(7).randbytes(3_000_000)
SMALL = b"a { color: red }\n"


def home_with_files(path: Path) -> HomeDir:
    """A site in the worker and one with a process of its own, both with the same files."""
    home = HomeDir(path).create()
    files = path / "files"
    files.mkdir()
    (files / "hello.css").write_bytes(SMALL)
    (files / "large").write_bytes(LARGE)
    (path / "canary").write_bytes(b"canary")
    for name, keys in (("a", {}), ("s", {"mode": "spawned"})):
        home.site(name, **keys)
        ini = path / "sites-available" / f"{name}.ini"
        home.ini(name, f"{ini.read_text()}[static]\n/static = {files}\n")
    return home


@pytest.fixture(scope="module", params=["sync", "gthread"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = home_with_files(tmp_path_factory.mktemp(request.param))
    with gunicorn(home, request.param, "--threads", "4") as server:
        yield server


def get(server: Server, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request(
            "GET", path, headers={"Host": "a.test", **{k.replace("_", "-"): headers[k] for k in headers}}
        )
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(("path", "content"), [("/static/hello.css", SMALL), ("/static/large", LARGE)])
def test_a_file_arrives_whole(served: Server, path: str, content: bytes) -> None:
    response, body = get(served, path)
    assert (response.status, body) == (200, content)
    assert response.getheader("Content-Length") == str(len(content))
    assert not response.getheader("Transfer-Encoding")


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (1_000_000, 2_500_000), (2_999_000, 3_000_000)])
def test_a_part_of_a_large_file_arrives(served: Server, start: int, stop: int) -> None:
    """A large part too, which gunicorn sends with sendfile(2)."""
    response, body = get(served, "/static/large", Range=f"bytes={start}-{stop - 1}")
    assert response.status == 206
    assert body == LARGE[start:stop]
    assert response.getheader("Content-Range") == f"bytes {start}-{stop - 1}/{len(LARGE)}"


def test_several_parts_arrive(served: Server) -> None:
    response, body = get(served, "/static/large", Range="bytes=0-99999,1000000-1999999")
    assert response.status == 206
    assert len(body) == int(str(response.getheader("Content-Length")))
    assert LARGE[:100_000] in body
    assert LARGE[1_000_000:2_000_000] in body


def test_a_connection_goes_on_after_every_kind_of_answer(served: Server) -> None:
    """HEAD, 304, 405, 416 and a part leave nothing behind on a connection that is kept."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    etag = get(served, "/static/hello.css")[0].getheader("ETag") or ""
    for method, headers, status in (
        ("HEAD", {}, 200),
        ("GET", {"If-None-Match": etag}, 304),
        ("DELETE", {}, 405),
        ("GET", {"Range": "bytes=99-"}, 416),
        ("GET", {"Range": "bytes=1-2"}, 206),
        ("GET", {}, 200),
    ):
        connection.request(method, "/static/hello.css", headers={"Host": "a.test", **headers})
        response = connection.getresponse()
        body = response.read()
        assert response.status == status, (method, headers)
    assert body == SMALL
    connection.close()


def test_the_files_of_a_spawned_site_wake_no_process(tmp_path: Path) -> None:
    home = home_with_files(tmp_path)
    with gunicorn(home) as server:
        assert server.ask("s.test", "/static/hello.css").body == SMALL
        assert server.ask("s.test", "/static/none").status == 404
        assert not home.processes(backends=True)
        assert server.ask("s.test").text == "site s"
        assert home.processes(backends=True)


@pytest.mark.parametrize(
    "target",
    [
        b"/static/../canary",
        b"/static/%2e%2e/canary",
        b"/static/..%2fcanary",
        b"/static/%252e%252e/canary",
        b"/static/..\\canary",
        b"/static/..%5ccanary",
        b"/static//../canary",
        b"/static/./../canary",
        b"/static/hello.css/../../canary",
        b"/static/%c0%ae%c0%ae/canary",
        b"/static/hello.css%00",
        b"/static/" + b"../" * 50 + b"etc/passwd",
        b"/static/" + b"x" * 2000,
    ],
)
def test_nothing_outside_is_served_however_it_is_written(served: Server, target: bytes) -> None:
    answer = send_raw(served.port, b"GET " + target + b" HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
    assert b"canary" not in answer.partition(b"\r\n\r\n")[2]
    assert answer.split()[1] in (b"400", b"404"), answer[:200]


# --- access logs ----------------------------------------------------------------------------------------------------

SLOW = """
import os, time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.3)
    if environ["PATH_INFO"] == "/held":
        open("begun", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.005)
    if environ["PATH_INFO"] == "/long":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"x" * 1000 for _ in range(300))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


def home_with_logs(path: Path) -> HomeDir:
    home = home_with_files(path)
    (path / "log").mkdir(exist_ok=True)
    for name in ("a", "s"):
        (path / "sites" / name / f"{name}_app.py").write_text(SLOW)
        ini = path / "sites-available" / f"{name}.ini"
        home.ini(name, f"{ini.read_text()}[logging]\naccess = {path}/log/%(name)s.access.log\n")
    return home


def lines(home: HomeDir, name: str) -> list[str]:
    path = home.path / "log" / f"{name}.access.log"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_every_request_has_its_line_whoever_answers_and_however(
    tmp_path: Path, worker_class: str, version: str
) -> None:
    """In-process and spawned sites, and files; at once, from the relay loop, from a server that forgets the request."""
    home = home_with_logs(tmp_path)
    with gunicorn(home, worker_class, "--threads", "4", "--workers", "2") as server:
        for name, how in (("a", "in-process"), ("s", "spawned")):
            asked = [("/", 2), ("/slow", 2), ("/long", 300_000)]
            asked += [("/static/hello.css", len(SMALL)), ("/static/large", len(LARGE))]
            for path, size in asked:
                head = f"GET {path} HTTP/{version}\r\nHost: {name}.test\r\nUser-Agent: t\r\nConnection: close\r\n\r\n"
                assert len(send_all(server.port, head.encode())) >= size
            eventually(lambda name=name: len(lines(home, name)) >= len(asked), PATIENCE, "all lines are there")
            said = [line.split() for line in lines(home, name)]
            assert sorted((one[6], one[8], one[9], one[-1]) for one in said) == sorted(
                (path, "200", str(size), "static" if path.startswith("/static") else how) for path, size in asked
            )
            assert all(one[5] == '"GET' and one[7] == f'HTTP/{version}"' and one[12] == name for one in said)
            slow = next(one for one in said if one[6] == "/slow")
            assert float(slow[13]) >= 0.3


def send_all(port: int, request: bytes) -> bytes:
    """The whole answer, from a client that keeps its own side open."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as wire:
        wire.sendall(request)
        answer = bytearray()
        while block := wire.recv(65536):
            answer += block
        return bytes(answer).partition(b"\r\n\r\n")[2]


def test_a_client_that_leaves_a_slow_spawned_site_is_in_its_log(tmp_path: Path) -> None:
    home = home_with_logs(tmp_path)
    with gunicorn(home) as server:
        assert server.ask("s.test").status == 200
        with socket.create_connection(("127.0.0.1", server.port)) as wire:
            wire.sendall(b"GET /held HTTP/1.1\r\nHost: s.test\r\n\r\n")
            eventually((home.path / "sites" / "s" / "begun").exists, PATIENCE, "it is being answered")
        eventually(lambda: any(line.endswith(",cut") for line in lines(home, "s")), PATIENCE, "the line is there")
        (cut,) = [line for line in lines(home, "s") if line.endswith(",cut")]
        assert cut.split()[8] == "499"
        (home.path / "sites" / "s" / "go").touch()


def test_logs_are_rotated_under_load_and_no_line_is_lost(tmp_path: Path) -> None:
    home = home_with_logs(tmp_path)
    path = home.path / "log" / "a.access.log"
    asked = 0
    with gunicorn(home, "gthread", "--threads", "4", "--workers", "2") as server:
        for number in range(3):
            for _ in range(30):
                assert server.ask("a.test").status == 200
                asked += 1
            eventually(path.exists, PATIENCE, "the first line is there")
            path.rename(path.with_name(f"rotated.{number}"))
            start = time.monotonic()
            while not path.exists():
                assert server.ask("a.test").status == 200
                asked += 1
                assert time.monotonic() - start < PATIENCE
    written = [line for each in path.parent.glob("rotated.*") for line in each.read_text().splitlines()]
    written += path.read_text().splitlines()
    assert len(written) == asked


# --- figures --------------------------------------------------------------------------------------------------------


def requests_of(home: HomeDir) -> dict[str, int]:
    told = json.loads(home.multisite("--json", "stats"))
    return {row["name"]: row["requests"] for row in told["sites"]}


def test_requests_are_counted_exactly_over_workers_and_restarts(tmp_path: Path) -> None:
    home = home_with_logs(tmp_path)
    for number in (1, 2):
        with gunicorn(home, "gthread", "--threads", "4", "--workers", "2") as server:
            for name in ("a", "s"):
                for _ in range(25):
                    assert server.ask(f"{name}.test").status == 200
            expected = {"a": 25 * number, "s": 25 * number}
            eventually(lambda expected=expected: requests_of(home) == expected, PATIENCE, f"{expected}")

            def ended() -> dict[str, Any]:
                (row,) = json.loads(home.multisite("--json", "stats", "a"))["sites"]
                return dict(row)

            eventually(lambda: ended()["in_flight"] == 0, PATIENCE, "the last one has ended")
            row = ended()
            assert (row["in_flight"], row["errors"], row["sent"]) == (0, 0, 2 * expected["a"])
            assert row["percentiles"]["50"] <= row["percentiles"]["99.9"]
        eventually(lambda: not home.processes(), PATIENCE, "the supervisor has left")
        assert requests_of(home) == expected
