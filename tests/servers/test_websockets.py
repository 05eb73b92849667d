"""WebSockets of ASGI sites and of upstreams, by a real client, behind real servers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from tests.runner.test_wsgi_websocket import APP as TAKING

from .harness import PATIENCE, HomeDir, Server, eventually, free_port, gunicorn
from .test_takeover import behind_nginx

pytestmark = pytest.mark.servers

CHAT = """
import fastapi

application = fastapi.FastAPI()


@application.get("/")
async def hello():
    return {"hello": "world"}


@application.websocket("/ws/{room}")
async def echo(socket: fastapi.WebSocket, room: str):
    await socket.accept(subprotocol="chat" if "chat" in socket.scope["subprotocols"] else None)
    await socket.send_json(
        {
            "room": room,
            "host": socket.headers["host"],
            "client": socket.client.host,
            "query": socket.url.query,
            "scheme": socket.url.scheme,
        }
    )
    try:
        while True:
            message = await socket.receive()
            if message.get("text") == "end":
                await socket.close(4000)
                return
            if message.get("text") is not None:
                await socket.send_text("heard " + message["text"])
            elif message.get("bytes") is not None:
                await socket.send_bytes(message["bytes"])
            else:
                break
    finally:
        open("left", "a").close()


@application.websocket("/refused")
async def refuse(socket: fastapi.WebSocket):
    await socket.close()
