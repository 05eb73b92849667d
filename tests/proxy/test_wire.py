"""The bytes of requests and answers: HTTP/1.1, uwsgi and our own envelope."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.errors import BadRequest, RequestTooLarge, UpstreamProtocolError
from multisite.proxy.wire import envelope, http11, uwsgi
from multisite.proxy.wire.framing import LAST_CHUNK, Body, Chunked, ChunkedRequest, Sized, UntilClose, chunk
from multisite.proxy.wire.http11 import raw_target

ENVIRON: dict[str, Any] = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/",
    "QUERY_STRING": "",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "192.0.2.1",
    "wsgi.url_scheme": "http",
    "HTTP_HOST": "a.example",
}


# The target


@pytest.mark.parametrize(
    ("environ", "target"),
    [
        ({"RAW_URI": "/a%2Fb//c;d?q=%20+"}, "/a%2Fb//c;d?q=%20+"),
        ({"REQUEST_URI": "/a%2Fb?x"}, "/a%2Fb?x"),
        ({"RAW_URI": "//double/slash"}, "//double/slash"),
        ({"RAW_URI": "http://a.example/p?q"}, "/p?q"),
        ({"RAW_URI": "http://a.example?q=/x"}, "/?q=/x"),
        ({"RAW_URI": "http://a.example"}, "/"),
        ({"RAW_URI": "*", "REQUEST_METHOD": "OPTIONS"}, "*"),
        ({"RAW_URI": "*"}, "/"),
        ({"RAW_URI": "/a b"}, "/a%20b"),
        ({"SCRIPT_NAME": "/s", "PATH_INFO": "/\xc3\xa9 x", "QUERY_STRING": "q=1"}, "/s/%C3%A9%20x?q=1"),
        ({"PATH_INFO": ""}, "/"),
    ],
)
def test_the_target_is_sent_as_the_client_sent_it(environ: dict[str, str], target: str) -> None:
    assert raw_target(ENVIRON | environ) == target


# Requests


def test_a_request_in_http() -> None:
    environ = ENVIRON | {"RAW_URI": "/x", "CONTENT_TYPE": "text/plain"}
    head = http11.encode(environ, [("HTTP_HOST", "a.example"), ("HTTP_X_A", "\xe9")], 3)
    assert head == (
        b"GET /x HTTP/1.1\r\nHost: a.example\r\nX-A: \xe9\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n"
        b"Connection: close\r\n\r\n"
    )


def test_a_request_without_a_length_is_chunked_or_has_no_body() -> None:
    assert b"Transfer-Encoding: chunked\r\n" in http11.encode(ENVIRON, [], None, chunked=True)
    head = http11.encode(ENVIRON, [], None)
    assert b"Transfer-Encoding" not in head
    assert b"Content-Length" not in head


def test_an_http_1_0_request_without_a_host_gets_one() -> None:
    head = http11.encode(ENVIRON | {"HTTP_HOST": ""}, [("HTTP_HOST", "")], None)
    assert head.count(b"Host:") == 1
    assert b"Host: 127.0.0.1:8000\r\n" in head


@pytest.mark.parametrize("value", ["a\r\nEvil: 1", "a\nEvil: 1", "a\rb", "a\0b"])
@pytest.mark.parametrize("where", ["HTTP_X_A", "RAW_URI", "CONTENT_TYPE", "REQUEST_METHOD"])
def test_a_request_cannot_be_split(where: str, value: str) -> None:
    """Whatever a server lets through, one request stays one."""
    environ = ENVIRON | {where: "/" + value if where == "RAW_URI" else value}
    fields = [(key, text) for key, text in environ.items() if key.startswith("HTTP_")]
    with pytest.raises(BadRequest):
        http11.encode(environ, fields, None)


def test_a_request_in_uwsgi_is_the_packet_of_the_specification() -> None:
    packet = uwsgi.encode({"REQUEST_METHOD": "POST", "PATH_INFO": "/x"}, [], 3)
    assert packet[:1] == packet[3:4] == b"\0"
    assert packet[1:3] == struct.pack("<H", len(packet) - 4)
    assert packet[4:].startswith(bytes.fromhex("0e00524551554553545f4d4554484f440400504f5354"))
    assert bytes.fromhex("0900504154485f494e464f02002f78") in packet


def variables(packet: bytes) -> dict[str, str]:
    found, at = [], 4
    while at < len(packet):
        size = int.from_bytes(packet[at : at + 2], "little")
        found.append(packet[at + 2 : at + 2 + size].decode("latin-1"))
        at += 2 + size
    return dict(zip(found[::2], found[1::2], strict=True))


def test_a_uwsgi_request_has_the_variables_of_nginx() -> None:
    environ = ENVIRON | {"RAW_URI": "/a%2Fb?q", "PATH_INFO": "/a/b", "wsgi.url_scheme": "https", "wsgi.errors": None}
    found = variables(uwsgi.encode(environ, [("HTTP_X_A", "\xe9")], None))
    assert found["REQUEST_URI"] == "/a%2Fb?q"
    assert found["PATH_INFO"] == "/a/b"
    assert (found["HTTPS"], found["REQUEST_SCHEME"], found["CONTENT_LENGTH"]) == ("on", "https", "")
    assert (found["HTTP_X_A"], found["REMOTE_ADDR"]) == ("\xe9", "192.0.2.1")
    assert "wsgi.errors" not in found


@pytest.mark.parametrize("fields", [[("HTTP_A", "x" * 65536)], [(f"HTTP_{n}", "x" * 999) for n in range(66)]])
def test_uwsgi_variables_that_are_too_large_are_431(fields: list[tuple[str, str]]) -> None:
    with pytest.raises(RequestTooLarge) as caught:
        uwsgi.encode(ENVIRON, fields, None)
    assert caught.value.status == 431


def test_an_envelope_that_is_too_large_is_431() -> None:
    with pytest.raises(RequestTooLarge):
        envelope.encode(ENVIRON | {"HTTP_COOKIE": "\xe9" * 200000}, chunked=False)


def test_an_envelope_has_the_strings_of_the_request_and_nothing_else() -> None:
    """wsgiref for one puts the administrator's environment into every environ."""
    environ = ENVIRON | {
        "SECRET": "1",
        "wsgi.errors": None,
        "HTTP_X_\u00e9": "\xe9",
        "RAW_URI": "/%2F",
        "REMOTE_PORT": "1",
        "SERVER_PORT": 80,
    }
    data = envelope.encode(environ, chunked=True)
    assert data[:1] == b"\x01"
    assert int.from_bytes(data[1:5], "big") == len(data) - 5
    found = json.loads(data[5:])
    assert found.pop("multisite.body") == "chunked"
    assert list(found) == [key for key in environ if key not in ("SECRET", "wsgi.errors", "SERVER_PORT")]
    assert all(found[key] == environ[key] for key in found)


