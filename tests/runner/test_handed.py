"""A client's own connection that comes with the request, and is answered and closed by the site's process."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from .harness import ENVIRON, WITHIN, Answer, Backend, backend, envelope, hand_over, receive_all, spec

APP = """
import json, os, sys

def application(environ, start_response):
    path, source = environ["PATH_INFO"], environ["wsgi.input"]
    if path == "/breaks":
        raise RuntimeError("no luck")
    if path == "/echo":
        body = source.read()
    elif path == "/big":
        body = b"x" * 30_000_000
    elif path == "/file":
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](open(__file__, "rb"))
    elif path == "/pieces":
        start_response("200 OK", [("Date", "never"), ("Server", "mine")])
        return iter([b"one ", b"", b"two"])
    elif path == "/late":
        start_response("200 OK", [])
        return (b"one " if turn == 0 else 1 / 0 for turn in range(2))
    elif path == "/none":
        start_response("204 No Content", [("Content-Length", "3"), ("X-A", "b")])
        return []
    elif path == "/hints":
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
        body = b""
    elif path == "/wait":
        print("waiting", file=sys.stderr)
        body = open("gate").read().encode()
    elif path == "/hang":
        import threading
        threading.Event().wait()
    else:
        body = json.dumps({k: v for k, v in environ.items() if type(v) is str} | {
            "fd": len(os.listdir("/proc/self/fd")), "objects": sorted(k for k in environ if type(environ[k]) is not str)
        }).encode()
    start_response("200 OK", [("Content-Length", str(len(body))), ("Connection", "keep-alive")])
    return [body]
"""
ASGI = """
import asyncio, json, os

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = b""
    more = True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    if scope["path"] == "/pieces":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one ", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        return await send({"type": "http.response.body", "body": b""})
    if scope["path"] != "/echo":
        told = [scope["client"], scope["http_version"], scope["scheme"], len(os.listdir("/proc/self/fd"))]
        body = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with backend(tmp_path_factory.mktemp("site"), APP) as started:
        yield started


@pytest.fixture(scope="module")
def asgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with backend(tmp_path_factory.mktemp("asgi"), ASGI, spec=spec("app", "app")) as started:
        yield started


@contextmanager
def clients() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's end of a TCP connection, and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=WITHIN)
        with client, listener.accept()[0] as ours:
            yield client, ours


def asked(path: str, **variables: Any) -> dict[str, Any]:
    return {**ENVIRON, "PATH_INFO": path, "RAW_URI": path, **variables}


def answered(site: Backend, path: str, body: bytes = b"", **variables: Any) -> Answer:
    """What the client reads, to the end of its connection."""
    if body:
        variables = {"CONTENT_LENGTH": str(len(body)), "REQUEST_METHOD": "POST", **variables}
    with clients() as (client, ours):
        hand_over(site, asked(path, **variables), ours, body)
        return Answer(receive_all(client), variables.get("REQUEST_METHOD", "GET"))


def test_the_answer_is_whole(site: Backend) -> None:
    """It has what gunicorn would have added, of the client's version, and its end is a close."""
    for version in ("HTTP/1.0", "HTTP/1.1"):
        answer = answered(site, "/", SERVER_PROTOCOL=version)
        assert answer.raw.startswith(f"{version} 200 OK\r\nServer: gunicorn\r\nDate: ".encode())
        assert [name for name, _ in answer.headers.items()] == ["Server", "Date", "Connection", "Content-Length"]
        assert answer.headers["Connection"] == "close"
        assert parsedate_to_datetime(answer.headers["Date"]).tzname() == "UTC"


def test_the_environ_is_that_of_a_relayed_request(site: Backend) -> None:
    """Nobody can tell which way it came."""
    variables = {"HTTP_COOKIE": "a=b", "SCRIPT_NAME": "/m", "multisite.captures": {"user": "ann"}}
    handed, relayed = answered(site, "/", **variables).json, site.exchange(envelope(asked("/", **variables))).json
    handed.pop("fd"), relayed.pop("fd")
    assert handed == relayed
    assert {"multisite.captures", "wsgiorg.routing_args"} < set(handed["objects"])


