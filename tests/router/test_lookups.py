"""Mappers that ask Redis, a database or another package."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sqlite3
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.router import lookups
from multisite.router.groups import Group, Groups
from multisite.router.lookups import MOST_ANSWERS, MOST_DUE, MOST_THREADS, Lookup
from tests.servers.harness import eventually, free_port

DOMAINS = "SELECT node FROM map WHERE domain = :key ORDER BY node"


def shown(group: Group | None) -> str:
    return "|".join(map(str, group.nodes)) if group else ""


class Source:
    """Stands for whoever is asked: answers, fails or does not come back."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.asked: list[str] = []
        self.is_away = False
        self.comes_back = threading.Event()
        self.comes_back.set()

    def __call__(self, key: str) -> str | None:
        self.asked.append(key)
        self.comes_back.wait()
        if self.is_away:
            raise ConnectionError("away")
        return self.answers.get(key)

    def lookup(self, wait: float = 5.0, keep: float = 0.0) -> Lookup:
        return Lookup("test", self, Groups(), wait=wait, keep=keep, keep_none=keep)


@pytest.fixture
def source() -> Iterator[Source]:
    found = Source()
    yield found
    found.comes_back.set()


def test_an_answer_is_kept(source: Source) -> None:
    """That there is no node is one, too."""
    source.answers["a.example"] = "a:1|b:2"
    found = source.lookup(keep=3600)
    assert [shown(found.find("a.example")) for _ in range(3)] == ["a:1|b:2"] * 3
    assert [found.find("b.example") for _ in range(3)] == [None] * 3
    assert source.asked == ["a.example", "b.example"]


def test_an_old_answer_is_refreshed_beside_the_request(source: Source) -> None:
    source.answers["a.example"] = "a:1"
    found = source.lookup()
    assert shown(found.find("a.example")) == "a:1"
    source.comes_back.clear()
    source.answers["a.example"] = "a:2"
    assert [shown(found.find("a.example")) for _ in range(10)] == ["a:1"] * 10
    assert len(source.asked) <= 2, "a key is asked for once at a time"
    source.comes_back.set()
    eventually(lambda: shown(found.find("a.example")) == "a:2")


def test_while_nobody_answers_the_last_good_one_serves(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    source.answers["a.example"] = "a:1"
    found = source.lookup()
    assert shown(found.find("a.example")) == "a:1"
    source.is_away = True
    for _ in range(5):
        asked = len(source.asked)
        assert shown(found.find("a.example")) == "a:1"
        eventually(lambda asked=asked: len(source.asked) > asked or found.find("a.example") is None)  # type: ignore[misc]
    assert found.find("b.example") is None
    assert len([record for record in caplog.records if "ConnectionError: away" in record.getMessage()]) == 1
    source.is_away = False
    source.answers["b.example"] = "b:1"
    eventually(lambda: shown(found.find("b.example")) == "b:1")


def test_keys_that_somebody_makes_up_displace_nothing(source: Source) -> None:
    """Twenty thousand of them take no more room than there is, and who had a node has it, though nobody answers."""
    source.answers["a.example"] = "a:1"
    found = source.lookup()
    assert shown(found.find("a.example")) == "a:1"
    source.is_away = True
    for number in range(100):
        found.find(f"{number}.example")
    for number in range(20_000):
        found.find(f"{number}.example")
    assert len(found._unknown) <= MOST_ANSWERS
    assert len(found._answers) == 1
    assert shown(found.find("a.example")) == "a:1"


def test_what_waits_is_bounded(source: Source) -> None:
    """Nobody comes back, and everybody asks: who waited longest is let go, and nothing grows."""
    found = source.lookup(wait=0.001)
    source.comes_back.clear()
    for number in range(MOST_DUE + 500):
        assert found.find(f"{number}.example") is None
    assert len(found._due) <= MOST_DUE
    assert len(found._threads) <= MOST_THREADS
    source.answers["late.example"] = "a:1"
    source.comes_back.set()
    eventually(lambda: found.find("late.example"))


def test_one_that_does_not_come_back_blocks_no_other(source: Source) -> None:
    found = source.lookup(wait=0.5)
    source.answers["b.example"] = "b:1"
    held, free = source.comes_back, threading.Event()
    free.set()
    held.clear()
    assert found.find("a.example") is None
    source.comes_back = free
    assert shown(found.find("b.example")) == "b:1"
    held.set()


def test_many_ask_for_the_same_key_at_once(source: Source) -> None:
    source.answers["a.example"] = "a:1"
    found = source.lookup(keep=3600)
    source.comes_back.clear()
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(shown(found.find("a.example")))) for _ in range(20)]
    for thread in threads:
        thread.start()
    eventually(lambda: source.asked)
    source.comes_back.set()
    for thread in threads:
        thread.join()
    assert got == ["a:1"] * 20
    assert source.asked == ["a.example"]


