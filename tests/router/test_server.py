"""The sockets at which nodes announce themselves."""

from __future__ import annotations

import os
import socket
import stat
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.config.model import Home
from multisite.config.read import read_home
from multisite.router import announcement
from multisite.router.announcement import LARGEST, Announcement
from multisite.router.pool import Pool
from multisite.router.server import COMPLAIN_EVERY, MOST_AT_ONCE, Socket, SubscriptionServer
from tests.descriptors import all_open
from tests.router.signing import Signer
from tests.router.test_announcement import packet
from tests.servers.harness import free_port

A = Announcement("example.com", "127.0.0.1:1")
NOBODY = (-1, -1)


class Served:
    """A server with clocks that only move when told."""

    def __init__(self, path: Path, *lines: str) -> None:
        self.now, self.wall = 1000.0, 1700000000.0
        self.path = path
        self.pool = Pool()
        self.server = SubscriptionServer(self.home(*lines), self.pool, lambda: self.now, lambda: self.wall)

    def home(self, *lines: str) -> Home:
        (self.path / "moya.conf").write_text("\n".join(["[router]", "subscription_server = 127.0.0.1:7000", *lines]))
        return read_home(str(self.path))

    def take(self, announced: Announcement | bytes, sender: str = "127.0.0.1", user: tuple[int, int] = NOBODY) -> str:
        data = announced if isinstance(announced, bytes) else announcement.write(announced)
        return self.server.take(data, sender, user)


def test_loopback_may_announce_unsigned(tmp_path: Path) -> None:
    found = Served(tmp_path)
    assert found.take(A) == "joined"
    assert found.take(A, "::1") == "refreshed"
    assert found.take(A, "::ffff:127.0.0.1") == "refreshed"
    assert found.take(A, "") == "refreshed"
    assert found.take(replace(A, leaves=True)) == "left"


def test_others_learn_how_to_sign(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once a minute; each of them is counted."""
    found = Served(tmp_path)
    assert [found.take(A, "10.0.0.9") for _ in range(100)] == ["refused"] * 100
    assert found.pool.counted == {"refused": 100}
    assert len(caplog.records) == 1
    told = caplog.records[0].getMessage()
    assert "'127.0.0.1:1' for 'example.com', from 10.0.0.9, is not signed; sign it (subscription_keys" in told
    assert "or name its network in subscription_allow" in told
    found.now += COMPLAIN_EVERY
    found.take(A, "10.0.0.9")
    assert len(caplog.records) == 2


def test_networks(tmp_path: Path) -> None:
    found = Served(tmp_path, "subscription_allow = 10.0.0.0/24, fe80::/10")
    assert found.take(A, "10.0.0.9") == "joined"
    assert found.take(A, "fe80::1%eth0") == "refreshed"
    assert found.take(A, "10.0.1.9") == "refused"
    assert found.take(A, "127.0.0.1") == "refused"


def test_with_keys_all_must_sign(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Unless a network is named besides; at a unix socket, too."""
    (tmp_path / "keys").mkdir()
    signer = Signer(tmp_path / "keys", "example.com")
    found = Served(tmp_path, "subscription_keys = SHA1:keys")
    signed = [signer.packet(replace(A, unix=1700000000 + number)) for number in range(3)]
    assert found.take(signed[0], "10.0.0.9") == "joined"
    assert found.take(signed[0], "10.0.0.9") == "replayed"
    assert found.take(signed[2], "10.0.0.9") == "refreshed"
    assert found.take(signed[1], "10.0.0.9") == "replayed"
    assert [found.take(A, sender) for sender in ("127.0.0.1", "")] == ["refused"] * 2
    assert found.take(signed[2][:-1] + bytes([signed[2][-1] ^ 1])) == "refused"
    assert "has a wrong signature" in caplog.text
    assert "is replayed" in caplog.text
    found.server.adopt(found.home("subscription_keys = SHA1:keys", "subscription_allow = 127.0.0.0/8"))
    assert found.take(replace(A, address="127.0.0.1:2")) == "joined"


def test_a_join_cannot_be_turned_into_a_leave(tmp_path: Path) -> None:
    """The command is not signed, but the number has been taken with the join."""
    (tmp_path / "keys").mkdir()
    signer = Signer(tmp_path / "keys", "example.com")
    found = Served(tmp_path, "subscription_keys = SHA1:keys")
    signed = signer.packet(replace(A, unix=1700000000))
    assert found.take(signed) == "joined"
    assert found.take(signed[:3] + b"\x01" + signed[4:]) == "replayed"
    assert len(found.pool) == 1


def test_keys_that_cannot_be_had_let_nobody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = Served(tmp_path, "subscription_keys = SHA1:nowhere")
    assert found.take(A) == "refused"
    assert "no announcement is accepted" in caplog.text
    (tmp_path / "nowhere").mkdir()
    found.server.adopt(found.home())
    assert found.take(A) == "joined"


def test_whose_file_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "owners").mkdir()
    (tmp_path / "owners" / "example.com").write_text("")
    us = (os.getuid(), os.getgid())
    found = Served(tmp_path, "subscription_credentials = owners")
    assert found.take(A, "", us) == "joined"
    assert found.take(A, "", (us[0] + 1, us[1])) == "refused"
    assert found.take(A, "127.0.0.1") == "refused"
    for number in range(50):
        assert found.take(replace(A, key=f"{number}.example"), "", us) == "refused"
    told = [record for record in caplog.records if "owner of the key's file" in record.getMessage()]
    assert len(told) == 1, "no line for each key that somebody makes up"
    assert [member.uid for _, _, members in found.pool for member in members] == [us[0]]


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[Socket]:
    found = Socket(str(tmp_path / "s.sock"))
    yield found
    found.close()


