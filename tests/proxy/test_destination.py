"""One request relayed to a backend of a few lines, well-behaved or not; all through wsgiref.validate."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import select
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from multisite.config.endpoint import Endpoint
from multisite.config.trusted import TrustedProxies
from multisite.errors import (
    BackendUnavailable,
    BadRequest,
    BodyTooLarge,
    ClientDisconnected,
    ConnectFailed,
    NoAnswer,
    RequestTooLarge,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from multisite.proxy import body as request_body
from multisite.proxy import destination, upstream
from multisite.proxy.balancer import Balancer, Upstream
from multisite.proxy.destination import NotNow, Proxy
from multisite.proxy.relay import relay
from multisite.proxy.wire.framing import Chunked
from tests import backends
from tests.backends import PATIENCE, Backend, Talk, begun, exactly, get, saying, take, take_envelope
from tests.proxy.harness import Relayed
from tests.ways import taken

HELLO = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
TEXT = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
BIG = os.urandom(1 << 20) * 5


@pytest.fixture
def path(tmp_path: Path, way: str) -> Path:
    return tmp_path / "x.sock"


def relayed(path: Path, talk: Talk, *, speaks: str = "http", **environ: Any) -> Any:
    with Backend(path, talk) as backend:
        return get(Relayed(backend.endpoint, speaks=speaks), **environ)


# What arrives


def test_a_request_arrives_as_it_was_sent(path: Path) -> None:
    got: list[bytes] = []

    def talk(wire: socket.socket) -> None:
        got.append(take(wire))
        wire.sendall(HELLO)

    answer = relayed(
        path,
        talk,
        REQUEST_METHOD="PATCH",
        RAW_URI="/a%2Fb//c;d?q=%20",
        HTTP_HOST="A.example:8080",
        HTTP_COOKIE="a=b",
        CONTENT_TYPE="text/x",
        HTTP_CONNECTION="keep-alive",
        HTTP_X_FORWARDED_FOR="spoofed",
        body=b"data",
    )
    assert (answer.status, answer.body) == ("200 OK", b"hello")
    head, _, body = got[0].partition(b"\r\n\r\n")
    assert body == b"data"
    assert head.split(b"\r\n") == [
        b"PATCH /a%2Fb//c;d?q=%20 HTTP/1.1",
        b"Host: A.example:8080",
        b"Cookie: a=b",
        b"X-Forwarded-For: 192.0.2.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: A.example:8080",
        b"X-Forwarded-Port: 8080",
        b"Content-Type: text/x",
        b"Content-Length: 4",
        b"Connection: close",
    ]


def test_what_a_trusted_front_end_says_is_passed_on(path: Path) -> None:
    got: list[bytes] = []

    def talk(wire: socket.socket) -> None:
        got.append(take(wire))
        wire.sendall(HELLO)

    with Backend(path, talk) as backend:
        proxy = Relayed(backend.endpoint, trusts=TrustedProxies(["192.0.2.0/24"]).trusts)
        get(proxy, HTTP_X_FORWARDED_FOR="203.0.113.9", REMOTE_ADDR="192.0.2.1")
        get(proxy, HTTP_X_FORWARDED_FOR="203.0.113.9", REMOTE_ADDR="192.0.3.1")
    assert b"\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n" in got[0]
    assert b"\r\nX-Forwarded-For: 192.0.3.1\r\n" in got[1]


def test_our_runner_gets_the_environ_and_nothing_added(path: Path) -> None:
    got: list[tuple[dict[str, str], bytes]] = []

    def talk(wire: socket.socket) -> None:
        got.append(take_envelope(wire))
        wire.sendall(HELLO)

    environ = {"HTTP_CONNECTION": "keep-alive", "HTTP_X_FORWARDED_FOR": "said", "RAW_URI": "/%2F", "HTTP_HOST": "a"}
    assert relayed(path, talk, speaks="envelope", body=b"data", **environ).body == b"hello"
    variables, body = got[0]
    assert body == b"data"
    assert {key: variables[key] for key in environ} == environ
    assert variables["REMOTE_ADDR"] == "192.0.2.1"
    assert not [key for key in variables if key.startswith("HTTP_X_FORWARDED") and key not in environ]


@pytest.mark.parametrize("speaks", ["http", "envelope"])
def test_a_body_without_a_length_arrives_in_chunks(path: Path, speaks: str) -> None:
    got: list[bytes] = []

    def talk(wire: socket.socket) -> None:
        request = take_envelope(wire)[1] if speaks == "envelope" else take(wire)
        got.append(request)
        wire.sendall(HELLO)

    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    relayed(path, talk, speaks=speaks, body=b"x" * 70000, CONTENT_LENGTH=None, **environ)
    framed = got[0].partition(b"\r\n\r\n")[2] if speaks == "http" else got[0]
    chunks = Chunked()
    assert chunks.feed(framed) == b"x" * 70000
    assert chunks.done


def test_a_body_that_the_server_does_not_end_is_not_read(path: Path) -> None:
    """Without a length and without wsgi.input_terminated, reading might wait for ever (PEP 3333)."""
    got: list[bytes] = []

    def talk(wire: socket.socket) -> None:
        got.append(take(wire))
        wire.sendall(HELLO)

    relayed(path, talk, body=b"data", CONTENT_LENGTH=None, HTTP_TRANSFER_ENCODING="chunked")
    assert b"Transfer-Encoding" not in got[0]
    assert got[0].endswith(b"\r\n\r\n")


def test_a_body_of_http_2_needs_no_transfer_encoding(path: Path) -> None:
    got: list[bytes] = []

    def talk(wire: socket.socket) -> None:
        got.append(take(wire))
        wire.sendall(HELLO)

    http2 = {"SERVER_PROTOCOL": "HTTP/2.0", "wsgi.input_terminated": True, "CONTENT_LENGTH": None}
    with Backend(path, talk) as backend:
        get(Relayed(backend.endpoint), body=b"data", **http2)
        get(Relayed(backend.endpoint), **http2)
    assert got[0].endswith(b"\r\n\r\n4\r\ndata\r\n0\r\n\r\n")
    assert b"Transfer-Encoding" not in got[1]


def test_uwsgi_is_told_the_length_of_a_body_that_had_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[bytes] = []

    def talk(wire: socket.socket) -> None:
        packet = exactly(wire, 4)
        got.append(exactly(wire, int.from_bytes(packet[1:3], "little")))
        got.append(exactly(wire, 200000))
        wire.sendall(HELLO)

    monkeypatch.setattr(request_body, "IN_MEMORY", 1000)
    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True, "CONTENT_LENGTH": None}
    assert relayed(path, talk, speaks="uwsgi", body=b"x" * 200000, **environ).body == b"hello"
    assert b"\x0e\0CONTENT_LENGTH\x06\x00200000" in got[0]
    assert b"TRANSFER_ENCODING" not in got[0]
    assert got[1] == b"x" * 200000


def test_a_body_that_is_too_large_to_be_measured_is_413(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "IN_ALL", 1000)
    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True, "CONTENT_LENGTH": None}
    with pytest.raises(BodyTooLarge) as caught:
        get(Relayed(Endpoint("uwsgi", path=str(path))), body=b"x" * 2000, **environ)
    assert caught.value.status == 413


def test_a_large_body_arrives_whole_and_takes_no_memory(path: Path) -> None:
    """5 MiB go through pieces of 64 KiB."""
    digest = hashlib.sha256()

    def talk(wire: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += wire.recv(65536)
        body = data.partition(b"\r\n\r\n")[2]
        left = len(BIG)
        while True:
            digest.update(body)
            left -= len(body)
            if not left:
                break
            body = wire.recv(65536)
        wire.sendall(HELLO)

    with Backend(path, talk) as backend:
        proxy = Relayed(backend.endpoint)
        tracemalloc.start()
        with begun(proxy, body=BIG, REQUEST_METHOD="POST") as (_, pieces):
            answer = b"".join(pieces)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert answer == b"hello"
    assert digest.digest() == hashlib.sha256(BIG).digest()
    assert peak < 1 << 20


@pytest.mark.parametrize("length", ["x", "-1", "+1", "1_0", " 1", "\u0661"])
def test_a_length_that_is_no_number_is_400(path: Path, length: str) -> None:
    with pytest.raises(BadRequest):
        Relayed(Endpoint("http", path=str(path)))(
            {"CONTENT_LENGTH": length, "REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO()}, None
        )


def test_a_header_too_large_for_uwsgi_is_431(path: Path) -> None:
    with pytest.raises(RequestTooLarge):
        get(Relayed(Endpoint("uwsgi", path=str(path))), HTTP_COOKIE="x" * 70000)


# What comes back


def test_status_and_duplicate_headers_come_back_in_order(path: Path) -> None:
    answer = relayed(
        path,
        saying(
            b"HTTP/1.1 418 I'm a teapot\r\nSet-Cookie: a=1\r\nContent-Type: text/plain\r\nSet-Cookie: b=2\r\n"
            b"Connection: x-hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n"
        ),
    )
    assert answer.status == "418 I'm a teapot"
    assert answer.all("Set-Cookie") == ["a=1", "b=2"]
    assert [name for name, _ in answer.headers] == [
        "Set-Cookie",
        "Content-Type",
        "Set-Cookie",
        "Content-Length",
    ]


def test_date_and_server_are_said_once(tmp_path: Path) -> None:
    """gunicorn adds its own; behind any other server the backend's are passed on."""
    talk = saying(TEXT + b"Date: d\r\nServer: s\r\n\r\n")
    behind = relayed(tmp_path / "a.sock", talk, SERVER_SOFTWARE="gunicorn/27.0.1")
    assert [name for name, _ in behind.headers] == ["Content-Type"]
    other = relayed(tmp_path / "b.sock", talk, SERVER_SOFTWARE="waitress")
    assert [name for name, _ in other.headers] == ["Content-Type", "Date", "Server"]