# Heads of answers


def parsed(head: bytes) -> http11.Head:
    found = http11.parse_head(head + b"\r\n\r\n")
    assert found
    return found[0]


def test_the_head_of_an_answer() -> None:
    data = b"HTTP/1.1 200 Very OK\r\nA: 1\r\nSet-Cookie: x\r\nset-cookie:\ty \r\nContent-Length: 3\r\n\r\nabc"
    head, rest = http11.parse_head(data.replace(b"Very", b"Very\t")) or (None, b"")
    assert head
    assert (head.code, head.status, head.length, head.chunked, rest) == (200, "200 Very  OK", 3, False, b"abc")
    assert head.fields == [("A", "1"), ("Set-Cookie", "x"), ("set-cookie", "y"), ("Content-Length", "3")]


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 O\tK"])
def test_fields_stay_as_they_are(first: bytes) -> None:
    """In their order, with tabs within a value; only a Content-Length that is said twice becomes one."""
    lines = [b"A: 1", b"content-length:3 ", b"B: a\tb\t", b"C:", b"A: 2", b"Content-Length: 3, 3"]
    fields = [("A", "1"), ("content-length", "3"), ("B", "a\tb"), ("C", ""), ("A", "2")]
    assert parsed(b"\r\n".join([first, *lines])).fields == fields
    assert parsed(b"\r\n".join([first, *lines[:-1]])).fields == fields
    assert parsed(b"\r\n".join([first, *lines[-1:], b"A: 1"])).fields == [("Content-Length", "3"), ("A", "1")]
    bodiless = b"\r\n".join([b"HTTP/1.1 204 No", *lines])
    assert parsed(bodiless).fields == [field for field in fields if field[0] != "content-length"]