def send(one: Socket, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(one.path)
        for data in datagrams:
            sock.send(data)


def test_a_unix_socket_tells_whose_process_it_is(unix: Socket) -> None:
    send(unix, b"x")
    assert unix.receive() == (b"x", "", (os.getuid(), os.getgid()))
    assert unix.receive() is None
    assert stat.S_IMODE(os.stat(unix.path).st_mode) == 0o600


def test_a_group_may_be_let_in(tmp_path: Path) -> None:
    found = Socket(str(tmp_path / "s.sock"), os.getgid())
    assert stat.S_IMODE(os.stat(found.path).st_mode) == 0o660
    found.close()


def test_descriptors_that_somebody_sends_are_closed(unix: Socket) -> None:
    """Else whoever may announce could use up the supervisor's."""
    with open(os.devnull) as file, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(unix.path)
        before = all_open()
        for many in (1, 2, 5, 50):
            socket.send_fds(sock, [b"x"], [file.fileno()] * many)
            came = unix.receive()
            assert came
            assert came[2] == (os.getuid(), os.getgid())
        assert all_open() <= before


def test_one_that_is_too_long_is_cut_and_refused(tmp_path: Path, unix: Socket) -> None:
    """Though it begins like a good one."""
    found = Served(tmp_path)
    good = announcement.write(A)
    send(unix, good + bytes(LARGEST), packet([(b"key", b"k"), (b"address", b"a:1"), (b"x", b"y" * 60000)]), good)
    found.server.receive(unix)
    assert found.pool.counted == {"garbage": 2, "joined": 1}


def test_udp(tmp_path: Path) -> None:
    one, found = Socket(f"127.0.0.1:{free_port()}"), Served(tmp_path)
    where = one.sock.getsockname()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(announcement.write(A), where)
        assert one.receive() == (announcement.write(A), "127.0.0.1", NOBODY)
        sock.sendto(b"", where)
        sock.sendto(announcement.write(A), where)
    found.server.receive(one)
    assert found.pool.counted == {"garbage": 1, "joined": 1}
    one.close()


def test_a_flood_leaves_time_for_others(tmp_path: Path) -> None:
    one, found = Socket(f"127.0.0.1:{free_port()}"), Served(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(MOST_AT_ONCE + 10):
            sock.sendto(b"x", one.sock.getsockname())
    found.server.receive(one)
    assert found.pool.counted["garbage"] <= MOST_AT_ONCE
    one.close()


@pytest.mark.parametrize("address", ["", "nowhere", "127.0.0.1", "127.0.0.1:x", ":"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="neither HOST:PORT nor the path"):
        Socket(address)


def test_an_abstract_socket() -> None:
    one = Socket(f"@multisite-{os.getpid()}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", f"\0multisite-{os.getpid()}")
    assert one.receive() == (b"x", "", (os.getuid(), os.getgid()))
    one.close()


def test_a_socket_that_somebody_left_is_replaced(tmp_path: Path) -> None:
    """One that somebody has is not, nor what is no socket."""
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        with pytest.raises(OSError, match="another program receives there"):
            Socket(str(path))
    Socket(str(path)).close()
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        Socket(str(path))
    assert path.read_text() == "precious"


def test_a_new_node_is_told(tmp_path: Path) -> None:
    """In uWSGI's words, once; that nobody listens does no harm."""
    found, path = Served(tmp_path), tmp_path / "notify.sock"
    announced = replace(A, notify=str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.setblocking(False)
        assert [found.take(announced) for _ in range(3)] == ["joined", "refreshed", "refreshed"]
        assert sock.recv(1000) == b"[subscription ack] example.com => new node: 127.0.0.1:1"
        with pytest.raises(BlockingIOError):
            sock.recv(1000)
    for notify in (str(path), "/nowhere/x", "relative", "/" + "x" * 200, "/a\0b"):
        found.take(replace(A, leaves=True))
        assert found.take(replace(A, notify=notify)) == "joined"


def test_a_listener_that_does_not_read_delays_nobody(tmp_path: Path) -> None:
    found, path = Served(tmp_path), tmp_path / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        for number in range(1000):  # more than its queue holds
            assert found.take(replace(A, key=f"{number}.example", notify=str(path))) == "joined"


def test_no_name_forges_a_line_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    found = Served(tmp_path)
    for address in ("/run/x\nERROR all is lost", "/run/\x1b[2J", "/run/\udcff"):
        assert found.take(replace(A, address=address)) == "bad"
        assert found.take(replace(A, address=address), "10.0.0.1") == "refused"
        assert found.take(replace(A, key=address)) == "bad"
    assert not [record for record in caplog.records if set(record.getMessage()) & set("\n\x1b\udcff")]


@given(st.lists(st.tuples(st.binary(max_size=LARGEST + 10), st.sampled_from(["", "127.0.0.1", "10.0.0.1", "::1"]))))
def test_any_bytes_at_all_never_raise(served: Served, datagrams: list[tuple[bytes, str]]) -> None:
    before = sum(served.pool.counted.values())
    for data, sender in datagrams:
        assert isinstance(served.take(data, sender), str)
    assert sum(served.pool.counted.values()) == before + len(datagrams)


NAMES = b"key address modifier1 modifier2 weight cores load unix sign notify algo proto backup".split()
UNKNOWN = b"sni_key sni_crt sni_ca vassal new".split()


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=60)), max_size=12), st.integers(0, 255))
def test_any_values_at_all_never_raise(served: Served, pairs: list[tuple[bytes, bytes]], command: int) -> None:
    """Of the variables that we know, in any order, twice or not at all."""
    served.take(packet([*pairs, (b"key", b"k.example")], command))
    served.take(packet([(b"address", b"127.0.0.1:1"), *pairs], command))


