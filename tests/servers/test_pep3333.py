"""A WSGI site by PEP 3333, in every way in which it is reached: what a client sees is what plain gunicorn has it see.

Each function of the application is a probe.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from .everyway import PLAIN, WSGI, Reply, Way, every_way, reply
from .harness import eventually

pytestmark = pytest.mark.servers

APP = '''
import sys

closed = {}
SHORT = [("Content-Type", "text/plain")]


class Closing:
    """An iterable that says when it is closed."""

    def __init__(self, name, pieces):
        self.name, self.pieces = name, iter(pieces)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.pieces)

    def close(self):
        closed[self.name] = closed.get(self.name, 0) + 1


def failing(*pieces):
    yield from pieces
    raise RuntimeError("no luck")


def answer(start_response, text, status="200 OK"):
    start_response(status, SHORT)
    return [text.encode()]


# write() and start_response()

def write_first(environ, start_response):
    write = start_response("200 OK", SHORT)
    write(b"first ")
    write(b"second ")
    return [b"third"]


def write_only(environ, start_response):
    start_response("200 OK", SHORT)(b"all of it")
    return []


def write_nothing(environ, start_response):
    start_response("200 OK", SHORT)(b"")
    return []


def write_between(environ, start_response):
    write = start_response("200 OK", SHORT)
    def pieces():
        yield b"first "
        write(b"second ")
        yield b"third"
    return pieces()


def write_too_much(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "4")])
    write(b"abc")
    return [b"def"]


def write_str(environ, start_response):
    start_response("200 OK", SHORT)("text")
    return []


def late_start(environ, start_response):
    start_response("200 OK", SHORT)
    yield b"a generator "
    yield b"starts late"


def never_started(environ, start_response):
    return [b"body"]


def twice(environ, start_response):
    start_response("200 OK", SHORT)
    start_response("201 Created", SHORT)
    return [b"body"]


def twice_with_exc_info(environ, start_response):
    start_response("200 OK", [("X-A", "first")])
    try:
        raise RuntimeError
    except RuntimeError:
        start_response("503 Service Unavailable", [("X-B", "second")], sys.exc_info())
    return [b"second"]


def exc_info_after_write(environ, start_response):
    start_response("200 OK", SHORT)(b"begun")
    try:
        raise RuntimeError("no luck")
    except RuntimeError:
        start_response("500 Oops", SHORT, sys.exc_info())
    return [b"never sent"]


def exc_info_first(environ, start_response):
    try:
        raise RuntimeError
    except RuntimeError:
        start_response("404 Not Found", SHORT, sys.exc_info())
    return [b"gone"]


def no_exc_info(environ, start_response):
    start_response("200 OK", SHORT, None)
    return [b"fine"]


# Bodies

def empty_list(environ, start_response):
    start_response("200 OK", SHORT)
    return []


def empty_pieces(environ, start_response):
    start_response("200 OK", SHORT)
    return iter([b"", b"", b"text", b"", b"more", b""])


def only_empty_pieces(environ, start_response):
    start_response("200 OK", SHORT)
    return iter([b"", b""])


def a_tuple(environ, start_response):
    start_response("200 OK", SHORT)
    return (b"a", b"b")


def one_in_a_list(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"one"]


def many(environ, start_response):
    start_response("200 OK", SHORT)
    return (b"%d," % number for number in range(3000))


def large(environ, start_response):
    start_response("200 OK", SHORT)
    return [b"x" * 300000]


def large_with_length(environ, start_response):
    start_response("200 OK", [("Content-Length", "300000")])
    return (b"x" * 100000 for _ in range(3))


def str_body(environ, start_response):
    start_response("200 OK", SHORT)
    return ["text"]


def bytearray_body(environ, start_response):
    start_response("200 OK", SHORT)
    return iter([bytearray(b"text")])


def none_body(environ, start_response):
    start_response("200 OK", SHORT)


def too_long(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return [b"abcdef"]


def too_long_in_pieces(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return iter([b"abc", b"def", b"ghi"])


def nothing_announced(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return [b"abc"]


def no_content(environ, start_response):
    start_response("204 No Content", [("X-A", "b")])
    return [b"body"]


def no_content_with_length(environ, start_response):
    start_response("204 No Content", [("Content-Length", "4")])
    return [b"body"]


def not_modified(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"a"')])
    return [b"body"]


def not_modified_with_length(environ, start_response):
    start_response("304 Not Modified", [("Content-Length", "4")])
    return [b"body"]


def reset_content(environ, start_response):
    start_response("205 Reset Content", [("Content-Length", "0")])
    return []


# Errors

def raises(environ, start_response):
    raise RuntimeError("no luck")


def raises_after_start(environ, start_response):
    start_response("200 OK", SHORT)
    raise RuntimeError("no luck")


def raises_at_first_piece(environ, start_response):
    start_response("200 OK", SHORT)
    return failing()


def raises_after_empty_piece(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    return failing(b"")


# Status and headers

def own_reason(environ, start_response):
    return answer(start_response, "x", "299 Own Words (and more)")


def no_reason(environ, start_response):
    return answer(start_response, "x", "200 ")


def bad_status(environ, start_response):
    return answer(start_response, "x", "OK 200")


def short_status(environ, start_response):
    return answer(start_response, "x", "20 OK")


def status_with_newline(environ, start_response):
    return answer(start_response, "x", "200 OK\\r\\nX-Evil: yes")


def int_status(environ, start_response):
    return answer(start_response, "x", 200)


def bytes_status(environ, start_response):
    return answer(start_response, "x", b"200 OK")


def in_order(environ, start_response):
    cookies = ("Set-Cookie", "a=1"), ("set-cookie", "b=2; Path=/")
    start_response("200 OK", [cookies[0], ("X-B", "1"), cookies[1], ("X-A", "2"), ("X-B", "3"), ("x-e", "")])
    return [b"x"]


def latin(environ, start_response):
    start_response("200 OK", [("X-A", "\\xe9\\xff"), ("X-B", "a  b")])
    return [b"x"]


def unicode_header(environ, start_response):
    start_response("200 OK", [("X-A", "\\u20ac")])
    return [b"x"]


def newline_in_value(environ, start_response):
    start_response("200 OK", [("X-A", "b\\nX-Evil: yes")])
    return [b"x"]


def null_in_value(environ, start_response):
    start_response("200 OK", [("X-A", "b\\0")])
    return [b"x"]


def space_in_name(environ, start_response):
    start_response("200 OK", [("X A", "b")])
    return [b"x"]


def colon_in_name(environ, start_response):
    start_response("200 OK", [("X-A:", "b")])
    return [b"x"]


def empty_name(environ, start_response):
    start_response("200 OK", [("", "b")])
    return [b"x"]


def bytes_name(environ, start_response):
    start_response("200 OK", [(b"X-A", "b")])
    return [b"x"]


def int_value(environ, start_response):
    start_response("200 OK", [("X-A", 1)])
    return [b"x"]


def headers_of_a_connection(environ, start_response):
    """What PEP 3333 forbids an application; gunicorn leaves them out."""
    names = ("Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailers", "Upgrade")
    start_response("200 OK", [(name, "x") for name in names] + [("Transfer-Encoding", "chunked"), ("X-A", "b")])
    return [b"5\\r\\nhello\\r\\n0\\r\\n\\r\\n"]


def headers_changed_later(environ, start_response):
    headers = [("X-A", "before")]
    start_response("200 OK", headers)
    headers[:] = [("X-A", "after")]
    return [b"x"]


def own_date(environ, start_response):
    start_response("200 OK", [("Content-Type", "a/b; c=\\"d\\""), ("Content-Length", "1")])
    return [b"x"]


# What the application gets

def read_all(environ, start_response):
    data = environ["wsgi.input"]
    return answer(start_response, repr([data.read(), data.read(), data.read(5), data.readline(), list(data)]))


def read_pieces(environ, start_response):
    data = environ["wsgi.input"]
    return answer(start_response, repr([data.read(0), data.read(3), data.readline(), data.readline(2), data.read(-1)]))


def read_lines(environ, start_response):
    data = environ["wsgi.input"]
    return answer(start_response, repr([data.readline(), data.readlines()]))


def read_by_iterating(environ, start_response):
    return answer(start_response, repr(list(environ["wsgi.input"])))


def read_none(environ, start_response):
    return answer(start_response, repr(environ["wsgi.input"].read(None)))


def read_nothing(environ, start_response):
    return answer(start_response, "not read")


def read_while_answering(environ, start_response):
    data = environ["wsgi.input"]
    start_response("200 OK", SHORT)
    return iter(lambda: data.read(4), b"")


def errors(environ, start_response):
    stream = environ["wsgi.errors"]
    stream.write("one\\n")
    stream.writelines(["two \\u20ac\\n", "three\\n"])
    stream.flush()
    print("four", file=stream)
    return answer(start_response, "written")


def kinds(environ, start_response):
    """Of the values that PEP 3333 names, and of the environ itself."""
    from urllib.parse import quote
    names = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL", "wsgi.version",
             "wsgi.url_scheme", "wsgi.run_once", "wsgi.input_terminated", "RAW_URI", "HTTP_X_A", "HTTP_X_B",
             "HTTP_X_EMPTY", "CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_COOKIE", "HTTP_CONTENT_TYPE", "HTTP_X_C")
    found = [(name, environ[name]) for name in names if name in environ]
    strange = [name for name, value in environ.items() if name.isupper() and type(value) is not str]
    return answer(start_response, repr([type(environ) is dict, strange, *found]))


def spoils_its_environ(environ, start_response):
    for name in [name for name in environ if name != "wsgi.file_wrapper"]:
        del environ[name]
    environ[5] = None
    return answer(start_response, "harmless")


def early(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
    return answer(start_response, "late")


# For the tests themselves

def closes(environ, start_response):
    start_response("200 OK", SHORT)
    return Closing(environ["QUERY_STRING"], [b"a", b"b"])


def closes_after_error(environ, start_response):
    start_response("200 OK", SHORT)
    return Closing(environ["QUERY_STRING"], failing(b"begun " * 5000))


def closes_with_error(environ, start_response):
    start_response("200 OK", SHORT)
    class Fails(Closing):
        def close(self):
            super().close()
            raise RuntimeError("at the end")
    return Fails(environ["QUERY_STRING"], [b"whole"])


def flood(environ, start_response):
    start_response("200 OK", SHORT)
    return Closing(environ["QUERY_STRING"], (b"x" * 65536 for _ in range(100000)))


def too_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    return [b"abc"]


def breaks_late(environ, start_response):
    start_response("200 OK", SHORT)
    return failing(b"begun " * 20000)


def count(environ, start_response):
    return answer(start_response, str(closed.get(environ["QUERY_STRING"], 0)))


def warm(environ, start_response):
    return answer(start_response, "warm")


def application(environ, start_response):
    return globals()[environ["PATH_INFO"].split("/")[1]](environ, start_response)
'''

_READING = ("read_all", "read_pieces", "read_lines", "read_by_iterating", "read_none", "read_nothing")
READING = [*_READING, "read_while_answering"]
_ASKED_OTHERWISE = {
    *READING,
    *("kinds", "early", "closes", "closes_after_error", "closes_with_error", "flood", "too_short", "breaks_late"),
    *("count", "warm", "exc_info_after_write", "failing", "answer", "application"),
}
PROBES = [name for name in re.findall(r"^def (\w+)\(", APP, re.MULTILINE) if name not in _ASKED_OTHERWISE]
#: where gunicorn is wrong: what nothing was sent of is an error, and an answer that replaces another is that alone
ERRORS = ("write_str", "str_body", "bytearray_body", "never_started", "raises_after_empty_piece")
REPLACED = (503, "Service Unavailable", [("X-B", "second")])
BODIES = {
    "none": ((), b""),
    "empty": (("Content-Length: 0",), b""),
    "sized": (("Content-Length: 27",), b"line one\nline two\r\nline\0 3\xff"),
    "chunked": (("Transfer-Encoding: chunked",), b"9\r\nline one\n\r\n12;a=b\r\nline two\r\nline\0 3\xff\r\n0\r\n\r\n"),
    "no chunks": (("Transfer-Encoding: chunked",), b"0\r\n\r\n"),
    "large": (("Content-Length: 200001",), b"0123456789" * 20000 + b"\n"),
}
_SERVERS = {"date", "server", "connection", "transfer-encoding", "content-length"}


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Way]]:
    with every_way(tmp_path_factory.mktemp("pep"), APP) as found:
        yield found


def seen(found: Reply) -> tuple[object, ...]:
    """What does not depend on who frames and completes an answer; pages for errors are everybody's own."""
    if found.status == 500:
        return (500,)
    fields = [(name, value) for name, value in found.fields if name.lower() not in _SERVERS]
    reason = "" if found.reason == "OK" else found.reason  # which a relay adds where there is none
    return found.status, reason, fields, found.body, found.cut, found.more


