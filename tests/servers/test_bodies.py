"""Requests whose bodies are none, and answers that are not what they say, in every way in which a site is reached."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

from .everyway import ASGI, WSGI, Way, every_way, received
from .harness import eventually

pytestmark = pytest.mark.servers

WSGI_APP = """
import os

NOTES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "notes")
READ = {
    "read": lambda body: body.read(),
    "pieces": lambda body: b"".join(iter(lambda: body.read(1000), b"")),
    "large": lambda body: body.read(10_000_000),
    "readline": lambda body: b"".join(iter(body.readline, b"")),
    "readline-n": lambda body: b"".join(iter(lambda: body.readline(70), b"")),
    "readlines": lambda body: b"".join(body.readlines()),
    "iteration": lambda body: b"".join(body),
}


def note(text):
    with open(NOTES, "a") as file:
        file.write(text + "\\n")


def lazily(environ, start_response):
    start_response("200 OK", [("Content-Length", "4"), ("X-Was", "here")])
    environ["wsgi.input"].read()
    note("whole lazily")
    yield b"lazy"


def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/mark":
        environ["wsgi.errors"].write("a mark\\n")
        environ["wsgi.errors"].flush()
    if path == "/lazily":
        return lazily(environ, start_response)
    if path == "/length":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", query), ("X-Last", "x")])
        return [b"0123456789"]
    if path == "/lengths":
        start_response("200 OK", [("Content-Length", query)])
        return (piece for piece in (b"01234", b"", b"56789"))
    if path == "/written":
        start_response("200 OK", [("Content-Length", query)])(b"01234")
        return [b"56789"]
    if path == "/status":
        start_response(f"{query} Its Own", [("Content-Length", "3")])
        return [b"own"]
    if path == "/fields":
        start_response("200 OK", FIELDS)
        return [b"own"]
    if path == "/raises":
        start_response("200 OK", [("Content-Length", "4"), ("X-Was", "here")])
        raise ValueError("on purpose")
    if path == "/read":
        try:
            body = READ[query](environ["wsgi.input"])
        except OSError as error:
            raise ValueError("as frameworks do") from error
        note(f"whole {query} {len(body)}")
    if path == "/caught":
        try:
            environ["wsgi.input"].read()
        except OSError:
            pass
    if path == "/begun":
        start_response("200 OK", [("Content-Length", "4")])
        environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


