"""The dispatcher's language: what is read out of it, and what is refused."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.runner import envelope

from .harness import envelope as encoded


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def arriving(data: bytes, piece: int) -> socket.socket:
    """A socket on which the data arrives in pieces, and then the end."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)

    def send() -> None:
        with theirs:
            for start in range(0, len(data), piece):
                theirs.sendall(data[start : start + piece])

    threading.Thread(target=send, daemon=True).start()
    return ours


@given(
    st.dictionaries(st.text(max_size=20), st.text(max_size=50), max_size=10),
    st.binary(max_size=3000),
    st.integers(1, 4000),
)
def test_an_envelope_is_read_as_it_was_written(variables: dict[str, str], body: bytes, piece: int) -> None:
    """However it arrives, the variables are those that were sent, and the body follows."""
    sent = {**variables, "REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body))}
    with arriving(encoded(sent, body), piece) as connection:
        found, start = envelope.receive(connection, b"")
        assert found == sent
        assert envelope.body_of(found, False, start, connection).read() == body


@given(st.lists(st.binary(min_size=1, max_size=500), max_size=8), st.integers(1, 700), st.integers(-1, 900))
def test_chunks_are_put_together(pieces: list[bytes], arrive: int, read: int) -> None:
    """However they are cut, sent and read; extensions and trailers are passed over."""
    framed = b"".join(b"%X;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nX-Sum: 1\r\n\r\n"
    with arriving(framed, arrive) as connection:
        body = envelope.body_of({}, True, b"", connection)
        found = body.read() if read <= 0 else b"".join(iter(lambda: body.read(read), b""))
    assert found == b"".join(pieces)


def test_lines_of_a_long_body(pair: tuple[socket.socket, socket.socket]) -> None:
    """wsgi.input has what PEP 3333 asks for: read, readline, readlines, iteration."""
    ours, theirs = pair
    theirs.sendall(b"ne\ntwo\nthree\nfour\nfive")
    body = envelope.body_of({"CONTENT_LENGTH": "23"}, False, b"o", ours)
    assert (body.readline(), body.read(2), body.readline(100)) == (b"one\n", b"tw", b"o\n")
    assert (next(body), body.readlines()) == (b"three\n", [b"four\n", b"five"])
    assert (body.read(), body.read(5), body.readline()) == (b"", b"", b"")


def test_a_body_never_reaches_beyond_its_length(pair: tuple[socket.socket, socket.socket]) -> None:
    """What follows it on the connection is not the app's."""
    ours, theirs = pair
    assert envelope.body_of({"CONTENT_LENGTH": "3"}, False, b"abcdef", ours).read() == b"abc"
    theirs.sendall(b"bcdef")
    assert envelope.body_of({"CONTENT_LENGTH": "3"}, False, b"a", ours).read() == b"abc"
    assert ours.recv(10) == b"def"
    assert envelope.body_of({}, False, b"abc", ours).read() == b""


@pytest.mark.parametrize(
    ("is_chunked", "sent"),
    [
        (False, b"half"),
        (True, b"5\r\nhalf"),
        (True, b""),
    ],
)
def test_half_a_body_is_not_taken_for_a_whole_one(
    pair: tuple[socket.socket, socket.socket], is_chunked: bool, sent: bytes
) -> None:
    """A client that leaves in the middle raises in the app, which would otherwise store half a file."""
    ours, theirs = pair
    theirs.sendall(sent)
    theirs.close()
    with pytest.raises(ConnectionResetError):
        envelope.body_of({"CONTENT_LENGTH": "10"}, is_chunked, b"", ours).read()


@pytest.mark.parametrize("framed", [b"x\r\n", b"\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b"1" * 17 + b"\r\n", b"1" * 5000])
def test_wrong_chunks_are_refused(pair: tuple[socket.socket, socket.socket], framed: bytes) -> None:
    """Our own relay writes them, so there is nothing to be generous about."""
    ours, theirs = pair
    theirs.sendall(framed)
    theirs.close()
    with pytest.raises(envelope.BadEnvelope):
        envelope.body_of({}, True, b"", ours).read()


@pytest.mark.parametrize(
    "sent",
    [
        *(
            b"\x01\xff\xff\xff\xff",
            b"\x01\0\0\0\x02[]",
            b"\x01\0\0\0\x02{}",
            b"\x01\0\0\0\x02{x",
            b"\x01\0\0\0\x02\xff\xfe",
        ),
        *(b'\x01\0\0\0\x1c{"REQUEST_METHOD": "GET"}' + more for more in (b" {} ", b"    ", b"\0\0\0\0")),
    ],
)
def test_what_is_no_envelope_is_refused(pair: tuple[socket.socket, socket.socket], sent: bytes) -> None:
    """Before anything large is kept."""
    ours, theirs = pair
    theirs.sendall(sent)
    with pytest.raises(envelope.BadEnvelope):
        envelope.receive(ours, b"")


def test_an_envelope_that_stops_in_the_middle(pair: tuple[socket.socket, socket.socket]) -> None:
    """The dispatcher was killed: nothing runs."""
    ours, theirs = pair
    theirs.sendall(encoded({"a": "b"})[:-1])
    theirs.close()
    with pytest.raises(envelope.Gone):
        envelope.receive(ours, b"")


@pytest.mark.parametrize("length", ["-1", "1e3", "x", "1_0", "²", "9" * 5000])
def test_a_length_is_a_number(pair: tuple[socket.socket, socket.socket], length: str) -> None:
    """Anything else is refused."""
    with pytest.raises(envelope.BadEnvelope):
        envelope.body_of({"CONTENT_LENGTH": length}, False, b"", pair[0])
