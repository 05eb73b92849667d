"""Request bodies on their way to sites with processes of their own: nobody waits for what has not come."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import PATIENCE, HomeDir, Server, eventually, gunicorn

pytestmark = pytest.mark.servers

WSGI = """
import hashlib, os

HERE = os.path.dirname(os.path.abspath(__file__))


def note(text):
    with open(os.path.join(HERE, "ends"), "a") as file:
        file.write(text + "\\n")


def application(environ, start_response):
    return KINDS[environ["PATH_INFO"]](environ, start_response, environ["wsgi.input"])


def refuse(environ, start_response, body):
    body.read(int(environ["QUERY_STRING"] or 0))
    start_response("413 Content Too Large", [("Content-Length", "4")])
    return [b"no.\\n"]


def digest(environ, start_response, body):
    try:
        data = body.read()
    except OSError:
        note("error")
        raise
    note("whole %d" % len(data))
    start_response("200 OK", [("X-Digest", hashlib.sha256(data).hexdigest())])
    return [b"got it"]


def pieces(environ, start_response, body):
    start_response("200 OK", [])
    while True:
        data = body.read(6)
        if not data:
            return
        yield b"got " + data


def large(environ, start_response, body):
    start_response("200 OK", [("Content-Length", "3000000")])
    return [b"x" * 3000000]


KINDS = {"/refuse": refuse, "/digest": digest, "/pieces": pieces, "/large": large}
"""
ASGI = """
import hashlib, os

HERE = os.path.dirname(os.path.abspath(__file__))


def note(text):
    with open(os.path.join(HERE, "ends"), "a") as file:
        file.write(text + "\\n")


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("none")
    await KINDS[scope["path"]](scope, receive, send)


async def answer(send, status, headers, body):
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(scope, receive, send):
    wanted = int(scope["query_string"] or 0)
    while wanted > 0:
        wanted -= len((await receive())["body"])
    await answer(send, 413, [(b"content-length", b"4")], b"no.\\n")


async def digest(scope, receive, send):
    data, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            note("error")
            return
        data, more = data + message["body"], message["more_body"]
    note("whole %d" % len(data))
    await answer(send, 200, [(b"x-digest", hashlib.sha256(data).hexdigest().encode())], b"got it")