@pytest.mark.parametrize("name", WSGI)
def test_what_the_client_is_answered(ways: dict[str, Way], name: str) -> None:
    """Each probe by GET, by HEAD, and by a client of HTTP/1.0."""
    assert len(PROBES) > 50
    different = {}
    for probe in PROBES:
        for method, version in (("GET", "1.1"), ("HEAD", "1.1"), ("GET", "1.0")):
            expected = seen(ways[PLAIN].ask(f"/{probe}", method, version=version))
            if "in-process" in name:  # where it is gunicorn that answers
                if probe == "never_started":  # and its workers differ
                    continue
            else:
                if probe in ERRORS:
                    expected = (500,)
                if probe == "twice_with_exc_info":
                    expected = (*REPLACED, *expected[3:])
            found = seen(ways[name].ask(f"/{probe}", method, version=version))
            if found != expected:
                different[probe, method, version] = (found, expected)
    assert not different


@pytest.mark.parametrize("name", WSGI)
def test_bodies_that_come(ways: dict[str, Way], name: str) -> None:
    """wsgi.input of each kind of body, read in each way."""
    different = {}
    for probe in READING:
        for kind, (fields, body) in BODIES.items():
            expected = seen(ways[PLAIN].ask(f"/{probe}", "POST", *fields, body=body))
            found = seen(ways[name].ask(f"/{probe}", "POST", *fields, body=body))
            if found != expected:
                different[probe, kind] = (found, expected)
    assert not different