BODIES = {
    "length": (TEXT + b"Content-Length: 11\r\n\r\nhello world", b"hello world"),
    "chunked": (
        TEXT + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: 1\r\n\r\n",
        b"hello world",
    ),
    "close": (TEXT + b"\r\nhello world", b"hello world"),
    "http/1.0": (b"HTTP/1.0 200 OK\nContent-Type: text/plain\n\nhello world", b"hello world"),
    "empty": (TEXT + b"Content-Length: 0\r\n\r\n", b""),
    "more than said": (TEXT + b"Content-Length: 5\r\n\r\nhello world", b"hello"),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + HELLO, b"hello"),
}


@pytest.mark.parametrize("piecewise", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("case", BODIES)
def test_a_body_ends_where_it_says(path: Path, case: str, piecewise: bool) -> None:
    sent, body = BODIES[case]

    def talk(wire: socket.socket) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is left as soon as the body is whole
            saying(sent, piecewise=piecewise)(wire)

    answer = relayed(path, talk)
    assert (answer.status, answer.body) == ("200 OK", body)
    assert not answer.all("Transfer-Encoding")


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    ],
)
def test_an_answer_without_a_body_does_not_wait_for_one(path: Path, method: str, head: bytes) -> None:
    release = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        wire.sendall(head)
        release.wait(PATIENCE)  # the connection stays open

    with Backend(path, talk) as backend:
        assert get(Relayed(backend.endpoint, request_timeout=PATIENCE), REQUEST_METHOD=method).body == b""
        release.set()