def test_bodies(site: Backend) -> None:
    """The whole of a small body comes along."""
    for size in (1, 1000, 15_000, 200_000):
        body = os.urandom(size)
        assert answered(site, "/echo", body).body == body


def test_framing(site: Backend) -> None:
    """Chunks for HTTP/1.1, the end of the connection for HTTP/1.0; one Date and one Server."""
    new, old = answered(site, "/pieces"), answered(site, "/pieces", SERVER_PROTOCOL="HTTP/1.0")
    assert new.body == old.body == b"one two"
    assert (new.headers["Transfer-Encoding"], old.headers["Transfer-Encoding"]) == ("chunked", None)
    assert len(new.headers.get_all("Date") or []) == len(new.headers.get_all("Server") or []) == 1
    for version in ("HTTP/1.0", "HTTP/1.1"):
        file = answered(site, "/file", SERVER_PROTOCOL=version)
        assert file.body == (Path(site.job["location"]) / "app.py").read_bytes()
    head = answered(site, "/", REQUEST_METHOD="HEAD")
    assert head.body == b"" and int(head.headers["Content-Length"]) > 100
    none = answered(site, "/none")
    assert (none.status, none.headers["Content-Length"], none.headers["X-A"]) == (204, None, "b")
    assert answered(site, "/hints").raw.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_an_answer_that_is_cut_shows(site: Backend, version: str) -> None:
    """Its last chunk is missing; where there are none, the connection is reset."""
    with clients() as (client, ours):
        hand_over(site, asked("/late", SERVER_PROTOCOL=version), ours)
        got = b""
        with nullcontext() if version == "HTTP/1.1" else pytest.raises(ConnectionResetError):
            while more := client.recv(65536):
                got += more
    assert not got.endswith(b"0\r\n\r\n")
    site.wait_for(in_flight=0)


def test_errors_and_counts(site: Backend) -> None:
    """A failure is the client's 500 and one more on the board."""
    before = site.wait_for(in_flight=0)
    answer = answered(site, "/breaks")
    assert (answer.status, answer.headers["Server"], answer.headers["Connection"]) == (500, "gunicorn", "close")
    after = site.wait_for(in_flight=0)
    assert (after.requests, after.errors) == (before.requests + 1, before.errors + 1)
    assert after.sent - before.sent == len(answer.body)


def test_a_big_answer_and_a_client_that_leaves(site: Backend) -> None:
    """All of it arrives, or nobody minds."""
    assert len(answered(site, "/big").body) == 30_000_000
    before = site.wait_for(in_flight=0)
    with clients() as (client, ours):
        hand_over(site, asked("/big"), ours)
        client.recv(1000)
    site.wait_for(in_flight=0, requests=before.requests + 1)
    assert "BrokenPipe" not in site.log and "ConnectionReset" not in site.log


def test_a_client_that_has_sent_more_gets_its_answer(site: Backend) -> None:
    """Pipelined bytes are thrown away; closing at once would reset the connection, and the answer with it."""
    with clients() as (client, ours):
        client.sendall(b"GET /next HTTP/1.1\r\n\r\n" * 1000)
        hand_over(site, asked("/"), ours)
        assert Answer(receive_all(client), "GET").status == 200


def test_a_connection_that_does_not_block(site: Backend) -> None:
    """gevent's and asyncio's sockets never block; the answer is waited for all the same."""
    with clients() as (client, ours):
        ours.setblocking(False)
        hand_over(site, asked("/big"), ours)
        assert len(Answer(receive_all(client), "GET").body) == 30_000_000