@pytest.mark.parametrize("name", WSGI)
def test_the_environ(ways: dict[str, Way], name: str) -> None:
    """Strings are strings, and say what they say under gunicorn."""
    fields = ("X-A: 1", "X-B: \xe9", "x-a: 2", "X-Empty:", "Cookie: a=1", "Content-Type: a/b", "X_C: dropped")
    for target in ("/kinds/a%2Fb/%C3%A9;p=1//c?d=%20&e=?", "/kinds", "/kinds/?"):
        expected, found = ways[PLAIN].ask(target, "GET", *fields), ways[name].ask(target, "GET", *fields)
        assert ast.literal_eval(found.body.decode()) == ast.literal_eval(expected.body.decode())


@pytest.mark.parametrize("name", WSGI)
def test_an_iterable_is_closed_once(ways: dict[str, Way], name: str) -> None:
    """At its end, after an error of its own, and when the client has left; an error in closing costs nothing sent."""
    way = ways[name]

    def count(key: str) -> int:
        return int(way.ask(f"/count?{key}").body)

    for method in ("GET", "HEAD"):
        assert way.ask(f"/closes?{name}-{method}", method).status == 200
        assert count(f"{name}-{method}") == 1
    assert way.ask(f"/closes_after_error?{name}-error").cut
    assert count(f"{name}-error") == 1
    assert way.ask(f"/closes_with_error?{name}-end").body == b"whole"
    assert count(f"{name}-end") == 1
    with way.connect() as wire:
        wire.sendall(way.head(f"/flood?{name}-left"))
        assert wire.recv(100)
    eventually(lambda: count(f"{name}-left") == 1)


