"""An ASGI site by the specification, in every way in which it is reached (asgiref, "HTTP & WebSocket", version 2.4)."""

from __future__ import annotations

import ast
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from .everyway import ASGI, PLAIN_ASGI, Way, every_way, reply
from .harness import eventually

pytestmark = pytest.mark.servers

APP = '''
import asyncio

told = {}


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    name = scope["path"].strip("/") if scope["path"].startswith("/do") else ""
    await globals().get(name.replace("/", "_"), show)(scope, receive, send)


async def answer(send, body, status=200):
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def show(scope, receive, send):
    seen = {key: scope[key] for key in ("path", "raw_path", "query_string", "headers", "server", "client", "scheme")}
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await answer(send, repr(seen | {"body": body}).encode())


async def do_slow(scope, receive, send):
    """Answer after a while, unless the client leaves."""
    await receive()
    leaving = asyncio.ensure_future(receive())
    done, _ = await asyncio.wait([leaving], timeout=1.5)
    if done:
        told[scope["query_string"]] = leaving.result()["type"]
        return
    leaving.cancel()
    await answer(send, b"waited")


async def do_leave(scope, receive, send):
    """Send until that raises."""
    key = scope["query_string"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    told[key] = "sending"
    try:
        for _ in range(2000):
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
            await asyncio.sleep(0.01)
        told[key] = "never told"
    except Exception as error:
        told[key] = "OSError" if isinstance(error, OSError) else repr(error)
        raise ValueError("made of it by a framework") from error


async def do_flood(scope, receive, send):
    """Send more than anybody takes, and wait for that."""
    key = scope["query_string"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        while True:
            told[key] = "sending"
            await send({"type": "http.response.body", "body": b"x" * 100000, "more_body": True})
    except OSError:
        told[key] = "OSError"


async def do_after(scope, receive, send):
    """What receive() says when the answer is complete, to who waits already and to who asks then."""
    assert (await receive())["more_body"] is False
    waiting = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    await answer(send, b"complete")
    asked = asyncio.ensure_future(receive())
    await asyncio.wait([waiting, asked], timeout=30)
    told[scope["query_string"]] = [each.result()["type"] for each in (waiting, asked) if each.done()]


async def do_told(scope, receive, send):
    await answer(send, repr(told.get(scope["query_string"])).encode())


async def do_999(scope, receive, send):
    await answer(send, b"no", 999)
'''


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Way]]:
    with every_way(tmp_path_factory.mktemp("asgi"), asgi=APP) as found:
        yield found


def told(way: Way, key: str) -> Any:
    return ast.literal_eval(way.ask(f"/do/told?{key}").body.decode())


def seen(way: Way, *arguments: str, body: bytes = b"") -> dict[str, Any]:
    answer = way.ask(*arguments, body=body)
    assert answer.status == 200, answer
    found: dict[str, Any] = ast.literal_eval(answer.body.decode())
    return found