@contextlib.contextmanager
def redis_server(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = shutil.which("redis-server")
    if not program:
        pytest.skip("NOT TESTED: redis-server is not installed")
    argv = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: _listens(port))
            yield process
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def test_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come late, go away and come back."""
    redis = pytest.importorskip("redis")
    monkeypatch.setattr(lookups, "KEEP", 0.0)
    port = free_port()
    found = lookups.of_redis(f"redis://127.0.0.1:{port}/0", Groups())
    assert found.find("a.example") is None
    with redis_server(port, tmp_path), redis.Redis(port=port) as client:
        client.set("a.example", "127.0.0.1:3031,5|127.0.0.1:3032")
        client.set("bytes.example", b"\xff\xfe")
        client.lpush("list.example", "127.0.0.1:1")
        eventually(lambda: found.find("a.example"))
        assert shown(found.find("a.example")) == "127.0.0.1:3031|127.0.0.1:3032"
        assert found.find("b.example") is None
        assert found.find("bytes.example") is None
        assert found.find("list.example") is None
    for _ in range(3):
        assert shown(found.find("a.example")) == "127.0.0.1:3031|127.0.0.1:3032"
    with redis_server(port, tmp_path), redis.Redis(port=port) as client:
        client.set("a.example", "127.0.0.1:9")
        eventually(lambda: shown(found.find("a.example")) == "127.0.0.1:9")


def test_a_redis_url_that_is_none() -> None:
    pytest.importorskip("redis")
    with pytest.raises(ValueError, match="Redis URL"):
        lookups.of_redis("nonsense", Groups())


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "map.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE map (domain TEXT, node TEXT)")
        rows = [("a.example", "127.0.0.1:1"), ("a.example", "127.0.0.1:2"), ("null.example", None)]
        connection.executemany("INSERT INTO map VALUES (?, ?)", rows)
        connection.commit()
    return path


def test_a_database(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is a node; one that has none is passed over; a relative path is below the home."""
    pytest.importorskip("sqlalchemy")
    monkeypatch.setattr(lookups, "KEEP", 0.0)
    found = lookups.of_sql("sqlite:///map.db", DOMAINS, str(database.parent), Groups())
    assert shown(found.find("a.example")) == "127.0.0.1:1|127.0.0.1:2"
    assert found.find("null.example") is None
    assert found.find("b.example") is None
    gone = database.rename(database.with_suffix(".gone"))
    for _ in range(3):
        assert shown(found.find("a.example")) == "127.0.0.1:1|127.0.0.1:2"
    database.unlink(missing_ok=True)
    gone.rename(database)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE map SET node = '127.0.0.1:9' WHERE domain = 'a.example'")
        connection.commit()
    eventually(lambda: "127.0.0.1:9" in shown(found.find("a.example")))


@pytest.mark.parametrize("key", ["x' OR '1'='1", "x'; DROP TABLE map; --", "%", ":key", "a.example'--"])
def test_a_key_is_never_text_of_the_query(database: Path, key: str) -> None:
    pytest.importorskip("sqlalchemy")
    found = lookups.of_sql(f"sqlite:///{database}", DOMAINS, "/", Groups())
    assert found.find(key) is None
    assert found.find("a.example"), "the table is still there"


def test_a_query_that_fails_is_told(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("sqlalchemy")
    found = lookups.of_sql(f"sqlite:///{database}", "SELECT node FROM nowhere", "/", Groups())
    assert found.find("a.example") is None
    assert "no such table: nowhere" in caplog.text


@pytest.mark.parametrize(
    ("url", "query", "reason"),
    [
        ("nonsense", DOMAINS, "Could not parse"),
        ("nobody://x", DOMAINS, "nobody"),
        ("sqlite:///x.db", "", "query is missing"),
    ],
)
def test_a_database_that_cannot_be_had(tmp_path: Path, url: str, query: str, reason: str) -> None:
    pytest.importorskip("sqlalchemy")
    with pytest.raises(ValueError, match=reason):
        lookups.of_sql(url, query, str(tmp_path), Groups())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that brings two mappers, as pip installs it."""
    (tmp_path / "brought_mappers.py").write_text(
        "def good(home):\n    return lambda key: '127.0.0.1:1' if key == home.rpartition('/')[2] else None\n"
        "def bad(home):\n    raise RuntimeError('no')\n"
    )
    info = tmp_path / "brought_mappers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brought-mappers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[multisite.mappers]\ngood = brought_mappers:good\nbad = brought_mappers:bad\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_package(package: Path) -> None:
    found = lookups.of_package("good", "/srv/a.example", Groups())
    assert found.name == "good"
    assert shown(found.find("a.example")) == "127.0.0.1:1"
    assert found.find("b.example") is None


def test_a_package_that_is_not_there(package: Path) -> None:
    with pytest.raises(ValueError, match=r"no package has a mapper other; there are: bad, good"):
        lookups.of_package("other", "/srv", Groups())
    with pytest.raises(ValueError, match="cannot make the mapper bad: no"):
        lookups.of_package("bad", "/srv", Groups())


def test_a_thread_is_started_by_the_first_key_only() -> None:
    """A worker whose mapper nobody asks has none; and it is forked without any."""
    source = Source()
    found = source.lookup()
    assert not found._threads
    found.find("a.example")
    for number in range(50):
        found.find(f"{number}.example")
    assert len(found._threads) == 1


def test_without_a_thread_a_request_goes_without_an_answer(
    source: Source, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And a later one has it."""
    source.answers["a.example"] = "a:1"
    found = source.lookup(wait=0.01)

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        assert [found.find("a.example") for _ in range(3)] == [None] * 3
    assert "can't start new thread" in caplog.text
    eventually(lambda: found.find("a.example"))


def test_memory_is_flat(source: Source) -> None:
    found = source.lookup(keep=3600)
    for number in range(MOST_ANSWERS + 100):
        found.find(f"{number}.example")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(10_000, 14_000):
            found.find(f"{number}.example")
        assert tracemalloc.get_traced_memory()[0] - before < 2_000_000  # of what 4,000 others had there were traces
    finally:
        tracemalloc.stop()
    assert len(found._unknown) == MOST_ANSWERS