@pytest.mark.parametrize("name", WSGI)
@pytest.mark.parametrize("probe", ["breaks_late", "exc_info_after_write", "too_short"])
def test_half_an_answer_shows(ways: dict[str, Way], name: str, probe: str) -> None:
    """Nobody takes it for whole."""
    found = ways[name].ask(f"/{probe}")
    assert (found.status, found.cut) == (200, True)


@pytest.mark.parametrize("name", WSGI)
def test_early_hints(ways: dict[str, Way], name: str) -> None:
    """They come before the answer."""
    with ways[name].connect() as wire:
        wire.sendall(ways[name].head("/early"))
        data = b""
        while b"late" not in data:
            data += wire.recv(1000)
    assert data.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("name", WSGI)
def test_a_client_may_wait_to_be_told_to_go_on(ways: dict[str, Way], name: str) -> None:
    """Expect: 100-continue is answered before the body comes (RFC 9110 section 10.1.1)."""
    with ways[name].connect() as wire:
        wire.sendall(ways[name].head("/read_all", "POST", "Expect: 100-continue", "Content-Length: 3"))
        head = b""
        while b"\r\n\r\n" not in head:
            head += wire.recv(1)
        assert head == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(b"abc")
        assert reply(wire).body.startswith(b"[b'abc'")