async def pieces(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        more = message["more_body"]
        if message["body"]:
            await send({"type": "http.response.body", "body": b"got " + message["body"], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def large(scope, receive, send):
    await answer(send, 200, [(b"content-length", b"3000000")], b"x" * 3000000)


KINDS = {"/refuse": refuse, "/digest": digest, "/pieces": pieces, "/large": large}
"""
KINDS = {"sync": ("--workers", "1"), "gthread": ("--workers", "1", "--threads", "2")}


class Front:
    """A gunicorn, and the connections of its clients."""

    def __init__(self, home: HomeDir, server: Server) -> None:
        self.home = home
        self.server = server

    @contextlib.contextmanager
    def open(self, site: str, path: str, *fields: str, body: bytes = b"") -> Iterator[socket.socket]:
        """A connection on which a request has begun."""
        with socket.create_connection(("127.0.0.1", self.server.port), PATIENCE) as wire:
            wire.sendall("\r\n".join([f"POST {path} HTTP/1.1", f"Host: {site}.test", *fields, "", ""]).encode() + body)
            yield wire

    def ends(self, site: str) -> list[str]:
        """How bodies have ended, as the site saw them."""
        with contextlib.suppress(FileNotFoundError):
            return (self.home.path / "sites" / site / "ends").read_text().splitlines()
        return []

    def assert_near_answers(self) -> None:
        for _ in range(4):
            assert self.server.ask("near.test").text == "site near"


def whole(wire: socket.socket) -> bytes:
    """All that comes, up to an end that is none of a reset."""
    answer = b""
    while block := wire.recv(65536):
        answer += block
    return answer


def until(wire: socket.socket, text: bytes) -> bytes:
    got = b""
    while text not in got:
        block = wire.recv(65536)
        assert block, got
        got += block
    return got


@pytest.fixture(scope="module", params=[(kind, hand) for kind in KINDS for hand in ("no", "yes")], ids="-".join)
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """`wsgi.test` and `asgi.test` in processes of their own, one thread each, and `near.test` in the workers."""
    kind, hand = request.param
    home = HomeDir(tmp_path_factory.mktemp("uploads")).create()
    home.conf((home.path / "moya.conf").read_text() + f"hand_over = {hand}\n")
    home.site("wsgi", WSGI, mode="spawned")
    home.site("asgi", ASGI, mode="spawned", application="asgi:asgi_app:application")
    home.site("near")
    (home.path / "sites" / "asgi" / "asgi_app.py").write_text(ASGI)
    with gunicorn(home, kind, *KINDS[kind]) as server:
        for site in ("wsgi", "asgi", "near"):
            server.ask(f"{site}.test", "/large")
        yield Front(home, server)
    eventually(lambda: not home.processes(), PATIENCE)


SITES = ("wsgi", "asgi")
LAST = {"stays": (), "last": ("Connection: close",)}
pytestmark = [pytestmark, pytest.mark.parametrize("site", SITES)]


@pytest.fixture(params=list(LAST))
def last(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What a client says that may be handed over, and one that may not."""
    return LAST[str(request.param)]


SENT = {
    "nothing": ("Content-Length: 50000000", b""),
    "little": ("Content-Length: 50000", b"x" * 100),
    "much": ("Content-Length: 50000000", b"x" * 300000),
    "no chunk": ("Transfer-Encoding: chunked", b""),
    "half a chunk": ("Transfer-Encoding: chunked", b"ffffff\r\n" + b"x" * 300000),
}


@pytest.mark.parametrize("sent", list(SENT))
def test_an_early_answer_does_not_wait_for_the_upload(
    front: Front, site: str, last: tuple[str, ...], sent: str
) -> None:
    """The client pauses after what it has sent; the answer comes, and the end of the connection with it."""
    field, body = SENT[sent]
    with front.open(site, "/refuse", field, *last, body=body) as wire:
        answer = until(wire, b"no.\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"\r\nConnection: close\r\n" in answer
        assert wire.recv(1) == b""  # although this side is open, and owes a body


def test_an_early_answer_comes_in_the_middle(front: Front, site: str) -> None:
    """After what the site wanted to see."""
    with front.open(site, "/refuse?200000", "Content-Length: 50000000", body=b"x" * 100) as wire:
        wire.sendall(b"x" * 199900)
        assert until(wire, b"no.\n").startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("field", ["Content-Length: 20000000", "Transfer-Encoding: chunked"])
def test_who_sends_everything_first_gets_the_early_answer_too(
    front: Front, site: str, last: tuple[str, ...], field: str
) -> None:
    """The answer waits in the client's buffer meanwhile, and no reset takes it away."""
    with front.open(site, "/refuse", field, *last, body=b"" if "Length" in field else b"1312d00\r\n") as wire:
        for _ in range(20):
            wire.sendall(b"x" * 1000000)
        assert whole(wire).endswith(b"no.\n")


def test_an_early_answer_of_a_site_that_had_to_be_started(front: Front, site: str) -> None:
    front.home.multisite("stop", site)
    with front.open(site, "/refuse", "Content-Length: 50000000", body=b"x" * 300000) as wire:
        assert until(wire, b"no.\n").startswith(b"HTTP/1.1 413 ")


def test_clients_that_pause_hold_up_nobody(front: Front, site: str) -> None:
    """More of them than there are threads."""
    with contextlib.ExitStack() as stack:
        for sent in SENT.values():
            stack.enter_context(front.open(site, "/digest", sent[0], body=sent[1]))
            front.assert_near_answers()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_arrives_whole_however_it_comes(
    front: Front, site: str, last: tuple[str, ...], tmp_path: Path, chunked: bool
) -> None:
    """In pieces of all sizes; with extensions and trailers."""
    parts = [os.urandom(size) for size in (1, 70, 8000, 65536, 1, 300000, 2000000)]
    field = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {sum(map(len, parts))}"
    with front.open(site, "/digest", field, *last) as wire:
        for part in parts:
            wire.sendall(b'%X ; a="b;\\"c" ;d\r\n%b\r\n' % (len(part), part) if chunked else part)
        if chunked:
            wire.sendall(b"000;last\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n")
        answer = until(wire, b"got it")
    assert hashlib.sha256(b"".join(parts)).hexdigest().encode() in answer


def test_chunks_stream_as_they_come(front: Front, site: str, last: tuple[str, ...]) -> None:
    """Each is answered before the next is sent."""
    with front.open(site, "/pieces", "Transfer-Encoding: chunked", *last) as wire:
        for text in (b"first.", b"second", b"third."):
            wire.sendall(b"6\r\n" + text + b"\r\n")
            until(wire, b"got " + text)
        wire.sendall(b"0\r\n\r\n")
        assert whole(wire).endswith(b"0\r\n\r\n")


CUTS = {
    "length": ("Content-Length: 1000", b"x" * 500),
    "large length": ("Content-Length: 1000000", b"x" * 500000),
    "in a chunk": ("Transfer-Encoding: chunked", b"5\r\nabcde\r\n100\r\nabc"),
    "between chunks": ("Transfer-Encoding: chunked", b"5\r\nabcde\r\n"),
    "in the trailers": ("Transfer-Encoding: chunked", b"5\r\nabcde\r\n0\r\nX-A: 1\r\n"),
}


@pytest.mark.parametrize("cut", list(CUTS))
@pytest.mark.parametrize("closes", [True, False], ids=["gone", "half closed"])
def test_a_body_that_is_cut_short_is_an_error(front: Front, site: str, cut: str, closes: bool) -> None:
    """For the site, which never takes it for whole; and for a client that still listens."""
    before = len(front.ends(site))
    field, body = CUTS[cut]
    with front.open(site, "/digest", field, body=body) as wire:
        if not closes:
            wire.shutdown(socket.SHUT_WR)
            assert whole(wire).startswith(b"HTTP/1.1 400 ")
    assert front.server.ask(f"{site}.test", "/large").status == 200  # the process is free
    eventually(lambda: front.ends(site)[before:] == ["error"], PATIENCE, "the site was told")


BAD = {
    "no size": b"zz\r\nabcde\r\n",
    "longer": b"5\r\nabcdefg\r\n0\r\n\r\n",
    "negative": b"-5\r\nabcde\r\n",
    "extension": b"5;=\r\nabcde\r\n",
    "line feed": b"5\nabcde\n0\n\n",
    "trailer": b"0\r\nno field\r\n\r\n",
    "length as trailer": b"0\r\nContent-Length: 3\r\n\r\n",
}


@pytest.mark.parametrize("bad", list(BAD))
def test_chunks_that_are_none_are_the_clients_mistake(front: Front, site: str, last: tuple[str, ...], bad: str) -> None:
    """In the middle of a body: 400, the end of the connection, and an error for the site."""
    before = len(front.ends(site))
    with front.open(site, "/digest", "Transfer-Encoding: chunked", *last) as wire:
        wire.sendall(b"3\r\nabc\r\n")
        front.assert_near_answers()
        wire.sendall(BAD[bad])
        assert whole(wire).startswith(b"HTTP/1.1 400 ")
    eventually(lambda: front.ends(site)[before:] == ["error"], PATIENCE, "the site was told")


def test_chunks_that_are_none_cut_an_answer_that_has_begun(front: Front, site: str) -> None:
    with front.open(site, "/pieces", "Transfer-Encoding: chunked") as wire:
        wire.sendall(b"6\r\nfirst.\r\n")
        until(wire, b"got first.")
        wire.sendall(b"zz\r\n")
        rest = b""
        with contextlib.suppress(ConnectionResetError):
            rest = whole(wire)
        assert not rest.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("length", [10, 100000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_expects_100_gets_it_once(
    front: Front, site: str, last: tuple[str, ...], length: int, chunked: bool
) -> None:
    field = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
    with front.open(site, "/digest", field, "Expect: 100-continue", *last) as wire:
        assert until(wire, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        body = b"x" * length
        wire.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (length, body) if chunked else body)
        assert until(wire, b"got it").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", ["/digest", "/large"])
def test_what_a_client_sends_too_much_takes_no_answer_away(front: Front, site: str, path: str) -> None:
    """More behind its request than the server has read with it; the answer ends well all the same."""
    request = f"POST {path} HTTP/1.1\r\nHost: {site}.test\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc".encode()
    with socket.create_connection(("127.0.0.1", front.server.port), PATIENCE) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # so that all of it comes at once
        wire.sendall(request + b"\r\n" * 15000)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        assert (b"got it" if path == "/digest" else b"x" * 3000000) in whole(wire)