FIELDS = [("X-A", "1"), ("Content-Length", "3"), ("X-Tab", "a\\tb"), ("Content-Type", "a/b"), ("Content-Type", "c/d"),
          ("x-case", "2"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Z", "")]
"""
ASGI_APP = """
import os

NOTES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "notes")


def note(text):
    with open(NOTES, "a") as file:
        file.write(text + "\\n")


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    path, query = scope["path"], scope["query_string"].decode()
    status, headers, body = 200, [(b"content-length", b"2")], b"ok"
    if path == "/mark":
        print("a mark", flush=True)
    if path == "/read":
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                note("disconnect")
                return
            size, more = size + len(message["body"]), message["more_body"]
        note(f"whole {query} {size}")
    if path == "/status":
        status, headers, body = int(query), [(b"content-length", b"3")], b"own"
    if path == "/fields":
        headers, body = FIELDS, b"own"
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


FIELDS = [(b"x-a", b"1"), (b"content-length", b"3"), (b"x-tab", b"a\\tb"), (b"content-type", b"a/b"),
          (b"content-type", b"c/d"), (b"x-case", b"2"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x-z", b"")]
"""
READ = ("read", "pieces", "large", "readline", "readline-n", "readlines", "iteration")
NO_CHUNKS = {
    "no size": b"zz\r\nhi\r\n0\r\n\r\n",
    "negative": b"-1\r\nhi\r\n0\r\n\r\n",
    "empty": b"\r\nhi\r\n0\r\n\r\n",
    "hexadecimal": b"0x2\r\nhi\r\n0\r\n\r\n",
    "too long": b"2\r\nhixx\r\n0\r\n\r\n",
    "a bare LF": b"2\nhi\n0\n\n",
    "an LF in an extension": b"2;a\nb\r\nhi\r\n0\r\n\r\n",
    "after a good one": b"2\r\nhi\r\n-2\r\nhi\r\n0\r\n\r\n",
}
SMUGGLED = b"GET /status?299 HTTP/1.1\r\nHost: HOST\r\n\r\n"


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Way]]:
    with every_way(tmp_path_factory.mktemp("ways"), WSGI_APP, ASGI_APP) as found:
        yield found


@pytest.fixture
def way(ways: dict[str, Way], request: pytest.FixtureRequest) -> Way:
    return ways[request.param]


def each(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("way", names, indirect=True)


in_process = each("in-process-sync", "in-process-gthread")


def notes(way: Way) -> list[str]:
    """What the application has noted since it was last asked."""
    path = way.log.parent / "sites" / way.log.stem / "notes"
    with contextlib.suppress(FileNotFoundError):
        text = path.read_text()
        path.unlink()
        return text.splitlines()
    return []


def logged(way: Way) -> str:
    """The site's log up to now, behind what it wrote before."""
    before = way.log.read_text() if way.log.exists() else ""
    way.ask("/mark")
    eventually(lambda: way.log.exists() and way.log.read_text().count("a mark") > before.count("a mark"))
    return way.log.read_text()


# --- requests -------------------------------------------------------------------------------------------------------


@each(*WSGI, *ASGI)
@pytest.mark.parametrize("kind", NO_CHUNKS)
def test_after_a_body_that_is_none_the_connection_is_over(way: Way, kind: str) -> None:
    """400, and what comes next is no request: a front end may have taken it for more of the body."""
    before = logged(way)
    raw = way.head("/read?read", "POST", "Transfer-Encoding: chunked")
    with way.connect() as wire:
        wire.sendall(raw + NO_CHUNKS[kind] + SMUGGLED.replace(b"HOST", way.host.encode()))
        answer = received(wire)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"Connection: close\r\n" in answer and answer.count(b"HTTP/1.") == 1, answer
    assert not any(line.startswith("whole") for line in notes(way))
    assert logged(way).removeprefix(before).replace("a mark", "").strip() == ""


@in_process
@pytest.mark.parametrize("path", ["/caught", "/begun", "/lazily"])
def test_whatever_the_site_makes_of_it(way: Way, path: str) -> None:
    """It may catch the error, and have said how its answer begins; the connection is over all the same."""
    raw = way.head(path, "POST", "Transfer-Encoding: chunked")
    with way.connect() as wire:
        wire.sendall(raw + NO_CHUNKS["no size"] + SMUGGLED.replace(b"HOST", way.host.encode()))
        answer = received(wire)
    assert answer.startswith(b"HTTP/1.1 200 " if path == "/caught" else b"HTTP/1.1 400 "), answer
    assert b"Connection: close\r\n" in answer and answer.count(b"HTTP/1.") == answer.count(b"Content-Length:") == 1
    assert b"X-Was" not in answer


@each(*WSGI)
@pytest.mark.parametrize("how", READ)
@pytest.mark.parametrize("size", [3000, 200_000])
def test_half_an_upload_is_never_taken_for_the_whole(way: Way, how: str, size: int) -> None:
    before = logged(way)
    half = (b"x" * 99 + b"\n") * (size // 100)
    with way.connect() as wire, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        wire.sendall(way.head(f"/read?{how}", "POST", "Content-Length: 300000") + half)
        wire.shutdown(socket.SHUT_WR)
        assert received(wire)[9:12] in (b"", b"400")
    assert notes(way) == []
    assert logged(way).removeprefix(before).replace("a mark", "").strip() == ""


@each(*ASGI)
@pytest.mark.parametrize("size", [3000, 200_000])
def test_half_an_upload_is_a_disconnect_to_an_asgi_site(way: Way, size: int) -> None:
    with way.connect() as wire, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        wire.sendall(way.head("/read", "POST", "Content-Length: 300000") + b"x" * size)
        wire.shutdown(socket.SHUT_WR)
        assert received(wire)[9:12] in (b"", b"400", b"500")
    assert set(notes(way)) <= {"disconnect"}  # of this request or of the one before, which need not have been told yet


@each(*WSGI)
@pytest.mark.parametrize("how", READ)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_whole_upload_is_read_in_every_manner(way: Way, how: str, is_chunked: bool) -> None:
    data = (b"x" * 99 + b"\n") * 2000 + b"without an end"
    if is_chunked:
        answer = way.ask(
            f"/read?{how}", "POST", "Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
        )
    else:
        answer = way.ask(f"/read?{how}", "POST", f"Content-Length: {len(data)}", body=data)
    assert answer.status == 200
    assert notes(way) == [f"whole {how} {len(data)}"]


@each(*WSGI, *ASGI)
@pytest.mark.parametrize("length", ["9" * 20, "1" * 5000, "1_0", "+1", "-1", "1 1", "0x1"])
def test_a_length_that_is_no_number(way: Way, length: str) -> None:
    assert way.ask("/caught", "POST", f"Content-Length: {length}").status == 400


# --- answers --------------------------------------------------------------------------------------------------------


@each(*WSGI)
@pytest.mark.parametrize("path", ["/length", "/lengths", "/written"])
def test_an_answer_shorter_than_it_says_ends_the_connection(way: Way, path: str) -> None:
    """Or else the next answer would be read as the rest of it."""
    with way.connect() as wire:
        wire.sendall(way.head(f"{path}?400"))
        got = b""
        while b"56789" not in got:
            more = wire.recv(65536)
            if not more:
                break
            got += more
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.sendall(way.head("/status?299"))
        got += received(wire)
    assert got.count(b"HTTP/1.") == 1 and b"299" not in got


def errors(way: Way) -> int:
    """How many of the site's requests count as failed."""
    assert way.home
    (row,) = json.loads(way.home.multisite("--json", "stats", way.log.stem))["sites"]
    return int(row["errors"])


def test_an_answer_shorter_than_it_says_counts_as_failed(ways: dict[str, Way]) -> None:
    """In every way; those to one site are told apart by their turns."""
    for way in map(ways.__getitem__, WSGI):
        before = errors(way)
        for path in ("/length", "/lengths", "/written"):
            way.ask(f"{path}?10")
            way.ask(f"{path}?3")
        for path in ("/length", "/lengths", "/written"):
            with way.connect() as wire:
                wire.sendall(way.head(f"{path}?400"))
                received(wire)
        eventually(lambda way=way, expected=before + 3: errors(way) == expected)  # type: ignore[misc]


@each(*WSGI)
@pytest.mark.parametrize("path", ["/length", "/lengths", "/written"])
def test_an_answer_longer_than_it_says_ends_where_it_says(way: Way, path: str) -> None:
    """And the next one on the connection begins there."""
    for length in (0, 3, 7):
        if way.says_close or way.name.endswith("sync"):
            assert received_after(way, f"{path}?{length}").partition(b"\r\n\r\n")[2] == b"0123456789"[:length]
            continue
        with way.connect() as wire:
            wire.sendall(way.head(f"{path}?{length}") + way.head("/status?299", "GET", "Connection: close"))
            first, again, rest = received(wire).partition(b"HTTP/1.1 299 ")
        assert first.partition(b"\r\n\r\n")[2] == b"0123456789"[:length]
        assert rest.endswith(b"own") or (not again and way.name.startswith("relayed"))  # which may end a connection


def received_after(way: Way, target: str) -> bytes:
    with way.connect() as wire:
        wire.sendall(way.head(target))
        return received(wire)


@each("in-process-gthread", "relayed-gthread")
@pytest.mark.parametrize("value", ["keep-alive, close", "close , keep-alive", "x, Close", "keep-alive,close"])
def test_a_list_that_says_close_closes(way: Way, value: str) -> None:
    """RFC 9112 section 9.6."""
    for path in ("/", "/length?10", "/lengths?10"):
        with way.connect() as wire:
            wire.sendall(way.head(path, "GET", f"Connection: {value}"))
            assert b"Connection: close\r\n" in received(wire)


@each("in-process-gthread")
def test_other_answers_leave_the_connection_open(way: Way) -> None:
    with way.connect() as wire:
        for path in ("/", "/length?10", "/lengths?10", "/length?3", "/written?10"):
            for method in ("GET", "HEAD"):
                wire.sendall(way.head(path, method))
                got = b""
                while not got.endswith(b"\r\n\r\n" if method == "HEAD" else (b"ok", b"9", b"2")):
                    more = wire.recv(65536)
                    assert more, (path, method)
                    got += more
                assert b"Connection: keep-alive\r\n" in got, (path, method)


@in_process
def test_a_page_takes_the_place_of_an_answer_that_had_begun(way: Way) -> None:
    """With its own fields, and none of the other's."""
    answer = way.ask("/raises")
    assert answer.status == 500
    assert len(answer.all("Content-Length")) == 1 and not answer.all("X-Was") and not answer.cut
    assert "on purpose" in way.log.read_text()


@each(*WSGI, *ASGI)
@pytest.mark.parametrize("status", [600, 799, 999])
def test_a_status_of_the_sites_own(way: Way, status: int) -> None:
    answer = way.ask(f"/status?{status}")
    assert (answer.status, answer.body) == (status, b"own")


@each(*WSGI, *ASGI)
def test_fields_pass_unchanged(way: Way) -> None:
    """In their order, with repeated ones, tabs, empty values, and Content-Length where the site put it."""
    answer = way.ask("/fields")
    own = [(key, value) for key, value in answer.fields if key not in ("Server", "Date", "Connection")]
    own = [(key, value) for key, value in own if key not in ("server", "date", "connection")]
    expected = [
        *[("X-A", "1"), ("Content-Length", "3"), ("X-Tab", "a\tb"), ("Content-Type", "a/b"), ("Content-Type", "c/d")],
        *[("x-case", "2"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Z", "")],
    ]
    if way.name.startswith("asgi"):
        own, expected = ([(key.lower(), value) for key, value in fields] for fields in (own, expected))
    assert own == expected