@given(
    st.from_regex(r"[a-z0-9-]{1,20}\.[a-z]{2,9}(:[1-9][0-9]{0,3})?", fullmatch=True),
    st.from_regex(r"127\.0\.0\.1:[1-9][0-9]{0,3}|/run/[a-zA-Z0-9._-]{1,40}", fullmatch=True),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 10**6),
    st.integers(0, 65535),
    st.lists(st.tuples(st.sampled_from(UNKNOWN), st.binary(max_size=60))),
)
def test_any_packet_of_the_encoder_is_taken_as_meant(
    home: Path,
    key: str,
    address: str,
    modifier1: int,
    modifier2: int,
    load: int,
    weight: int,
    more: list[tuple[bytes, bytes]],
) -> None:
    """What we do not know changes nothing; the same bytes with another command take the node away."""
    found = Served(home)
    values = {"key": key, "address": address, "modifier1": modifier1, "modifier2": modifier2, "cores": 4}
    pairs = [(name.encode(), str(value).encode()) for name, value in {**values, "load": load, "weight": weight}.items()]
    data = packet([*pairs, *more])
    if len(data) > LARGEST:
        assert found.take(data) == "garbage"
        return
    assert found.take(data) == "joined"
    [(taken, algorithm, (member,))] = found.pool
    node = member.node
    assert (taken, algorithm, str(node)) == (key, "", address)
    assert (node.modifier1, node.modifier2, node.weight) == (modifier1, modifier2, max(1, weight))
    assert (member.cores, member.load, node.endpoint.protocol) == (4, load, "uwsgi")
    assert found.take(data[:3] + b"\x01" + data[4:]) == "left"
    assert not list(found.pool)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    home = tmp_path_factory.mktemp("served")
    (home / "keys").mkdir()
    return Served(home, "subscription_keys = SHA1:keys", "subscription_allow = 127.0.0.0/8")


def test_memory_is_flat(tmp_path: Path) -> None:
    """Whatever comes, however often, from wherever."""
    found = Served(tmp_path)

    def flood(begin: int) -> None:
        for number in range(begin, begin + 3000):
            found.take(number.to_bytes(8, "little"))
            found.take(replace(A, key=f"{number}.example/x"))
            found.take(replace(A, address=f"nowhere{number}"))
            found.take(replace(A, key=f"{number}.example"), f"10.0.{number % 250}.1")

    flood(0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        flood(3000)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
