"""WebSockets of WSGI sites, which take the connection from ``gunicorn.socket`` as under gunicorn."""

from __future__ import annotations

import fcntl
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.harness import eventually

from .harness import ENVIRON, Backend, backend, envelope, receive_all
from .websocket import ACCEPT, FIELDS, VARIABLES, WebSocket

#: as simple-websocket does it: a thread that receives, and the handler, which waits for it elsewhere
APP = '''
import base64, hashlib, queue, sys, threading

SWITCH = b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"


def exactly(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def frames(connection, found):
    try:
        while True:
            first, length = exactly(connection, 2)
            mask = exactly(connection, 4)
            data = exactly(connection, length & 127)
            found.put(bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))
    except (EOFError, OSError) as error:
        found.put(None)
        print("it ended with", type(error).__name__, flush=True)
        connection.close()


def talk(environ, start_response):
    connection = environ["gunicorn.socket"]
    key = environ["HTTP_SEC_WEBSOCKET_KEY"].encode()
    accept = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    connection.send(SWITCH + b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\\r\\n\\r\\n")
    found = queue.Queue()
    threading.Thread(target=frames, args=(connection, found), daemon=True).start()
    while True:
        data = found.get()
        if data is None or data == b"end":
            break
        if data == b"break":
            raise RuntimeError("no luck")
        connection.sendall(bytes([0x81, len(data) + 6]) + b"heard " + data)
    print("the handler is done", flush=True)
    if data == b"end":
        connection.sendall(bytes([0x88, 2, 3, 232]))
    raise StopIteration


def returns(environ, start_response):
    """The connection is the site's, whatever it returns."""
    connection = environ["gunicorn.socket"]
    connection.sendall(SWITCH + b"\\r\\nown")
    start_response("200 OK", [])
    return [b"never sent"]


def plain(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"plain"]


def has(environ, start_response):
    start_response("200 OK", [])
    return [type(environ.get("gunicorn.socket")).__name__.encode()]


def hang(environ, start_response):
    threading.Event().wait()


def application(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)
'''
TIMEOUT = 1.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with backend(tmp_path_factory.mktemp("site"), APP, threads=6, request_timeout=TIMEOUT) as started:
        yield started


def request(way: str, path: str) -> bytes:
    if way == "relayed":
        return envelope({**ENVIRON, **VARIABLES, "PATH_INFO": path, "RAW_URI": path})
    lines = "".join(f"{name}: {value}\r\n" for name, value in FIELDS.items())
    return f"GET {path} HTTP/1.1\r\nHost: site.test\r\n{lines}\r\n".encode()


def let_a_request_time_out(path: Path) -> None:
    """Wait for another process, of twice the patience, to end because a request has had its time."""
    with backend(path, APP, request_timeout=2 * TIMEOUT) as site, site.connect() as client:
        client.sendall(request("direct", "/hang"))
        assert site.exit() == 4


WAYS = pytest.mark.parametrize("way", ["relayed", "direct"])


@WAYS
def test_messages_go_both_ways_for_as_long_as_they_like(site: Backend, way: str, tmp_path: Path) -> None:
    """No limit of a request's time holds for it, neither for who waits nor for the process."""
    with site.connect() as client:
        client.sendall(request(way, "/talk"))
        socket = WebSocket(client)
        assert f"Sec-WebSocket-Accept: {ACCEPT}\r\n" in socket.head
        socket.send("one")
        assert socket.receive() == (1, b"heard one")
        let_a_request_time_out(tmp_path)
        socket.send("two")
        assert socket.receive() == (1, b"heard two")
        before = site.wait_for(in_flight=1)
        socket.send("end")
        assert socket.receive() == (8, b"\x03\xe8")
        assert client.recv(1) == b""
    after = site.wait_for(in_flight=0)
    assert after.errors == before.errors
    assert "Traceback" not in site.log


@WAYS
def test_a_client_that_leaves(site: Backend, way: str) -> None:
    """The site sees the end, and its thread is free."""
    done = site.log.count("the handler is done")
    with site.connect() as client:
        client.sendall(request(way, "/talk"))
        socket = WebSocket(client)
        socket.send("one")
        socket.receive()
    site.wait_for(in_flight=0)
    assert site.log.count("the handler is done") == done + 1


@WAYS
def test_what_it_raises_is_logged_and_not_sent(site: Backend, way: str) -> None:
    """Nothing of ours comes after the first byte of the site's."""
    before = site.wait_for(in_flight=0).errors
    with site.connect() as client:
        client.sendall(request(way, "/talk"))
        socket = WebSocket(client)
        socket.send("break")
        assert receive_all(client) == b""
    assert site.wait_for(in_flight=0).errors == before + 1
    assert "RuntimeError: no luck" in site.log


@WAYS
def test_what_it_returns_is_not_sent(site: Backend, way: str) -> None:
    """The answer was the site's own."""
    with site.connect() as client:
        client.sendall(request(way, "/returns"))
        assert receive_all(client).endswith(b"\r\n\r\nown")


@WAYS
def test_a_site_may_answer_such_a_request_as_any_other(site: Backend, way: str) -> None:
    """One that knows no WebSockets."""
    assert site.exchange(request(way, "/plain")).body == b"plain"


def test_only_such_a_request_brings_it(site: Backend) -> None:
    """The connection of any other relayed request is the dispatcher's."""
    assert site.ask("/has").body == b"NoneType"
    assert site.ask("/has", HTTP_UPGRADE="websocket").body == b"NoneType"
    assert site.ask("/has", HTTP_UPGRADE="h2c", HTTP_CONNECTION="Upgrade").body == b"NoneType"
    found = envelope({**ENVIRON, **VARIABLES, "HTTP_CONNECTION": "keep-alive, Upgrade", "PATH_INFO": "/has"})
    assert site.exchange(found).body == b"ClientSocket"


@WAYS
def test_a_site_that_hangs_before_it_has_answered_is_replaced(
    tmp_path_factory: pytest.TempPathFactory, way: str
) -> None:
    """Asking for a WebSocket is no way round the limit."""
    with backend(tmp_path_factory.mktemp("hangs"), APP, request_timeout=TIMEOUT) as site, site.connect() as client:
        client.sendall(request(way, "/hang"))
        assert site.exit() == 4


def test_a_limit_that_was_set_while_the_request_came_is_forgotten(site: Backend, tmp_path: Path) -> None:
    """The system would end a wait of the site's by it."""
    with site.connect() as client:
        start = request("relayed", "/talk")
        client.sendall(start[:20])
        eventually(lambda: fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)) == bytes(4))  # all has been read
        client.sendall(start[20:])
        socket = WebSocket(client)
        let_a_request_time_out(tmp_path)
        socket.send("still there")
        assert socket.receive() == (1, b"heard still there")
