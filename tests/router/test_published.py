"""The pool as the supervisor publishes it, and as a worker reads it."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from multisite.config.read import read_home
from multisite.control.rundir import Access, RuntimeDir
from multisite.router import published
from multisite.router.announcement import Announcement
from multisite.router.pool import Pool
from multisite.router.published import LOST_AFTER, POOL, Publisher, Subscribed
from tests.servers.harness import eventually

A = Announcement("a.example", "127.0.0.1:1")


@pytest.fixture
def rundir(tmp_path: Path) -> RuntimeDir:
    (tmp_path / "moya.conf").write_text("[service]\nruntime_dir = run\n")
    found = RuntimeDir(read_home(str(tmp_path)))
    found.make()
    return found


def shown(worker: Subscribed, key: str) -> str:
    group = worker.find(key)
    return "|".join(map(str, group.nodes)) if group else ""


def test_a_worker_sees_what_is_published_at_once(rundir: RuntimeDir) -> None:
    """It looks for no file once it has found the number, until there is another."""
    pool, publisher = Pool(), Publisher(rundir)
    worker = Subscribed(rundir.path)
    assert worker.find("a.example") is None
    pool.take(A, 0)
    publisher.publish(pool)
    assert shown(worker, "a.example") == "127.0.0.1:1"
    pool.take(replace(A, address="127.0.0.1:2", algorithm="lrc"), 0)
    publisher.publish(pool)
    group = worker.find("a.example")
    assert group
    assert (shown(worker, "a.example"), group.algorithm) == ("127.0.0.1:1|127.0.0.1:2", "lrc")
    pool.take(replace(A, leaves=True), 0)
    pool.take(replace(A, address="127.0.0.1:2", leaves=True), 0)
    publisher.publish(pool)
    assert worker.find("a.example") is None
    assert list(worker.entries()) == []


def test_nodes_that_stay_keep_what_is_known_of_them(rundir: RuntimeDir) -> None:
    pool, publisher, worker = Pool(), Publisher(rundir), Subscribed(rundir.path)
    pool.take(A, 0)
    publisher.publish(pool)
    group = worker.find("a.example")
    pool.take(replace(A, key="b.example"), 0)
    publisher.publish(pool)
    assert worker.find("b.example")
    assert worker.find("a.example") is group
    pool.take(replace(A, weight=5), 0)
    publisher.publish(pool)
    assert worker.find("a.example") is not group


def test_nothing_is_written_when_nothing_is_new(rundir: RuntimeDir) -> None:
    pool, publisher = Pool(), Publisher(rundir)
    pool.take(A, 0)
    publisher.publish(pool)
    path = Path(rundir.path, "router", POOL)
    inode = path.stat().st_ino
    pool.take(replace(A, load=5), 1)
    publisher.publish(pool)
    assert path.stat().st_ino == inode


def test_a_worker_may_be_there_first(rundir: RuntimeDir) -> None:
    """And outlive the runtime directory."""
    worker = Subscribed(rundir.path)
    assert worker.find("a.example") is None
    pool, publisher = Pool(), Publisher(rundir)
    pool.take(A, 0)
    publisher.publish(pool)
    worker.look()
    assert shown(worker, "a.example") == "127.0.0.1:1"
    for path in Path(rundir.path, "router").iterdir():
        path.unlink()
    worker.look()
    assert shown(worker, "a.example") == "127.0.0.1:1", "what was published serves while nobody is there"
    pool.take(replace(A, address="127.0.0.1:2"), 0)
    Publisher(rundir).publish(pool)
    worker.look()
    assert shown(worker, "a.example") == "127.0.0.1:1|127.0.0.1:2"


def test_a_supervisor_that_comes_back_is_seen(rundir: RuntimeDir) -> None:
    """Its numbers go on where the last one's ended."""
    pool, worker = Pool(), Subscribed(rundir.path)
    pool.take(A, 0)
    Publisher(rundir).publish(pool)
    worker.look()
    assert shown(worker, "a.example") == "127.0.0.1:1"
    other = Pool()
    other.take(replace(A, address="127.0.0.1:2"), 0)
    Publisher(rundir).publish(other)
    assert shown(worker, "a.example") == "127.0.0.1:2"