def test_early_hints_go_to_the_server(path: Path) -> None:
    hints: list[Any] = []
    answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + HELLO
    assert relayed(path, saying(answer), **{"wsgi.early_hints": hints.append}).body == b"hello"
    assert hints == [[("Link", "</a.css>")]]


def test_a_body_is_passed_on_as_it_comes(path: Path) -> None:
    """Nothing waits for a buffer to be full."""
    go = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        wire.sendall(TEXT + b"Content-Length: 6\r\n\r\none")
        assert go.wait(PATIENCE)
        wire.sendall(b"two")

    with Backend(path, talk) as backend, begun(Relayed(backend.endpoint)) as (got, pieces):
        assert got.status == "200 OK"
        assert next(pieces) == b"one"
        go.set()
        assert next(pieces) == b"two"
        assert next(pieces, None) is None


def test_a_large_answer_takes_no_memory(path: Path) -> None:
    def talk(wire: socket.socket) -> None:
        take(wire)
        wire.sendall(TEXT + b"Content-Length: %d\r\n\r\n" % len(BIG))
        wire.sendall(BIG)

    digest = hashlib.sha256()
    with Backend(path, talk) as backend:
        tracemalloc.start()
        with begun(Relayed(backend.endpoint)) as (_, pieces):
            for piece in pieces:
                assert len(piece) <= 65536
                digest.update(piece)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert digest.digest() == hashlib.sha256(BIG).digest()
    assert peak < 1 << 20


# Both at once


