"""Requests that come as packets of the uwsgi protocol, as nginx and uWSGI's routers send them to a site's socket."""

from __future__ import annotations

import shutil
import signal
import socket
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import WITHIN, Answer, Backend, backend, receive_all

WSGI = """
import json

def application(environ, start_response):
    body = environ["wsgi.input"].read()
    kept = {key: value for key, value in environ.items() if type(value) is str}
    start_response("200 OK", [("Content-Type", "application/json")])
    yield json.dumps({"environ": kept, "length": len(body)}).encode()
    yield b"\\n"
"""
ASGI = """
import json

async def application(scope, receive, send):
    length, more = 0, True
    while more:
        message = await receive()
        length, more = length + len(message.get("body", b"")), message.get("more_body")
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    kept = {key: scope[key] for key in ("client", "server", "scheme", "path", "query_string", "method")}
    kept["query_string"] = kept["query_string"].decode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    document = json.dumps({"scope": kept, "headers": headers, "length": length}).encode()
    await send({"type": "http.response.body", "body": document, "more_body": True})
    await send({"type": "http.response.body", "body": b"\\n"})
"""
VARIABLES = {
    "REQUEST_METHOD": "GET",
    "QUERY_STRING": "q=1",
    "CONTENT_TYPE": "",
    "CONTENT_LENGTH": "",
    "REQUEST_URI": "/a%20b?q=1",
    "PATH_INFO": "/a b",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REQUEST_SCHEME": "https",
    "HTTPS": "on",
    "REMOTE_ADDR": "203.0.113.9",
    "REMOTE_PORT": "4711",
    "SERVER_PORT": "443",
    "SERVER_NAME": "site.test",
    "HTTP_HOST": "site.test",
    "HTTP_USER_AGENT": "tester",
}


def packet(body: bytes = b"", **variables: str) -> bytes:
    """A packet as nginx sends it with ``uwsgi_params``."""
    pairs = {**VARIABLES, **variables}
    if body:
        pairs["CONTENT_LENGTH"] = str(len(body))
    block = b"".join(struct.pack("<H", len(text)) + text.encode() for pair in pairs.items() for text in pair)
    return b"\0" + struct.pack("<H", len(block)) + b"\0" + block + body


KINDS = {"sync": WSGI, "gthread": WSGI, "asgi": ASGI}


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A site of each kind."""
    folder = tmp_path_factory.mktemp(request.param)
    with backend(
        folder, KINDS[request.param], worker=request.param, threads=1 if request.param == "sync" else 2
    ) as found:
        yield found


@pytest.fixture(scope="module")
def wsgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with backend(tmp_path_factory.mktemp("wsgi"), WSGI, worker="sync") as found:
        yield found


@pytest.fixture(scope="module")
def asgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with backend(tmp_path_factory.mktemp("asgi"), ASGI, worker="asgi") as found:
        yield found


def test_a_wsgi_site_sees_what_the_front_end_says(wsgi: Backend) -> None:
    answer = wsgi.exchange(packet())
    environ = answer.json["environ"]
    assert not answer.headers["transfer-encoding"]  # the end of the connection is that of the answer
    expected = {
        "REMOTE_ADDR": "203.0.113.9",
        "wsgi.url_scheme": "https",
        "PATH_INFO": "/a b",
        "SCRIPT_NAME": "",
        "HTTP_USER_AGENT": "tester",
    }
    assert expected.items() <= environ.items()
    assert "CONTENT_TYPE" not in environ
    assert "CONTENT_LENGTH" not in environ


def test_an_asgi_site_sees_what_the_front_end_says(asgi: Backend) -> None:
    answer = asgi.exchange(packet())
    assert not answer.headers["transfer-encoding"]
    assert answer.json["scope"] == {
        "client": ["203.0.113.9", 4711],
        "server": ["site.test", 443],
        "scheme": "https",
        "path": "/a b",
        "query_string": "q=1",
        "method": "GET",
    }
    assert answer.json["headers"]["user-agent"] == "tester"


def test_a_body_comes_whole(site: Backend) -> None:
    body = b"x" * 300_000
    answer = site.exchange(packet(body, REQUEST_METHOD="POST"), "POST")
    assert answer.json["length"] == len(body)


def test_what_a_client_says_about_others_is_dropped(site: Backend) -> None:
    claims = {"HTTP_X_FORWARDED_FOR": "9.9.9.9", "HTTP_FORWARDED": "for=9.9.9.9", "HTTP_PROXY": "http://evil"}
    answer = site.exchange(packet(**claims, **{"multisite.body": "chunked"}))
    assert b"9.9.9.9" not in answer.body
    assert b"evil" not in answer.body
    assert b"multisite" not in answer.body


def test_a_packet_may_come_in_pieces(site: Backend) -> None:
    """The front end keeps its side open: one that closes it no longer wants the answer."""
    data = packet(b"abc", REQUEST_METHOD="POST")
    with site.connect() as client:
        for at in range(0, len(data), 50):
            client.sendall(data[at : at + 50])
            time.sleep(0.001)
        assert Answer(receive_all(client), "POST").json["length"] == 3


@pytest.mark.parametrize(
    "data",
    [b"\0\x10\0\0\x05\0abc", b"\0\xff\xff\0" + b"\xff" * 65535, b"\0\0\0\0", packet()[:-3], b"\0\x01\0\0x"],
)
def test_what_is_no_packet_costs_only_itself(data: bytes, site: Backend) -> None:
    with site.connect() as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        receive_all(client)
    assert site.exchange(packet()).status == 200


@pytest.mark.servers
def test_uwsgis_own_router_reaches_a_site(site: Backend, tmp_path: Path) -> None:
    """Its HTTP router has the core of the Fastrouter, and speaks uwsgi to what is behind it."""
    program = shutil.which("uwsgi")
    assert program, "uwsgi is not installed"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [program, "--plugin", "http", "--http", f"127.0.0.1:{port}", "--http-to", site.socket_path]
    with subprocess.Popen([*argv, "--master", "--die-on-term", "--logto", str(tmp_path / "log")]) as process:
        try:
            asked = urllib.request.Request(f"http://127.0.0.1:{port}/x", b"hello", {"Host": "site.test"})
            document = _answered(asked, tmp_path / "log")
        finally:
            process.send_signal(signal.SIGTERM)
    assert b'"length": 5' in document


def _answered(asked: urllib.request.Request, log: Path) -> bytes:
    deadline = time.monotonic() + WITHIN
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=WITHIN) as answer:
                found: Any = answer.read()
                return bytes(found)
        except OSError as error:
            assert time.monotonic() < deadline, f"{error}\n{log.read_text(errors='replace')}"
            time.sleep(0.05)