def test_a_head_may_come_in_any_pieces() -> None:
    data = b"HTTP/1.0 404 Not Found\r\nA: 1\r\n\r\nrest"
    for size in range(data.index(b"rest")):
        assert http11.parse_head(data[:size]) is None


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"HTTP/1.1 200", "200 OK"),
        (b"HTTP/1.0 404 ", "404 Not Found"),
        (b"HTTP/1.1 299", "299 Unknown"),
        (b"HTTP/1.1 999", "999 Unknown"),
    ],
)
def test_a_missing_phrase_is_supplied(line: bytes, status: str) -> None:
    assert parsed(line).status == status


def test_fields_of_one_connection_end_here() -> None:
    head = parsed(
        b"HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTrailer: T\r\nUpgrade: h2c\r\n"
        b"Transfer-Encoding: Chunked\r\nProxy-Connection: x\r\nStatus: 500 No\r\nKept: 1"
    )
    assert head.fields == [("Kept", "1")]
    assert head.chunked


def test_fields_that_the_server_adds_itself_can_be_left_out() -> None:
    found = http11.parse_head(b"HTTP/1.1 200 OK\r\nDate: x\r\nA: 1\r\n\r\n", http11.DROPPED | {"date"})
    assert found
    assert found[0].fields == [("A", "1")]