def test_an_answer_before_the_end_of_the_request_is_relayed(path: Path) -> None:
    """A backend that refuses a body need not take it."""

    def talk(wire: socket.socket) -> None:
        wire.recv(1000)
        wire.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno")

    answer = relayed(path, talk, body=BIG, REQUEST_METHOD="POST")
    assert (answer.status, answer.body) == ("413 Too Large", b"no")


def test_an_early_answer_may_end_with_the_connection(path: Path) -> None:
    """The close arrives as a reset, because there is unread data."""

    def talk(wire: socket.socket) -> None:
        wire.recv(1000)
        wire.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Type: text/plain\r\n\r\nno")

    assert relayed(path, talk, body=BIG, REQUEST_METHOD="POST").body == b"no"


def test_an_early_answer_is_relayed_while_the_backend_waits(path: Path) -> None:
    release = threading.Event()

    def talk(wire: socket.socket) -> None:
        wire.recv(1000)
        wire.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno")
        release.wait(PATIENCE)

    with Backend(path, talk) as backend:
        assert get(Relayed(backend.endpoint), body=BIG, REQUEST_METHOD="POST").body == b"no"
        release.set()


def test_an_interim_answer_does_not_end_the_request(path: Path) -> None:
    def talk(wire: socket.socket) -> None:
        data = wire.recv(1000)
        wire.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = data.partition(b"\r\n\r\n")[2]
        left = len(BIG) - len(body)
        while left:
            left -= len(wire.recv(65536))
        wire.sendall(HELLO)

    assert relayed(path, talk, body=BIG, REQUEST_METHOD="POST").body == b"hello"


