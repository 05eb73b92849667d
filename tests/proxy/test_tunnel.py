"""What becomes of a connection once it speaks something else than HTTP."""

from __future__ import annotations

import array
import contextlib
import fcntl
import gc
import os
import random
import select
import socket
import termios
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.proxy import tunnel
from multisite.proxy.loop import RelayLoop
from multisite.proxy.tunnel import Tunnel
from multisite.proxy.wire import websocket
from multisite.proxy.wire.websocket import Frames
from tests.backends import PATIENCE, eventually, read_all
from tests.ways import connected

FAREWELL = websocket.close(1001)
HELLO = b"\x81\x05hello"  # a frame of text


def begun(
    loop: RelayLoop, places: set[object], begin: bytes, content: bytes = b""
) -> tuple[socket.socket, socket.socket]:
    """Return the outer ends of a tunnel: a client's, and the site's."""
    one, inner_one = connected()
    other, inner_other = connected()
    for inner in (inner_one, inner_other):
        inner.setblocking(False)
    loop.call(lambda: Tunnel(loop, places, inner_one, inner_other, begin, content).start())
    for outer in (one, other):
        outer.settimeout(PATIENCE)
    return one, other


@pytest.fixture
def ends(loop: RelayLoop) -> Iterator[tuple[socket.socket, socket.socket, set[object]]]:
    """The outer ends of a tunnel, and who holds a place."""
    places: set[object] = set()
    one, other = begun(loop, places, b"begin")
    yield one, other, places
    one.close()
    other.close()


def test_a_tunnel_goes_both_ways_until_both_ends_are_through(ends: Any) -> None:
    one, other, places = ends
    assert one.recv(100) == b"begin"
    one.sendall(b"there")
    assert other.recv(100) == b"there"
    other.sendall(b"back")
    assert one.recv(100) == b"back"
    one.shutdown(socket.SHUT_WR)
    assert other.recv(100) == b""
    other.sendall(b"more")
    assert one.recv(100) == b"more"
    other.close()
    assert one.recv(100) == b""
    eventually(lambda: not places)


def test_a_tunnel_holds_one_piece_of_each_direction(ends: Any) -> None:
    """Who takes nothing stops the other; nothing is lost."""
    one, other, _ = ends
    one.setblocking(False)
    data = os.urandom(1 << 16)
    sent = 0
    stuck = time.monotonic() + 0.3
    while time.monotonic() < stuck:
        try:
            sent += one.send(data)
            stuck = time.monotonic() + 0.3
        except BlockingIOError:
            time.sleep(0.01)
    assert sent < 64 << 20
    got = 0
    with contextlib.suppress(TimeoutError):
        while got < sent:
            got += len(other.recv(1 << 20))
    assert got == sent


def test_a_broken_end_closes_the_other(ends: Any) -> None:
    one, other, places = ends
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    one.close()
    with contextlib.suppress(ConnectionResetError):
        assert other.recv(100) == b""
    eventually(lambda: not places)


def test_a_silent_tunnel_ends(loop: RelayLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "IDLE", 0.05)
    places: set[object] = set()
    one, other = begun(loop, places, b"")
    with one, other:
        assert one.recv(1) == b""
        eventually(lambda: not places)


@pytest.mark.parametrize("leaves", ["site", "client"])
def test_what_was_said_before_the_end_is_passed_on(loop: RelayLoop, leaves: str) -> None:
    """Both have more to say than the other takes. One leaves, which comes unasked; the piece that waits is not lost."""
    client, inner_client = connected()
    site, inner_site = socket.socketpair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    inner_client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    for inner in (inner_client, inner_site):
        inner.setblocking(False)
    passing = Tunnel(loop, set(), inner_client, inner_site, b"")
    loop.call(passing.start)
    by_site = _filled(site, lambda: bool(passing._ends[0].out))
    by_client = _filled(client, lambda: bool(passing._ends[1].out))
    assert all(end.out and not end.events & select.EPOLLIN for end in passing._ends)
    if leaves == "site":
        site.close()
        with client:
            assert read_all(client) == by_site
    else:
        held = _queued(site) + len(passing._ends[1].out)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        with site:
            received = b"".join(_until_the_end(site))
            assert len(received) >= held and by_client.startswith(received)


def _until_the_end(wire: socket.socket) -> Iterator[bytes]:
    """What comes; a unix socket that is closed with something unread says so after its last byte (ECONNRESET)."""
    wire.settimeout(PATIENCE)
    with contextlib.suppress(ConnectionResetError):
        while piece := wire.recv(65536):
            yield piece


def _filled(outer: socket.socket, waits: Callable[[], bool]) -> bytes:
    """Say something until nothing is taken any more and a piece waits in the tunnel; return what was taken."""
    said, taken, refused = random.Random(1).randbytes(8 << 20), 0, 0
    outer.setblocking(False)
    while refused < 3:
        try:
            taken, refused = taken + outer.send(said[taken : taken + 65536]), 0
        except BlockingIOError:
            refused = refused + 1 if waits() else 0
            time.sleep(0.01)
    outer.settimeout(PATIENCE)
    return said[:taken]


def _queued(wire: socket.socket) -> int:
    """How many bytes can be received."""
    count = array.array("i", [0])
    fcntl.ioctl(wire, termios.FIONREAD, count)
    return count[0]