"""


def new_home(path: Path) -> HomeDir:
    home = HomeDir(path).create()
    home.site("chat", CHAT, mode="spawned", max_waiting="8")
    home.site("near")
    return home


def one_worker(home: HomeDir, kind: str) -> Server:
    """One worker, with two threads at most: a WebSocket may hold none of them."""
    return gunicorn(home, kind, "--workers", "1", *(["--threads", "2"] if kind == "gthread" else []))


@pytest.fixture
def own(tmp_path: Path) -> HomeDir:
    """A home whose server the test ends."""
    return new_home(tmp_path)


@dataclass(frozen=True)
class Front:
    """A server that the tests share."""

    home: HomeDir
    server: Server


@pytest.fixture(scope="module", params=["sync", "gthread"])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    home = new_home(tmp_path_factory.mktemp(request.param))
    with one_worker(home, request.param) as server:
        yield Front(home, server)
    eventually(lambda: not home.processes(), PATIENCE, "nothing is left")


@pytest.fixture
def home(front: Front) -> HomeDir:
    return front.home


@pytest.fixture
def server(front: Front) -> Server:
    return front.server


def joined(port: int, path: str = "/ws/a?x=%20", host: str = "chat.test", **more: object) -> ClientConnection:
    wire = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    return connect(f"ws://{host}{path}", sock=wire, compression=None, max_size=None, open_timeout=PATIENCE, **more)  # type: ignore[arg-type]


def test_messages_go_both_ways(home: HomeDir, server: Server) -> None:
    large = os.urandom(3 << 20)
    left = home.path / "sites" / "chat" / "left"
    left.unlink(missing_ok=True)
    with joined(server.port, subprotocols=["chat"]) as chat:  # type: ignore[list-item]
        assert chat.subprotocol == "chat"
        told = chat.recv(PATIENCE)
        assert '"room":"a"' in told and '"host":"chat.test"' in told and '"client":"127.0.0.1"' in told  # type: ignore[operator]
        assert '"query":"x=%20"' in told and '"scheme":"ws"' in told  # type: ignore[operator]
        for number in range(50):
            chat.send(str(number))
            assert chat.recv(PATIENCE) == f"heard {number}"
        chat.send(large)
        assert chat.recv(PATIENCE) == large
        assert not left.exists()
    eventually(left.exists, PATIENCE, "the site knows that its client left")


def test_many_are_open_and_hold_nobody_up(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        open_ones = [stack.enter_context(joined(server.port)) for _ in range(20)]
        for chat in open_ones:
            chat.recv(PATIENCE)
        assert server.ask("near.test").text == "site near"
        assert server.ask("chat.test").text == '{"hello":"world"}'
        for chat in open_ones:
            chat.send("x")
        assert [chat.recv(PATIENCE) for chat in open_ones] == ["heard x"] * 20


@pytest.mark.parametrize("mode", ["spawned", "in-process"])
def test_wsgi_sites_take_the_connection(home: HomeDir, server: Server, mode: str) -> None:
    """As those with flask-sock or Flask-SocketIO do, from ``gunicorn.socket``."""
    name = "taking" if mode == "spawned" else "inside"
    home.site(name, TAKING, mode=mode, **({"threads": "2"} if mode == "spawned" else {}))
    for _ in range(3):
        with joined(server.port, "/talk", f"{name}.test") as chat:
            chat.send("one")
            assert chat.recv(PATIENCE) == "heard one"
            if mode == "spawned":
                assert server.ask("near.test").text == "site near"
            chat.send("end")
            with pytest.raises(ConnectionClosed) as caught:
                chat.recv(PATIENCE)
            assert caught.value.rcvd and caught.value.rcvd.code == 1000
    assert server.ask(f"{name}.test", "/plain").text == "plain"
    assert "Traceback" not in server.log()


def test_the_site_may_close_or_refuse(server: Server) -> None:
    with joined(server.port) as chat:
        chat.recv(PATIENCE)
        chat.send("end")
        with pytest.raises(ConnectionClosed) as caught:
            chat.recv(PATIENCE)
        assert caught.value.rcvd and caught.value.rcvd.code == 4000
    with pytest.raises(InvalidStatus) as refused, joined(server.port, "/refused"):
        pass
    assert refused.value.response.status_code == 403


def test_behind_nginx(home: HomeDir, server: Server) -> None:
    with behind_nginx(home, server, upgrade=True) as front, joined(front.port) as chat:
        chat.recv(PATIENCE)
        chat.send("through")
        assert chat.recv(PATIENCE) == "heard through"


def test_an_upstream_may_switch_too(home: HomeDir, server: Server) -> None:
    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0) as upstream:
        port = upstream.socket.getsockname()[1]
        home.ini("echo", f"[service]\ndomains = echo.test\nmode = proxy\nupstreams = http://127.0.0.1:{port}\n")
        thread = threading.Thread(target=upstream.serve_forever)
        thread.start()
        with joined(server.port, "/", "echo.test") as wire:
            wire.send("there and back")
            assert wire.recv(PATIENCE) == "there and back"
        upstream.shutdown()
        thread.join(PATIENCE)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP], ids=["TERM", "HUP"])
@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_a_server_that_ends_says_so(own: HomeDir, kind: str, how: signal.Signals) -> None:
    """At once (1001, RFC 6455 section 7.4.1), rather than to cut the connection when its grace is over."""
    home, server = own, one_worker(own, kind)
    home.conf((home.path / "moya.conf").read_text() + "hand_over = no\n")
    server.argv[3:3] = ["--graceful-timeout", "600"]
    with server:
        with joined(server.port) as chat:
            chat.recv(PATIENCE)
            old = server.workers()
            server.process.send_signal(how)
            with pytest.raises(ConnectionClosed) as caught:
                chat.recv(PATIENCE)
            assert caught.value.rcvd and caught.value.rcvd.code == 1001
        eventually((home.path / "sites" / "chat" / "left").exists, PATIENCE, "the site knows, too")
        eventually(lambda: not old & server.workers() if how == signal.SIGHUP else server.process.poll() is not None)


def test_where_it_cannot_be_it_is_said(own: HomeDir) -> None:
    """waitress keeps its clients' connections to itself."""
    home = own
    port = free_port()
    argv = [sys.executable, "-m", "waitress", f"--listen=127.0.0.1:{port}", "multisite.service:application"]
    with Server(argv, port, home.path / "log" / "waitress.log", home.environ()) as server:
        assert server.ask("chat.test").text == '{"hello":"world"}'
        with pytest.raises(InvalidStatus) as refused, joined(server.port):
            pass
        answer = refused.value.response
    assert answer.status_code == 501
    assert b"WebSockets" in (answer.body or b"")