def test_a_supervisor_that_is_silent_is_woken(rundir: RuntimeDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once in a while, and not while it shows that it lives."""
    woken: list[int] = []
    now = [100.0 + published.time.monotonic()]
    worker = Subscribed(rundir.path, lambda: woken.append(1))
    monkeypatch.setattr(published.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(published.time, "monotonic_ns", lambda: int(now[0] * 1e9))
    publisher = Publisher(rundir)
    publisher.beat()
    worker.look()  # which maps the number; nobody was known to live before
    assert len(woken) == 1
    for _ in range(10):
        now[0] += 1
        publisher.beat()
        worker.look()
    assert len(woken) == 1
    now[0] += LOST_AFTER + 1
    for _ in range(3):
        worker.look()
    assert len(woken) == 2


def test_for_how_long_it_has_been_silent(rundir: RuntimeDir) -> None:
    assert published.silence(rundir) == math.inf
    publisher = Publisher(rundir)
    assert published.silence(rundir) == math.inf
    publisher.beat()
    assert 0 <= published.silence(rundir) < 60
    publisher._number[published._BEAT] = 2**63
    assert published.silence(rundir) == math.inf, "of another time of the machine"
    Path(rundir.path, "router", published.NUMBER).write_bytes(b"")
    assert published.silence(rundir) == math.inf


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"a.example": 1}', b'{"a.example": ["", [["nowhere", 0, 0, 1, 0]]]}']
)
def test_what_cannot_be_read_is_told_once(rundir: RuntimeDir, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """What was known serves, and the next good one is taken."""
    pool, publisher, worker = Pool(), Publisher(rundir), Subscribed(rundir.path)
    pool.take(A, 0)
    publisher.publish(pool)
    assert worker.find("a.example")
    pool.take(replace(A, address="127.0.0.1:2"), 0)
    publisher.publish(pool)
    Path(rundir.path, "router", POOL).write_bytes(content)
    assert [shown(worker, "a.example") for _ in range(3)] == ["127.0.0.1:1"] * 3
    assert len(caplog.records) == 1
    pool.take(replace(A, address="127.0.0.1:3"), 0)
    publisher.publish(pool)
    assert shown(worker, "a.example") == "127.0.0.1:1|127.0.0.1:2|127.0.0.1:3"


def test_who_may_read(rundir: RuntimeDir) -> None:
    """The supervisor's user, and the group whose workers may ask it."""
    pool, publisher, folder = Pool(), Publisher(rundir), Path(rundir.path, "router")

    def modes() -> list[int]:
        return [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / POOL, folder / published.NUMBER)]

    pool.take(A, 0)
    publisher.publish(pool)
    assert modes() == [0o700, 0o600, 0o600]
    rundir.access = Access(os.getgid())
    pool.take(replace(A, address="127.0.0.1:2"), 0)
    publisher.publish(pool)
    assert modes() == [0o710, 0o640, 0o640]


READER = """
import sys, time
from multisite.router.published import Subscribed
worker = Subscribed(sys.argv[1])
worst = 0
while True:
    group = worker.find("a.example")
    if group and len(group.nodes) != int(group.algorithm == "lrc") + 1:
        sys.exit("half of a pool")
    if worker.find("end.example"):
        print("seen")
        break
"""


def test_no_worker_ever_sees_half_of_it(rundir: RuntimeDir) -> None:
    """Another process reads all the while."""
    pool, publisher = Pool(), Publisher(rundir)
    pool.take(A, 0)
    publisher.publish(pool)
    with subprocess.Popen([sys.executable, "-c", READER, rundir.path], stdout=subprocess.PIPE, text=True) as reader:
        for number in range(300):
            pool = Pool()
            pool.generation = number + 10
            pool.take(replace(A, algorithm=("wrr", "lrc")[number % 2]), 0)
            for other in range(number % 2):
                pool.take(replace(A, address=f"127.0.0.1:{other + 2}"), 0)
            publisher.published = -1
            publisher.publish(pool)
        pool.take(replace(A, key="end.example"), 0)
        publisher.publish(pool)
        assert reader.stdout
        assert reader.stdout.read() == "seen\n"


def test_a_failure_leaves_no_litter(rundir: RuntimeDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the number as it was, so that nobody reads anything."""
    pool, publisher = Pool(), Publisher(rundir)
    pool.take(A, 0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(published.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        publisher.publish(pool)
    assert os.listdir(Path(rundir.path, "router")) == [published.NUMBER]
    assert publisher.published == -1
    monkeypatch.undo()
    publisher.publish(pool)
    eventually(lambda: json.loads(Path(rundir.path, "router", POOL).read_text()))