def test_a_bare_line_feed_ends_a_line() -> None:
    head = parsed(b"HTTP/1.0 200 OK\nA: 1\nB: 2")
    assert head.fields == [("A", "1"), ("B", "2")]
    assert http11.parse_head(b"HTTP/1.0 200 OK\nA: 1\n\nbody") == (
        http11.Head(200, "200 OK", [("A", "1")], None, False),
        b"body",
    )


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 000 No",
        b"HTTP/1.1 1000 No",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.12 200 OK",
        b"220 smtp ready",
        b"\0\1\2",
        b"\r\nHTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\n folded: 1",
        b"HTTP/1.1 200 OK\r\nA: 1\r\n 2",
        b"HTTP/1.1 200 OK\r\nA: 1\r\n\t2",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\n: no name",
        b"HTTP/1.1 200 OK\r\nA b: 1",
        b"HTTP/1.1 200 OK\r\nA\xe9: 1",
        b"HTTP/1.1 200 OK\r\nA: 1\0",
        b"HTTP/1.1 200 OK\r\nA: 1\rB: 2",
        b"HTTP/1.1 200 OK\r\nA: \x1b[0m",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200 OK\r\nContent-Length: x",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1",
        b"HTTP/1.1 200 OK\r\nContent-Length:",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999999",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\n" + b"A: 1\r\n" * 501 + b"B: 2",
    ],
)
def test_what_is_no_http_is_refused(head: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        http11.parse_head(head + b"\r\n\r\n")


def test_a_head_without_end_is_refused() -> None:
    head = b"HTTP/1.1 200 OK\r\nA: " + b"x" * 65536
    with pytest.raises(UpstreamProtocolError):
        http11.parse_head(head)
    with pytest.raises(UpstreamProtocolError):
        http11.parse_head(head + b"\r\n\r\n")


def test_garbage_is_refused_before_it_ends() -> None:
    with pytest.raises(UpstreamProtocolError):
        http11.parse_head(b"SSH-2")


def test_the_same_length_said_twice_is_one_length() -> None:
    head = parsed(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5")
    assert (head.length, head.fields) == (5, [("Content-Length", "5")])


def test_white_space_before_the_colon_is_removed() -> None:
    """RFC 9112 section 5.1 asks a relay for that."""
    assert parsed(b"HTTP/1.1 200 OK\r\nContent-Length : 5").length == 5


def test_a_204_has_no_length_and_a_304_may() -> None:
    assert parsed(b"HTTP/1.1 204 No Content\r\nContent-Length: 0").fields == []
    assert parsed(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7").fields == [("Content-Length", "7")]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_an_error(data: bytes) -> None:
    """Nothing but the one error comes out of a hostile answer."""
    for prefix in (b"", b"HTTP/1.1 200 OK\r\n"):
        try:
            found = http11.parse_head(prefix + data + b"\r\n\r\n")
        except UpstreamProtocolError:
            continue
        assert found
        assert all(not set(name + value) & set("\r\n\0") for name, value in found[0].fields)


# Bodies


def test_which_answers_have_a_body() -> None:
    def kind(line: bytes, method: str = "GET") -> tuple[type[Body], bool]:
        body = http11.body_of(parsed(line), method, forgive=False)
        return type(body), body.done

    assert kind(b"HTTP/1.1 200 OK\r\nContent-Length: 5", "HEAD") == (Sized, True)
    assert kind(b"HTTP/1.1 204 No Content\r\nContent-Length: 5") == (Sized, True)
    assert kind(b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked") == (Sized, True)
    assert kind(b"HTTP/1.1 200 OK\r\nContent-Length: 0") == (Sized, True)
    assert kind(b"HTTP/1.1 200 OK\r\nContent-Length: 5") == (Sized, False)
    assert kind(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked") == (Chunked, False)
    assert kind(b"HTTP/1.1 200 OK") == (UntilClose, False)


def test_a_sized_body_ends_at_its_length() -> None:
    body = Sized(5)
    assert (body.feed(b"abc"), body.done) == (b"abc", False)
    with pytest.raises(UpstreamProtocolError, match="2 bytes before"):
        body.end(reset=False)
    assert (body.feed(b"defgh"), body.done) == (b"de", True)


def test_an_unframed_body_ends_with_the_connection() -> None:
    body = UntilClose(forgive=False)
    assert (body.feed(b"abc"), body.done) == (b"abc", False)
    with pytest.raises(UpstreamProtocolError):
        body.end(reset=True)
    body.end(reset=False)
    assert body.done
    forgiving = UntilClose(forgive=True)
    forgiving.end(reset=True)
    assert forgiving.done


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.integers(1, 50), st.booleans())
def test_chunks_come_apart_however_they_are_cut(chunks: list[bytes], size: int, extended: bool) -> None:
    """Pieces of any size give the same content; what follows the end is not content."""
    wire = b"".join(chunk(data) for data in chunks)
    wire = wire.replace(b"\r\n", b" ;a=b\r\n", 1) if extended and chunks else wire
    wire += b"0\r\nTrailer: 1\r\n\r\n"
    body, content = Chunked(), b""
    for at in range(0, len(wire), size):
        assert not body.done
        content += body.feed(wire[at : at + size])
    assert body.done
    assert content == b"".join(chunks)


def test_nothing_after_the_last_chunk_is_content() -> None:
    body = Chunked()
    assert body.feed(chunk(b"a") + LAST_CHUNK + b"HTTP/1.1 200 OK") == b"a"
    assert body.done


@pytest.mark.parametrize(
    "wire",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\nabc",
        b"1\na\n0\n\n" + b" " * 5000,
        b"ffffffffffffffffff\r\n",
        b"1;" + b"x" * 5000,
        b"0\r\n" + b"a: b\r\n" * 20000,
    ],
)
def test_wrong_chunks_are_refused(wire: bytes) -> None:
    for size in (1, len(wire)):
        body = Chunked()
        with pytest.raises(UpstreamProtocolError):
            for at in range(0, len(wire), size):
                body.feed(wire[at : at + size])


def test_chunks_that_end_early_are_an_error() -> None:
    body = Chunked()
    assert body.feed(b"5\r\nab") == b"ab"
    with pytest.raises(UpstreamProtocolError):
        body.end(reset=False)


@given(st.binary(max_size=200))
def test_any_bytes_are_chunks_or_an_error(data: bytes) -> None:
    body = Chunked()
    try:
        body.feed(data)
    except UpstreamProtocolError:
        return
    assert len(body._rest) < 4096


@pytest.mark.parametrize("piecewise", [False, True])
def test_a_request_in_chunks(piecewise: bool) -> None:
    """Extensions and trailers are read, and dropped; what comes after the end is nobody's."""
    body = ChunkedRequest()
    data = b'5 ;a;b=c ; d="e\\"f"\r\nhello\r\n000A\r\n, my world\r\n0;x\r\nX-A: b\r\nX-C:\r\n\r\nGET'
    parts = [data[at : at + 1] for at in range(len(data))] if piecewise else [data]
    assert b"".join(map(body.feed, parts)) == b"hello, my world"
    assert body.done


@pytest.mark.parametrize(
    "data",
    [
        b"zz\r\n",
        b"\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"5;\r\nhello\r\n",
        b'5;a="b\r\nhello\r\n',
        b"5;a\rb\r\nhello\r\n",
        b"5\nhello\n",
        b"5\r\nhello!\r\n",
        b"5\r\nhello\n\r\n",
        b"1234567890123456\r\n",
        b"0\r\n no field\r\n\r\n",
        b"0\r\nX-A: b\nX-C: d\r\n\r\n",
        b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\nHost: x\r\n\r\n",
        b"5;" + b"a" * 5000,
    ],
)
def test_a_request_in_what_is_no_chunks(data: bytes) -> None:
    with pytest.raises(BadRequest):
        ChunkedRequest().feed(data)
