"""uWSGI's subscription packets, byte for byte."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.router import announcement
from multisite.router.announcement import LARGEST, Announcement

# What uwsgi 2.0.21 sent with --subscribe-to 127.0.0.1:17000:example.com
CAPTURED = bytes.fromhex(
    "e0660000"
    "03006b6579" "0b006578616d706c652e636f6d"
    "070061646472657373" "0f003132372e302e302e313a3430353739"
    "09006d6f64696669657231" "010030"
    "09006d6f64696669657232" "010030"
    "0500636f726573" "010036"
    "04006c6f6164" "010030"
    "0600776569676874" "010030"
)  # fmt: skip


def packet(pairs: Iterable[tuple[bytes, bytes]], command: int = 0) -> bytes:
    """A packet as uWSGI's own encoder writes it."""
    body = b"".join(struct.pack("<H", len(part)) + part for pair in pairs for part in pair)
    return b"\xe0" + struct.pack("<H", len(body)) + bytes([command]) + body


def framed(body: bytes) -> bytes:
    """Variables, whole or not, behind a header that has their length."""
    return b"\xe0" + struct.pack("<H", len(body)) + b"\0" + body


def test_what_uwsgi_sends_is_read() -> None:
    read = announcement.read(CAPTURED)
    assert read
    assert (read.key, read.address, read.cores, read.load, read.weight) == ("example.com", "127.0.0.1:40579", 6, 0, 1)
    assert not read.leaves
    assert announcement.read(CAPTURED[:3] + b"\x01" + CAPTURED[4:]).leaves  # type: ignore[union-attr]


def test_what_we_write_is_what_uwsgi_sends() -> None:
    assert announcement.write(Announcement("example.com", "127.0.0.1:40579", cores=6, weight=0)) == CAPTURED


def test_each_variable_has_its_place() -> None:
    pairs = {
        "key": "k",
        "address": "/run/x.sock",
        "modifier1": "5",
        "modifier2": "7",
        "cores": "4",
        "load": "2",
        "weight": "3",
        "backup": "1",
        "algo": "lrc",
        "proto": "http",
        "notify": "/run/n",
        "sni_key": "x",
        "vassal": "y",
        "unix": "1700000000",
    }
    body = [(name.encode(), value.encode()) for name, value in pairs.items()]
    data = packet([*body, (b"sign", b"\x00\xff")])
    assert announcement.read(data) == Announcement(
        "k", "/run/x.sock", False, 5, 7, 4, 2, 3, 1, "lrc", "http", "/run/n", 1700000000, b"\x00\xff", packet(body)[4:]
    )


@pytest.mark.parametrize("number", [b"", b"-1", b"x", b"1x", b"9" * 19, b" 1", b"\xff"])
def test_a_number_that_is_none_counts_for_nothing(number: bytes) -> None:
    read = announcement.read(packet([(b"key", b"k"), (b"address", b"a:1"), (b"cores", number), (b"weight", number)]))
    assert read
    assert (read.cores, read.weight) == (0, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xe0",
        b"GET / HTTP/1.0\r\n\r\n",
        CAPTURED[:-1],
        CAPTURED + b"\0",
        b"\x00" + CAPTURED[1:],
        framed(CAPTURED[4:-1]),
        framed(CAPTURED[4:-3]),
        framed(CAPTURED[4:] + b"\x01"),
        framed(CAPTURED[4:] + b"\x01\x00x"),
        packet([(b"", b"x"), (b"key", b"k"), (b"address", b"a:1")]),
        packet([(b"key", b"k")]),
        packet([(b"address", b"a:1")]),
        packet([(b"key", b"k" * 256), (b"address", b"a:1")]),
        packet([(b"key", b""), (b"address", b"a:1")]),
        packet([(b"key", b"k"), (b"address", b"a" * 256)]),
        packet([(b"key", b"k"), (b"address", b"a:1"), (b"x", b"y" * LARGEST)]),
    ],
)
def test_what_uwsgi_would_not_take_is_none(data: bytes) -> None:
    assert announcement.read(data) is None


@given(st.binary(max_size=LARGEST + 10))
def test_any_bytes_are_safe(data: bytes) -> None:
    announcement.read(data)


@given(st.binary(max_size=300))
def test_any_variables_are_safe(body: bytes) -> None:
    announcement.read(framed(body))


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.binary(max_size=60)), max_size=12),
    st.binary(min_size=1, max_size=255),
    st.binary(min_size=1, max_size=255),
    st.integers(0, 10**18 - 1),
    st.integers(0, 255),
)
def test_any_packet_of_the_encoder_is_read_as_meant(
    more: list[tuple[bytes, bytes]], key: bytes, address: bytes, load: int, command: int
) -> None:
    """Variables that we do not know stand anywhere between those that we do."""
    known = {b"key": key, b"address": address, b"load": str(load).encode()}
    pairs = [pair for pair in more if pair[0] not in (*known, b"sign")]
    pairs[len(pairs) // 2 : 0] = known.items()
    data = packet(pairs, command)
    read = announcement.read(data)
    assert read
    assert read.key.encode("utf-8", "surrogateescape") == key
    assert read.address.encode("utf-8", "surrogateescape") == address
    assert (read.load, read.leaves, read.signed) == (load, command != 0, data[4:])


@given(st.text(min_size=1, max_size=60), st.integers(0, 255), st.integers(0, 10**6), st.booleans())
def test_what_is_written_is_read(key: str, modifier: int, load: int, leaves: bool) -> None:
    meant = Announcement(key, "a:1", leaves, modifier, modifier, load, load, 2, notify="/n")
    if len(key.encode("utf-8", "surrogatepass")) > 255 or any("\ud800" <= char <= "\udfff" for char in key):
        return
    read = announcement.read(announcement.write(meant))
    assert read
    assert (read.key, read.leaves, read.modifier1, read.load, read.weight) == (key, leaves, modifier, load, 2)


@pytest.mark.servers
def test_the_real_program_announces_itself(tmp_path: Path) -> None:
    """uWSGI joins with the address it really has, and leaves when it stops."""
    program = shutil.which("uwsgi")
    assert program, "uwsgi is not installed"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(30)
        argv = [program, "-M", "--socket", "127.0.0.1:0", "--processes", "2", "--logto", str(tmp_path / "log")]
        argv += ["--subscribe-to", f"127.0.0.1:{sock.getsockname()[1]}:example.com:8000,5", "--die-on-term"]
        with subprocess.Popen(argv) as process:
            try:
                joined = announcement.read(sock.recv(65536))
            finally:
                process.terminate()
            while (left := announcement.read(sock.recv(65536))) and not left.leaves:
                pass
    assert joined
    assert (joined.key, joined.modifier1, joined.cores) == ("example.com:8000", 5, 2)
    assert left
    assert left.address == joined.address != "127.0.0.1:0"