def test_what_has_ended_is_held_by_nothing(loop: RelayLoop) -> None:
    """Neither its buffers, whose hour has not come, nor its place."""
    made: list[weakref.ref[Tunnel]] = []
    places: set[object] = set()
    outer: list[socket.socket] = []
    quiet = begun(loop, places, b"")

    def begin() -> None:
        for _ in range(50):
            pairs = socket.socketpair(), socket.socketpair()
            outer.extend(pair[0] for pair in pairs)
            for _, inner in pairs:
                inner.setblocking(False)
            passing = Tunnel(loop, places, pairs[0][1], pairs[1][1], bytes(1 << 20))
            made.append(weakref.ref(passing))
            passing.start()

    loop.call(begin)
    eventually(lambda: len(places) == 51)
    while outer:
        outer.pop().close()
    eventually(lambda: len(places) == 1)
    eventually(lambda: gc.collect() >= 0 and not any(ref() for ref in made))
    assert loop.in_flight == loop.vigil == 1
    for wire in quiet:
        wire.close()


# The end of the process


def test_both_ends_are_told_that_the_process_ends(loop: RelayLoop) -> None:
    """At once; and the client's answer ends it."""
    places: set[object] = set()
    client, site = begun(loop, places, b"")
    with client, site:
        loop.call(loop._leave)
        assert client.recv(100) == FAREWELL
        data = site.recv(100)
        assert (data[0], data[1]) == (0x88, 0x82)  # who says something to a server masks it
        assert bytes(byte ^ key for byte, key in zip(data[6:], data[2:6], strict=False)) == b"\x03\xe9"
        assert places
        client.sendall(b"\x88\x82\0\0\0\0\x03\xe9")
        assert client.recv(100) == b""
        eventually(lambda: not places)


def test_a_client_that_does_not_answer_is_not_waited_for(loop: RelayLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "PARTING", 0.05)
    client, site = begun(loop, set(), b"")
    with client, site:
        loop.call(loop._leave)
        eventually(lambda: not loop.in_flight)
        assert read_all(client) == FAREWELL


@pytest.mark.parametrize("cut", [1, 2, 3, len(HELLO) - 1])
def test_a_farewell_waits_for_the_end_of_a_frame(loop: RelayLoop, cut: int) -> None:
    """Whatever the site says behind it is dropped."""
    client, site = begun(loop, set(), b"", HELLO[:1])
    with client, site:
        assert client.recv(1) == HELLO[:1]
        site.sendall(HELLO[1:cut])
        for byte in HELLO[1:cut]:
            assert client.recv(1) == bytes([byte])
        loop.call(loop._leave)
        assert site.recv(100)[0] == 0x88
        site.sendall(HELLO[cut:] + HELLO)
        data = b""
        while len(data) < len(HELLO) - cut + len(FAREWELL):
            data += client.recv(100)
        assert data == HELLO[cut:] + FAREWELL


def test_who_has_been_told_already_is_not_told_again(loop: RelayLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a closing frame nothing may follow (RFC 6455 section 5.5.1)."""
    monkeypatch.setattr(tunnel, "PARTING", 0.05)
    own = websocket.close(4000)
    client, site = begun(loop, set(), b"")
    with client, site:
        site.sendall(own)
        assert client.recv(100) == own
        loop.call(loop._leave)
        assert read_all(client) == b""


def test_a_worker_that_is_about_to_end_says_so_early(loop: RelayLoop) -> None:
    """Though it waits for something else before it waits for the loop."""
    ending = [False]
    loop.is_ending = lambda: ending[0]
    client, site = begun(loop, set(), b"")
    with client, site:
        eventually(lambda: loop.in_flight)
        ending[0] = True
        assert client.recv(100) == FAREWELL


# Frames


def frame(payload: bytes, masked: bool, opcode: int = 2) -> bytes:
    """As RFC 6455 section 5.2 has it."""
    size, mask = len(payload), 128 if masked else 0
    if size < 126:
        head = bytes([128 | opcode, mask | size])
    elif size < 65536:
        head = bytes([128 | opcode, mask | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([128 | opcode, mask | 127]) + size.to_bytes(8, "big")
    return head + (b"mask" if masked else b"") + payload


sizes = st.sampled_from([0, 1, 2, 125, 126, 127, 65535, 65536, 70000])


@given(st.lists(st.tuples(sizes, st.booleans()), max_size=6), st.integers())
def test_the_ends_of_frames_are_found_however_they_come(said: list[tuple[int, bool]], seed: int) -> None:
    chance, frames, at = random.Random(seed), Frames(), 0
    data = b"".join(frame(bytes(size), masked) for size, masked in said)
    ends, end = {0}, 0
    for size, masked in said:
        end += len(frame(bytes(size), masked))
        ends.add(end)
    while at < len(data):
        assert frames.is_between == (at in ends)
        piece = data[at : at + chance.choice([1, 2, 3, 7, 200, 65536, 100_000])]
        assert frames.feed(piece) == len(piece)
        at += len(piece)
    assert frames.is_between
    assert not frames.has_closed


@given(st.binary(max_size=200), st.booleans(), st.integers(1, 20))
def test_only_the_frame_that_has_begun_is_finished(payload: bytes, masked: bool, cut: int) -> None:
    frames, data = Frames(), frame(payload, masked)
    cut = min(cut, len(data) - 1)
    frames.feed(data[:cut])
    assert frames.feed(data[cut:] + b"more", stops=True) == len(data) - cut
    assert frames.feed(b"more", stops=True) == 0


def test_a_closing_frame_is_noticed() -> None:
    frames = Frames()
    frames.feed(frame(b"", False, opcode=9))
    assert not frames.has_closed
    frames.feed(frame(b"\x03\xe8", True, opcode=8)[:6])
    assert frames.has_closed
    assert websocket.close(1001) == b"\x88\x02\x03\xe9"
    assert websocket.close(1001, b"\xff\0\xff\0") == b"\x88\x82\xff\0\xff\0\xfc\xe9"
