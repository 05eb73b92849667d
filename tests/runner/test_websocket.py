"""WebSockets: by an envelope, by plain HTTP, and on a client's connection that was handed over."""

from __future__ import annotations

import ast
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .harness import ENVIRON, WITHIN, Backend, backend, envelope, hand_over, receive_all, spec
from .interpreters import equipped, interpreters
from .websocket import ACCEPT, FIELDS, VARIABLES, WebSocket

APP = """
import time

others = []

async def app(scope, receive, send):
    assert scope["type"] == "websocket", scope
    assert (await receive())["type"] == "websocket.connect"
    assert scope["path"] != "/early", "early"
    await send({"type": "websocket.accept", "subprotocol": "chat"})
    await send({"type": "websocket.send", "text": repr({k: v for k, v in scope.items() if k != "state"})[:120]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            print("left with", message.get("code"), flush=True)
            if scope["path"] == "/late":
                raise ConnectionError("late")
            return
        if message["text"] == "scope":
            for key in ("client", "server", "scheme", "root_path", "path", "raw_path", "query_string", "subprotocols"):
                await send({"type": "websocket.send", "text": repr(scope[key])})
        elif message["text"] == "flood":
            open("gate").read()
            while True:
                await send({"type": "websocket.send", "text": "x"})
        elif message["text"] == "hurry":
            open("gate").read()
            for _ in range(200):
                if others:
                    break
                time.sleep(0.02)
                await send({"type": "websocket.send", "text": "x"})
            await send({"type": "websocket.send", "text": "shared" if others else "alone"})
        elif message["text"] == "raise":
            raise ValueError("this cannot be")
        elif message["text"] == "other":
            others.append(message)
        elif message["text"] == "end":
            await send({"type": "websocket.close", "code": 3001})
        else:
            await send({"type": "websocket.send", "text": "echo " + message["text"]})
"""
SPEC = spec("app", "app")
ASKED = {**ENVIRON, **VARIABLES, "HTTP_SEC_WEBSOCKET_PROTOCOL": "chat, other"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with backend(tmp_path_factory.mktemp("site"), APP, spec=SPEC) as started:
        yield started


def in_http(path: str, **more: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "site.test", **FIELDS, **more}.items())
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


@contextmanager
def opened(site: Backend, variables: dict[str, Any]) -> Iterator[WebSocket]:
    """A socket whose handshake came in an envelope."""
    with site.connect() as connection:
        connection.sendall(envelope(variables))
        yield WebSocket(connection)


def test_an_envelope_may_become_a_socket(site: Backend) -> None:
    """The handshake is completed and frames go both ways."""
    with opened(site, ASKED) as client:
        assert client.head.startswith("HTTP/1.1 101 ")
        assert ACCEPT in client.head and "chat" in client.head
        client.receive()
        for text in ("a", "ü", "x" * 100):
            client.send(text)
            assert client.receive() == (1, f"echo {text}".encode())
        client.send("end")
        assert client.receive() == (8, (3001).to_bytes(2, "big"))


def test_an_app_that_raises_has_an_incident(tmp_path: Path) -> None:
    """Its traceback is in the log once, and the client learns that the server has failed."""
    with backend(tmp_path, APP, spec=SPEC) as site:
        with opened(site, {**ASKED, "PATH_INFO": "/room", "RAW_URI": "/room"}) as client:
            client.receive()
            client.send("raise")
            code, content = client.receive()
            assert (code, content[:2]) == (8, (1011).to_bytes(2, "big"))
        with opened(site, {**ASKED, "PATH_INFO": "/early", "RAW_URI": "/early"}) as client:
            assert client.head.startswith("HTTP/1.1 500 ")
        site.wait_for(in_flight=0, requests=2)
        told = re.findall(r"MS616 incident [0-9a-f]{8}: Error handling (.*)", site.log)
        assert told == ["GET site.test/room", "GET site.test/early"]
        assert site.log.count("ValueError: this cannot be") == 1


def test_an_app_that_raises_because_its_client_has_left_has_none(tmp_path: Path) -> None:
    with backend(tmp_path, APP, spec=SPEC) as site:
        with opened(site, {**ASKED, "PATH_INFO": "/late", "RAW_URI": "/late"}) as client:
            client.receive()
        site.wait_for(in_flight=0, requests=1)
        assert "ConnectionError: late" in site.log
        assert "MS616" not in site.log


def test_the_scope_is_the_clients(site: Backend) -> None:
    """Who asks, by which scheme, at which mount and path, is what the dispatcher saw."""
    variables = {**ASKED, "SCRIPT_NAME": "/m\xc3\xbc", "PATH_INFO": "/a/b", "RAW_URI": "/m%C3%BC/a%2Fb?q=%20",
                 "QUERY_STRING": "q=%20"}  # fmt: skip
    with opened(site, variables) as client:
        client.receive()
        client.send("scope")
        assert [ast.literal_eval(client.receive()[1].decode()) for _ in range(8)] == [
            ("203.0.113.9", 4711),
            ("site.test", 443),
            "wss",
            "/mü",
            "/mü/a/b",
            b"/m%C3%BC/a%2Fb",
            b"q=%20",
            ["chat", "other"],
        ]