@pytest.mark.parametrize("kind", ["site", "asgi"])
def test_no_descriptor_is_left(kind: str, request: pytest.FixtureRequest) -> None:
    """Neither of answered clients, nor of those whose request was nonsense, nor of those nobody asked for."""
    site: Backend = request.getfixturevalue(kind)

    def open_files() -> int:
        site.wait_for(in_flight=0)
        found = answered(site, "/").json
        return int(found["fd"] if isinstance(found, dict) else found[3])

    before = open_files()
    whole = b"\x02" + envelope(asked("/", CONTENT_LENGTH="5"))[1:] + b"12345"
    nonsense = [b"\x02\xff\xff\xff\xff", b"\x02\0\0\0\x02{}", whole[:40], whole[:-1], b"\x02"]
    for number, data in enumerate([*nonsense, *nonsense, b"\x01" + whole[1:]]):
        with clients() as (client, ours), site.connect() as connection:
            socket.send_fds(connection, [data], [ours.fileno()])
            connection.shutdown(socket.SHUT_WR)
            ours.close()
            assert receive_all(client) == b"", number
            receive_all(connection)
    with site.connect() as connection:
        connection.sendall(b"\x02" + whole[1:])  # and nobody with it
        connection.shutdown(socket.SHUT_WR)
        receive_all(connection)
    assert open_files() == before


def test_several_descriptors(site: Backend) -> None:
    """Only one is taken; the kernel closes the others."""
    with clients() as (client, ours), clients() as (other, theirs), site.connect() as connection:
        data = b"\x02" + envelope(asked("/"))[1:]
        socket.send_fds(connection, [data], [ours.fileno(), theirs.fileno()])
        ours.close(), theirs.close()
        assert Answer(receive_all(client), "GET").status == 200
        assert receive_all(other) == b""


def test_who_waits_survives_the_process(tmp_path: Path) -> None:
    """Killed with requests in its queue, it loses the one that it executes; the next process answers the others."""
    os.mkfifo(tmp_path / "gate")
    with backend(tmp_path, APP) as site, clients() as (first, ours), clients() as (second, theirs):
        hand_over(site, asked("/wait"), ours)
        site.wait_for(in_flight=1)
        hand_over(site, asked("/"), theirs)
        site.process.send_signal(signal.SIGKILL)
        site.exit()
        assert receive_all(first) == b""
        site.process = site._start(sys.executable, tmp_path)
        assert Answer(receive_all(second), "GET").status == 200


def test_a_hung_request(tmp_path: Path) -> None:
    """It is watched as any other, and named in the log."""
    with backend(tmp_path, APP, request_timeout=1.0) as site, clients() as (client, ours):
        hand_over(site, asked("/hang"), ours)
        assert site.exit() == 4
        assert "no progress for 1 s with GET site.test/hang" in site.log
        assert receive_all(client) == b""


def test_threads(tmp_path: Path) -> None:
    """Many at once, each answered once."""
    with backend(tmp_path, APP, threads=4) as site:
        answers = []

        def ask() -> None:
            for _ in range(25):
                answers.append(answered(site, "/echo", b"abc").body)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [b"abc"] * 200
        assert site.wait_for(in_flight=0).requests == 200


def test_an_asgi_site(asgi: Backend) -> None:
    """Framed for the client's version, ended by a close, told who the client is."""
    for version in ("HTTP/1.0", "HTTP/1.1"):
        answer = answered(asgi, "/", SERVER_PROTOCOL=version)
        assert answer.json[:3] == [["203.0.113.9", 4711], version[5:], "https"]
        assert answer.raw.startswith(version.encode()) and answer.headers["Connection"] == "close"
        assert parsedate_to_datetime(answer.headers["Date"]) and answer.headers["Server"]
        assert answered(asgi, "/pieces", SERVER_PROTOCOL=version).body == b"one two"
    for size in (1, 1000, 15_000, 200_000):
        body = os.urandom(size)
        assert answered(asgi, "/echo", body).body == body


def test_the_date_changes() -> None:
    """It is written once a second, as RFC 9110 wants it."""
    from multisite.runner import answer

    assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", answer.date())
    answer._date = (0, "once upon a time")
    assert answer.date() != "once upon a time"