def by_name(headers: list[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name != b"connection":  # which the ways differ in
            found.setdefault(name, []).append(value)
    return found


REQUESTS = {
    "repeated": ("/", "GET", "X-A: 1", "Cookie: a=1; b=2", "X-B: 1, 2", "x-a: 2", "Cookie: c=3", "X-A:", "X-b: 3"),
    "cookie with a comma": ("/", "GET", "Cookie: a=1,2"),
    "cookies with commas": ("/", "GET", "Cookie: a=1,2", "Cookie: b=3,4"),
    "same twice": ("/", "GET", "X-A: 1", "X-A: 1"),
    "underscore": ("/", "GET", "X_A: 1", "X-A: 2"),
    "empty type": ("/", "GET", "Content-Type:", "X-Empty:"),
    "type": ("/", "POST", 'content-type: text/x; a="b"', "Content-Length: 0"),
    "latin": ("/", "GET", "X-A: \xe9\xff", "X-A: \xe8"),
    "path": ("/a%2Fb/%C3%A9//c;d=1/../e?q=%20+&&r=1?", "GET"),
    "no query": ("/a?", "GET"),
    "star": ("*", "OPTIONS"),
}


@pytest.mark.parametrize("name", ASGI)
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_what_an_environ_cannot_say(ways: dict[str, Way], name: str, request_: tuple[str, ...]) -> None:
    """Fields that come more than once stay apart and in order, and the target is as it was written."""
    found, expected = seen(ways[name], *request_), seen(ways[PLAIN_ASGI], *request_)
    assert by_name(found["headers"]) == by_name(expected["headers"])
    for key in ("path", "raw_path", "query_string", "body"):
        assert found[key] == expected[key]


@pytest.mark.parametrize("name", ASGI)
@pytest.mark.parametrize("body", [b"", b"5\r\nhello\r\n"], ids=["empty", "some"])
def test_a_body_in_a_coding(ways: dict[str, Way], name: str, body: bytes) -> None:
    """The coding stays the application's to undo; that of the chunks is undone."""
    request = ("/", "POST", "Transfer-Encoding: gzip, chunked")
    found = seen(ways[name], *request, body=body + b"0\r\n\r\n")
    assert by_name(found["headers"])[b"transfer-encoding"] == [b"gzip, chunked"]
    assert found["body"] == (b"hello" if body else b"")


@pytest.mark.parametrize("name", ASGI)
def test_a_target_that_names_a_host(ways: dict[str, Way], name: str) -> None:
    """What follows the host is the target; nothing is the same as a slash (RFC 9112 section 3.2.2)."""
    way = ways[name]
    for target, path, query in (
        (f"http://{way.host}", "/", b""),
        (f"http://{way.host}?a=1", "/", b"a=1"),
        (f"HTTP://{way.host}:80/a%2Fb?c", "/a/b", b"c"),
    ):
        found = seen(way, target)
        assert (found["path"], found["query_string"]) == (path, query), target
        assert found["raw_path"] == (b"/a%2Fb" if query == b"c" else b"/")
        assert by_name(found["headers"])[b"host"][0].split(b":")[0] == way.host.encode()


@pytest.mark.parametrize("name", ASGI)
def test_who_serves_and_who_asks(ways: dict[str, Way], name: str) -> None:
    """A host and a port; on a unix socket its path, and no port."""
    found = seen(ways[name], "/")
    if ways[name].path:
        assert found["server"] == (ways[name].path, None)
    else:
        assert found["server"] == ("127.0.0.1", ways[name].port)
        assert found["client"][0] == "127.0.0.1" and found["client"][1] > 0


@pytest.mark.parametrize("name", ASGI)
def test_a_client_that_sends_no_more_waits(ways: dict[str, Way], name: str) -> None:
    """The end of its request is no end of its waiting (RFC 9112 section 9.6)."""
    for target, body in (("/do/slow", b"waited"), ("/", b"")):
        with ways[name].connect() as wire:
            if wire.family == socket.AF_INET:
                wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # the end travels with the request
            wire.sendall(ways[name].head(target))
            wire.shutdown(socket.SHUT_WR)
            answer = reply(wire)
            assert (answer.status, answer.cut) == (200, False)
            assert answer.body == body or target == "/"
            assert wire.recv(1) == b""


@pytest.mark.parametrize("name", ASGI)
def test_a_client_that_leaves_is_told_of(ways: dict[str, Way], name: str) -> None:
    """By receive(), where it has left before its answer."""
    with ways[name].connect() as wire:
        wire.sendall(ways[name].head(f"/do/slow?left-{name}"))
        eventually(lambda: wire.send(b"") == 0)
        with pytest.raises(TimeoutError):
            wire.settimeout(0.7)  # longer than an end counts as that of the request
            wire.recv(1)
    eventually(lambda: told(ways[name], f"left-{name}") == "http.disconnect")


@pytest.mark.parametrize("name", ASGI)
@pytest.mark.parametrize("what", ["leave", "flood"])
def test_sending_to_a_client_that_has_left_raises(ways: dict[str, Way], name: str, what: str) -> None:
    """An OSError, whether the app sends now and then or waits for the client to take something."""
    key = f"{what}-{name}"
    with ways[name].connect() as wire:
        wire.sendall(ways[name].head(f"/do/{what}?{key}"))
        assert wire.recv(100)
        eventually(lambda: told(ways[name], key) == "sending")
    eventually(lambda: told(ways[name], key) == "OSError")


@pytest.mark.parametrize("name", ASGI)
def test_the_end_of_the_answer_is_told(ways: dict[str, Way], name: str) -> None:
    """receive() says http.disconnect then, and does not wait for the client to leave."""
    with ways[name].connect() as wire:
        wire.sendall(ways[name].head(f"/do/after?after-{name}"))
        assert reply(wire).body == b"complete"
        eventually(lambda: told(ways[name], f"after-{name}") == ["http.disconnect"] * 2)


@pytest.mark.parametrize("name", ["asgi-own-socket", "asgi-handed-sync", "asgi-handed-gthread"])
def test_a_status_is_the_sites_to_say(ways: dict[str, Way], name: str) -> None:
    """One above 599 as well."""
    assert ways[name].ask("/do/999").status == 999


@pytest.mark.parametrize("name", ASGI)
def test_a_length_that_nobody_means(ways: dict[str, Way], name: str) -> None:
    """Is a bad request."""
    assert ways[name].ask("/", "POST", "Content-Length: 99999999999999999999").status == 400