def test_plain_http(site: Backend) -> None:
    """A front end that comes straight to the socket."""
    with site.connect() as connection:
        connection.sendall(in_http("/"))
        client = WebSocket(connection)
        client.receive()
        client.send("hello")
        assert client.receive() == (1, b"echo hello")


def test_a_client_that_was_handed_over(site: Backend) -> None:
    """Nobody stands between it and the site any more."""
    client, ours = socket.socketpair()
    client.settimeout(WITHIN)
    with client, ours:
        hand_over(site, ASKED, ours)
        chat = WebSocket(client)
        chat.receive()
        chat.send("hello")
        assert chat.receive() == (1, b"echo hello")


def test_a_client_that_leaves_is_told_to_the_app(tmp_path: Path) -> None:
    """And counted as a request that is over."""
    with backend(tmp_path, APP, spec=SPEC) as site:
        with opened(site, ASKED) as client:
            client.receive()
            site.wait_for(in_flight=1)
        site.wait_for(in_flight=0, requests=1)
        assert "left with 1006" in site.log or "left with 1005" in site.log


def test_an_app_that_does_nothing_but_send_learns_that_its_client_has_left(tmp_path: Path) -> None:
    """Although it never waits for anything, and a client that has left never makes it wait."""
    os.mkfifo(tmp_path / "gate")
    with backend(tmp_path, APP, spec=SPEC) as site:
        with opened(site, ASKED) as client:
            client.receive()
            client.send("flood")
            gate = (tmp_path / "gate").open("w")
        gate.close()
        site.wait_for(in_flight=0, requests=1)
        assert "socket.send() raised" not in site.log
        with opened(site, ASKED) as client:
            client.receive()


def test_an_app_that_does_nothing_but_send_does_not_hold_up_others(tmp_path: Path) -> None:
    """Although its client takes all at once."""
    os.mkfifo(tmp_path / "gate")
    with backend(tmp_path, APP, spec=SPEC) as site, opened(site, ASKED) as client, opened(site, ASKED) as other:
        for each in (client, other):
            each.receive()
        client.send("hurry")
        with (tmp_path / "gate").open("w"):
            other.send("other")
        while (told := client.receive()[1]) == b"x":
            pass
        assert told == b"shared"


def test_a_wsgi_site_knows_nothing_of_it(tmp_path: Path) -> None:
    """It answers the request as any other, and sees the fields as under gunicorn."""
    code = """
    import json
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({k: v for k, v in environ.items() if type(v) is str}).encode()]
    """
    with backend(tmp_path, code) as site, site.connect() as client:
        client.sendall(envelope(ASKED) + b"early bytes")
        raw = receive_all(client)
        assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Upgrade" in raw and b"multisite" not in raw
        seen = site.http("/", **FIELDS).json
        assert (seen["HTTP_UPGRADE"], seen["HTTP_SEC_WEBSOCKET_VERSION"]) == ("websocket", "13")


# --- FastAPI --------------------------------------------------------------------------------------------------------

FASTAPI = """
import fastapi
app = fastapi.FastAPI()

@app.websocket("/chat/{room}")
async def chat(socket: fastapi.WebSocket, room: str):
    await socket.accept()
    await socket.send_json([str(socket.url), socket.client.host, socket.headers["cookie"], room])
    async for text in socket.iter_text():
        await socket.send_text(text.upper())
"""


@pytest.fixture(scope="module", params=sorted(interpreters(), key=lambda version: int(version[2:])))
def with_fastapi(request: pytest.FixtureRequest) -> str:
    """A virtualenv of each interpreter, with FastAPI and nothing of ours."""
    return equipped(request.param)


@pytest.mark.servers
def test_fastapi(tmp_path: Path, with_fastapi: str) -> None:
    """The real thing, on every interpreter, in all three ways."""
    variables = {**ASKED, "RAW_URI": "/chat/den", "PATH_INFO": "/chat/den", "HTTP_COOKIE": "a=b"}
    with backend(tmp_path, FASTAPI, with_fastapi, spec=SPEC, trusts_front_end=True) as site:
        with opened(site, variables) as client:
            assert json.loads(client.receive()[1]) == ["wss://site.test/chat/den", "203.0.113.9", "a=b", "den"]
            client.send("hello")
            assert client.receive() == (1, b"HELLO")
        with site.connect() as connection:
            connection.sendall(in_http("/chat/x", Cookie="c=d"))
            client = WebSocket(connection)
            told = json.loads(client.receive()[1])
            assert told == ["ws://site.test/chat/x", "127.0.0.1", "c=d", "x"]
        theirs, ours = socket.socketpair()
        with theirs, ours:
            theirs.settimeout(WITHIN)
            hand_over(site, variables, ours)
            assert json.loads(WebSocket(theirs).receive()[1])[1] == "203.0.113.9"
        assert site.terminate() == 0, site.log