def test_a_backend_may_answer_while_it_reads(path: Path) -> None:
    """An echo of 5 MiB: neither side has room for all of it."""

    def talk(wire: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += wire.recv(1000)
        body = data.partition(b"\r\n\r\n")[2]
        wire.sendall(TEXT + b"Content-Length: %d\r\n\r\n" % len(BIG))
        left = len(BIG)
        while True:
            wire.sendall(body)
            left -= len(body)
            if not left:
                return
            body = wire.recv(65536)

    assert relayed(path, talk, body=BIG, REQUEST_METHOD="POST").body == BIG


# What goes wrong


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"\0" * 10,
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 200,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_an_answer_that_is_none_is_502(path: Path, answer: bytes) -> None:
    def talk(wire: socket.socket) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            saying(answer)(wire)

    with pytest.raises(UpstreamProtocolError) as caught:
        relayed(path, talk)
    assert caught.value.status == 502


def test_a_head_without_end_is_502_and_is_not_kept(path: Path) -> None:
    def talk(wire: socket.socket) -> None:
        take(wire)
        wire.sendall(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(OSError):
            while True:
                wire.sendall(b"A: 1\r\n" * 1000)

    with pytest.raises(UpstreamProtocolError, match="larger than"):
        relayed(path, talk)


def test_no_answer_is_502(path: Path) -> None:
    with pytest.raises(NoAnswer) as caught:
        relayed(path, saying(b""))
    assert caught.value.status == 502


@pytest.mark.parametrize(
    "answer",
    [TEXT + b"Content-Length: 10\r\n\r\nhello", TEXT + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"],
)
def test_a_backend_that_dies_in_its_answer_shows(path: Path, answer: bytes) -> None:
    """The iterator raises, so that the server cannot end the answer as if it were whole."""
    with Backend(path, saying(answer)) as backend, begun(Relayed(backend.endpoint)) as (got, pieces):
        assert (got.status, next(pieces)) == ("200 OK", b"hello")
        with pytest.raises(UpstreamProtocolError):
            next(pieces)


def test_a_reset_in_an_unframed_answer_shows(path: Path) -> None:
    def talk(wire: socket.socket) -> None:
        wire.recv(1)  # the rest stays unread: closing resets
        wire.sendall(TEXT + b"\r\nhello")

    with Backend(path, talk) as backend, begun(Relayed(backend.endpoint)) as (_, pieces):
        with pytest.raises(UpstreamProtocolError, match="reset"):
            list(pieces)


def test_a_backend_that_never_answers_is_504(path: Path) -> None:
    release = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        release.wait(PATIENCE)

    with Backend(path, talk) as backend:
        with pytest.raises(UpstreamTimeout) as caught:
            get(Relayed(backend.endpoint, request_timeout=0.05))
        release.set()
    assert caught.value.status == 504


def test_a_head_in_drops_does_not_stretch_the_time(path: Path) -> None:
    """Every byte comes in time, the head does not."""
    release = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        with contextlib.suppress(OSError):
            wire.sendall(b"HTTP/1.1 200 OK\r\n")
            while not release.wait(0.01):
                wire.sendall(b"A")

    with Backend(path, talk) as backend:
        with pytest.raises(UpstreamTimeout):
            get(Relayed(backend.endpoint, request_timeout=0.2))
        release.set()


def test_a_backend_that_does_not_take_the_request_is_504(path: Path) -> None:
    release = threading.Event()
    with Backend(path, lambda wire: release.wait(PATIENCE) and None) as backend:  # type: ignore[func-returns-value]
        with pytest.raises(UpstreamTimeout):
            get(Relayed(backend.endpoint, request_timeout=0.05), body=BIG, REQUEST_METHOD="POST")
        release.set()


def test_an_answer_that_stalls_shows(path: Path) -> None:
    release = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        wire.sendall(TEXT + b"\r\nhello")
        release.wait(PATIENCE)

    with Backend(path, talk) as backend, begun(Relayed(backend.endpoint, stall_timeout=0.05)) as (_, pieces):
        assert next(pieces) == b"hello"
        with pytest.raises(UpstreamTimeout):
            next(pieces)
        release.set()


def test_no_limit_is_no_limit(path: Path) -> None:
    with Backend(path, saying(TEXT + b"\r\nhello")) as backend:
        assert get(Relayed(backend.endpoint, request_timeout=0, stall_timeout=0)).body == b"hello"


@pytest.mark.parametrize("after", [0, 5], ids=["at once", "in the middle"])
def test_a_client_that_leaves_frees_the_backend(path: Path, after: int) -> None:
    """close() of the answer closes the backend's connection, whatever was read of it."""
    freed = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        wire.sendall(TEXT + b"\r\nhello")
        assert wire.recv(1) == b""
        freed.set()

    with Backend(path, talk) as backend:
        with begun(Relayed(backend.endpoint)) as (_, pieces):
            if after:
                assert next(pieces) == b"hello"
        assert freed.wait(PATIENCE)


def test_a_client_that_leaves_in_its_request_is_400(path: Path, way: str) -> None:
    def talk(wire: socket.socket) -> None:
        while wire.recv(65536):
            pass

    with Backend(path, talk) as backend:
        proxy = Relayed(backend.endpoint)
        for length in (100, 200000):
            with pytest.raises(ClientDisconnected) as caught:
                get(proxy, body=b"x" * 70 if length == 100 else b"x" * 70000, CONTENT_LENGTH=str(length))
            assert caught.value.status == 400
    assert backend.connections == (1 if way == "here" else 2)  # a thread that has to wait does so before it connects


class _Broken(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError("request data read error")


def test_a_server_that_says_so_by_an_error_is_understood(tmp_path: Path) -> None:
    with pytest.raises(ClientDisconnected):
        get(Relayed(Endpoint("http", path=str(tmp_path / "x.sock"))), CONTENT_LENGTH="5", **{"wsgi.input": _Broken()})


def test_a_server_that_refuses_the_head_frees_the_backend(path: Path) -> None:
    def refuse(*args: Any) -> None:
        raise RuntimeError("no")

    freed = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        wire.sendall(TEXT + b"\r\nhello")
        assert wire.recv(1) == b""
        freed.set()

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.input": io.BytesIO()}
    with Backend(path, talk) as backend:
        with pytest.raises(RuntimeError):
            Relayed(backend.endpoint)(environ, refuse)
        assert freed.wait(PATIENCE)


# Connecting


def test_nobody_there_is_502(path: Path) -> None:
    with pytest.raises(ConnectFailed) as caught:
        get(Relayed(Endpoint("http", path=str(path))))
    assert caught.value.status == 502
    with pytest.raises(ConnectFailed, match="too long"):
        get(Relayed(Endpoint("http", path="/" + "x" * 200)))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectFailed, match="refused"):
            get(Relayed(Endpoint("http", host="127.0.0.1", port=taken.getsockname()[1])))
    with pytest.raises(ConnectFailed):
        get(Relayed(Endpoint("http", host="nowhere.invalid", port=80)))


def test_a_tcp_endpoint_is_reached(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            wire, _ = listener.accept()
            with wire:
                take(wire)
                wire.sendall(HELLO)

        thread = threading.Thread(target=serve)
        thread.start()
        assert get(Relayed(Endpoint("http", host="localhost", port=listener.getsockname()[1]))).body == b"hello"
        thread.join(PATIENCE)


def test_a_tcp_endpoint_that_does_not_answer_takes_its_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue drops the handshake of the next one."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        address = listener.getsockname()
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        monkeypatch.setattr(destination, "CONNECT_TIMEOUT", 0.05)
        with pytest.raises(ConnectFailed, match="timed out"):
            get(Relayed(Endpoint("http", host="127.0.0.1", port=address[1])))


def test_a_full_queue_is_503(path: Path) -> None:
    """The kernel's queue is the waiting room; the next one is told to come back."""
    with contextlib.ExitStack() as stack:
        backend = Backend(path, saying(HELLO), backlog=1)
        for _ in range(2):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        with pytest.raises(BackendUnavailable) as caught:
            get(Relayed(backend.endpoint, reconnect=lambda: pytest.fail("no reason to")))
        assert (caught.value.status, caught.value.retry_after) == (503, 5)
        backend.listener.close()


def test_connecting_is_tried_again_after_the_site_was_asked_for(path: Path) -> None:
    with contextlib.ExitStack() as stack:
        backends: list[Backend] = []

        def reconnect() -> None:
            backends.append(stack.enter_context(Backend(path, saying(HELLO))))

        proxy = Relayed(Endpoint("http", path=str(path)), reconnect=reconnect)
        assert get(proxy, body=b"data").body == b"hello"
        assert get(proxy).body == b"hello"
        assert len(backends) == 1


def test_connecting_is_tried_again_once(path: Path) -> None:
    asked: list[None] = []
    with pytest.raises(ConnectFailed):
        get(Relayed(Endpoint("http", path=str(path)), reconnect=lambda: asked.append(None)))
    assert len(asked) == 1


def test_whoever_knows_better_says_why(path: Path) -> None:
    def reconnect() -> None:
        raise BackendUnavailable("it failed to start", retry_after=7)

    with pytest.raises(BackendUnavailable, match="failed to start"):
        get(Relayed(Endpoint("http", path=str(path)), reconnect=reconnect))
    with Backend(path, saying(b"")) as backend:
        with pytest.raises(BackendUnavailable, match="failed to start"):
            get(Relayed(backend.endpoint, reconnect=reconnect))
    assert backend.connections == 1


def test_a_request_is_never_sent_twice(path: Path) -> None:
    """Once a byte was sent, an application may have seen it."""
    with Backend(path, lambda wire: wire.recv(10) and None) as backend:  # type: ignore[func-returns-value]
        with pytest.raises(NoAnswer):
            get(Relayed(backend.endpoint, reconnect=lambda: None))
    assert backend.connections == 1


def test_waiters_are_told_when_the_listener_closes(path: Path) -> None:
    """A supervisor that gives a site up resets all who wait in its queue."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    poll = select.poll()
    poll.register(listener, select.POLLIN)

    def close() -> None:
        poll.poll(PATIENCE * 1000)
        listener.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises((NoAnswer, ConnectFailed)):
        get(Relayed(Endpoint("http", path=str(path))))
    closing.join(PATIENCE)


# Several endpoints


def test_endpoints_take_turns_and_one_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    now = 100.0

    def saying_its_name(name: str) -> Backend:
        return Backend(tmp_path / name, saying(TEXT + b"Content-Length: 1\r\n\r\n" + name.encode()))

    with contextlib.ExitStack() as stack:
        for name in "ac":
            stack.enter_context(saying_its_name(name))
        balancer = Balancer(
            [Upstream(Proxy(Endpoint("http", path=str(tmp_path / name)))) for name in "abc"], clock=lambda: now
        )
        assert b"".join(get(partial(relay, balancer), body=b"data").body for _ in range(6)) == b"acacac"
        stack.enter_context(saying_its_name("b"))
        assert {get(partial(relay, balancer)).body for _ in range(3)} == {b"a", b"c"}
        now += 11
        assert {get(partial(relay, balancer)).body for _ in range(3)} == {b"a", b"b", b"c"}


def test_the_last_failure_is_told(tmp_path: Path) -> None:
    balancer = Balancer([Upstream(Proxy(Endpoint("http", path=str(tmp_path / name)))) for name in "ab"])
    with pytest.raises(ConnectFailed):
        get(partial(relay, balancer))


class _Far(Proxy):
    """Too far away to be reached in a hurry; counts who tried."""

    hurried = 0

    def begin(self, environ: Any, upload: Any, hurry: bool) -> Any:
        if hurry:
            self.hurried += 1
            raise NotNow
        return super().begin(environ, upload, hurry)


@pytest.mark.parametrize("kinds", [(_Far, _Far), (_Far, Proxy), (Proxy, _Far), (_Far, _Far, Proxy)])
def test_far_endpoints_take_turns_like_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: tuple[type[Proxy], ...]
) -> None:
    """And no request waits for one in a hurry that was too far away for the last."""
    with contextlib.ExitStack() as stack, taken("gthread", monkeypatch) as made:
        monkeypatch.setattr(backends, "WAY", made)
        found = [stack.enter_context(Backend(tmp_path / str(n), saying(HELLO))) for n in range(len(kinds))]
        proxies = [kind(backend.endpoint) for kind, backend in zip(kinds, found, strict=True)]
        balancer = Balancer([Upstream(proxy) for proxy in proxies])
        for _ in range(6 * len(kinds)):
            assert get(partial(relay, balancer)).body == b"hello"
        assert [backend.connections for backend in found] == [6] * len(kinds)
        assert all(proxy.hurried <= 1 for proxy in proxies if isinstance(proxy, _Far))


def test_when_all_are_left_out_they_are_asked_all_the_same_and_the_first_answer_revives(tmp_path: Path) -> None:
    proxies = [Proxy(Endpoint("http", path=str(tmp_path / name))) for name in "ab"]
    balancer = Balancer([Upstream(proxy) for proxy in proxies])
    with pytest.raises(ConnectFailed):
        get(partial(relay, balancer))
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(Backend(tmp_path / name, saying(HELLO))) for name in "ab"]
        for upstream in balancer.upstreams:
            upstream.health.dead_until = 1e12
        for _ in range(6):
            assert get(partial(relay, balancer)).body == b"hello"
        assert sorted(backend.connections for backend in found) == [0, 6]
        for upstream in balancer.upstreams:
            upstream.health.dead_until = 1.0  # the time for which they were left out is over
        for _ in range(6):
            assert get(partial(relay, balancer)).body == b"hello"
        assert sorted(backend.connections for backend in found) == [3, 9]


# What it costs


class _Counted(socket.socket):
    calls: list[str]

    def connect(self, address: Any) -> None:
        self.calls.append("connect")
        super().connect(address)

    def send(self, data: Any, flags: int = 0) -> int:  # type: ignore[override]
        self.calls.append("send")
        return super().send(data, flags)

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.calls.append("recv")
        return super().recv(size, flags)

    def close(self) -> None:
        if self.fileno() >= 0:
            self.calls.append("close")
        super().close()

    def setblocking(self, flag: bool) -> None:
        self.calls.append("setblocking")
        super().setblocking(flag)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    _Counted.calls = []
    ours = SimpleNamespace(**{**vars(socket), "socket": _Counted})  # the backend keeps the uncounted ones
    monkeypatch.setattr(upstream, "socket", ours)
    yield _Counted.calls


@pytest.mark.parametrize(("speaks", "body"), [("http", b""), ("http", b"x" * 60000), ("envelope", b"data")])
def test_a_small_request_costs_four_calls(path: Path, calls: list[str], speaks: str, body: bytes) -> None:
    def talk(wire: socket.socket) -> None:
        take_envelope(wire) if speaks == "envelope" else take(wire)
        wire.sendall(HELLO)

    with Backend(path, talk) as backend:
        get(Relayed(backend.endpoint, speaks=speaks), body=body)
    assert calls == ["connect", "send", "recv", "close"]


def test_what_a_proxy_is_can_be_read(path: Path) -> None:
    proxy = Proxy(Endpoint("http", path="/run/x.sock"), speaks="envelope")
    assert repr(proxy) == "<Proxy envelope to http+unix:/run/x.sock>"
    assert repr(Balancer([Upstream(proxy)])) == "<Balancer over http+unix:/run/x.sock>"
    with pytest.raises(ValueError, match="gopher"):
        Proxy(proxy.endpoint, speaks="gopher")
