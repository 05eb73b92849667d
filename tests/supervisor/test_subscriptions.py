"""The supervisor's sockets for announcements, and what is known of nodes when it is killed."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from multisite.config.read import read_home
from multisite.control.rundir import RuntimeDir
from multisite.router import announcement, published
from multisite.router.announcement import Announcement
from multisite.router.pool import TOLERANCE
from multisite.router.published import Publisher, Subscribed
from multisite.supervisor.loop import Loop
from multisite.supervisor.subscriptions import Subscriptions
from tests.router.signing import Signer

from .harness import wait_until

A = Announcement("a.example", "127.0.0.1:1")


class Server:
    """A home's subscription server with its own loop, in place of a supervisor."""

    def __init__(self, path: Path, *lines: str) -> None:
        self.path = path
        self.conf(*(lines or (f"subscription_server = {path}/s.sock",)))
        self.home = read_home(str(path))
        self.rundir = RuntimeDir(self.home)
        self.rundir.make()
        self.loop, self.ahead = Loop(), 0
        self.server = Subscriptions(self.home, self.rundir, self.loop)
        self.server.tick(self.loop.now(), self.home)
        self.worker = Subscribed(self.rundir.path)

    def conf(self, *lines: str) -> None:
        head = ["[service]", "runtime_dir = run", "state_dir = state", "[router]"]
        (self.path / "moya.conf").write_text("\n".join([*head, *lines, ""]))

    def follow(self, *lines: str) -> None:
        """Take another configuration."""
        self.conf(*lines)
        self.home = read_home(str(self.path))
        self.ahead += 2
        self.server.tick(self.loop.now() + self.ahead, self.home)

    def say(self, *announced: Announcement | bytes, to: str = "s.sock") -> None:
        """Send announcements and have them taken."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            for each in announced:
                data = each if isinstance(each, bytes) else announcement.write(each)
                sock.sendto(data, str(self.path / to))
        before = sum(self.server.pool.counted.values())
        while sum(self.server.pool.counted.values()) < before + len(announced):
            self.loop.turn(5)
            self.server.tick(self.loop.now(), self.home)

    def kill(self) -> None:
        """Leave everything as a process does that is killed: nothing is stored, no file is removed."""
        for one in self.server._sockets.values():
            one.sock.close()
        self.loop.close()

    def known(self) -> list[str]:
        """The keys that a worker knows."""
        self.worker.look()
        return [key for key, _ in self.worker.entries()]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    yield found
    found.server.close()


def test_what_is_taken_is_known_to_workers_at_once(server: Server) -> None:
    server.say(A, replace(A, key="b.example"))
    assert server.known() == ["a.example", "b.example"]
    server.say(replace(A, leaves=True))
    assert server.known() == ["b.example"]


def test_sockets_follow_the_configuration(server: Server) -> None:
    """The others stay open, and so does the pool while there is any."""
    server.say(A)
    inode = os.stat(server.path / "s.sock").st_ino
    both = f"subscription_server = {server.path}/s.sock, {server.path}/t.sock"
    server.follow(both)
    server.say(replace(A, key="b.example"), to="t.sock")
    assert server.known() == ["a.example", "b.example"]
    assert os.stat(server.path / "s.sock").st_ino == inode
    server.follow(f"subscription_server = {server.path}/t.sock")
    assert not (server.path / "s.sock").exists()
    assert server.known() == ["a.example", "b.example"]
    for _ in range(2):
        server.follow("map = map.txt")
    assert not (server.path / "t.sock").exists()
    assert server.known() == []


def test_an_address_that_cannot_be_had_is_told_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """And had as soon as it is free; the others are not touched."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
        taken.bind(str(server.path / "taken"))
        lines = f"subscription_server = {server.path}/taken, nonsense, {server.path}/s.sock"
        for _ in range(3):
            server.follow(lines)
        server.say(A)
    told = [record.getMessage() for record in caplog.records]
    assert len([text for text in told if "another program receives there" in text]) == 1
    assert len([text for text in told if "subscription_server = nonsense: " in text]) == 1
    server.follow(lines)
    server.say(replace(A, key="b.example"), to="taken")
    assert server.known() == ["a.example", "b.example"]


def test_who_is_silent_is_gone(server: Server) -> None:
    server.say(A)
    server.server.tick(server.loop.now() + TOLERANCE - 1, server.home)
    assert server.known() == ["a.example"]
    server.server.tick(server.loop.now() + TOLERANCE + 1, server.home)
    assert server.known() == []


def test_what_was_signed_is_taken_once_though_we_are_killed(tmp_path: Path) -> None:
    """The moment after it was taken; a leave as little as a join."""
    (tmp_path / "keys").mkdir()
    signer, now = Signer(tmp_path / "keys", "a.example"), int(time.time())
    packets = [signer.packet(replace(A, leaves=leaves, unix=now + leaves)) for leaves in (False, True)]
    lines = f"subscription_server = {tmp_path}/s.sock", "subscription_keys = SHA1:keys"
    for number, packet in enumerate(packets):
        server = Server(tmp_path, *lines)
        assert len(server.server.pool) == number
        server.say(packet)
        server.kill()
    server = Server(tmp_path, *lines)
    server.say(*packets)
    assert server.server.pool.counted["replayed"] == 2
    assert not list(server.server.pool)
    server.server.close()


def test_nodes_outlive_a_supervisor_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long ago the last of them joined: who lives says so, and that is not stored each time."""
    server = Server(tmp_path)
    server.say(A)
    late = server.loop.now() + 3600
    monkeypatch.setattr(published.time, "monotonic", lambda: late)
    monkeypatch.setattr(published.time, "monotonic_ns", lambda: int(late * 1e9))
    server.say(A)
    server.kill()
    after = Server(tmp_path)
    assert [key for key, _, _ in after.server.pool] == ["a.example"]
    after.kill()
    late += TOLERANCE + 1
    assert not list(Server(tmp_path).server.pool), "nobody has heard of them for too long"


def test_a_disk_that_is_full_costs_a_while(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Announcements are taken meanwhile, and published when that is possible again."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    server.say(A)
    monkeypatch.setattr(Publisher, "publish", full)
    for number in range(5):
        server.say(replace(A, key=f"{number}.example"))
    assert server.known() == ["a.example"]
    monkeypatch.undo()

    def published_again() -> bool:
        server.server.tick(server.loop.now(), server.home)
        return len(server.known()) == 6

    wait_until(published_again)


@pytest.mark.parametrize("content", ["", "[]", '{"pool": 3}', '{"pool": {}, "numbers": [[1]], "counted": {}}'])
def test_a_state_that_cannot_be_read_costs_itself(tmp_path: Path, content: str) -> None:
    server = Server(tmp_path)
    server.say(A)
    server.kill()
    for path in (tmp_path / "state").rglob("*subscriptions*"):
        path.write_text(content)
    server = Server(tmp_path)
    server.say(replace(A, key="b.example"))
    assert "b.example" in server.known()
    server.server.close()
