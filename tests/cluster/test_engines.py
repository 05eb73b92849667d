"""The same promises on Redis and on etcd, with the real programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from multisite.cluster import engines
from multisite.cluster.engines import open_registry
from multisite.cluster.redisengine import MOST_NEW
from multisite.cluster.registry import FIGURES, EngineAway, Registry, Snapshot, Version
from multisite.config.model import ClusterOptions, Home
from tests.servers.harness import eventually

from . import programs
from .programs import Engine

pytestmark = pytest.mark.servers

LONG, SHORT = 60.0, 2.0  # seconds to live: longer than any test, and the shortest that etcd has


@pytest.fixture(scope="module", params=list(programs.ENGINES))
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with programs.running(request.param, tmp_path_factory.mktemp("engine")) as started:
        yield started


@pytest.fixture
def url(engine: Engine, request: pytest.FixtureRequest) -> str:
    """A cluster of each test's own."""
    name = "".join(letter for letter in request.node.name if letter.isalnum())
    return f"{engine.url}#{name}"


@pytest.fixture
def one(url: str) -> Registry:
    return open_registry(url)


@pytest.fixture
def other(url: str) -> Registry:
    return open_registry(url)


def test_entries_of_all_are_seen_by_all(one: Registry, other: Registry) -> None:
    empty = other.version()
    assert other.snapshot().entries == {}
    one.announce("node", "10.0.0.1:80", '{"a": "ä"}', LONG)
    other.announce("pool", "a/b c|http://x", "1", LONG)
    found = one.snapshot()
    assert found.entries == {"node": {"10.0.0.1:80": '{"a": "ä"}'}, "pool": {"a/b c|http://x": "1"}}
    assert found == other.snapshot()
    assert found.version.epoch == empty.epoch
    assert found.version != empty


def test_the_version_tells_of_what_is_new_changed_or_gone(one: Registry, other: Registry) -> None:
    seen = [other.version()]

    def is_new() -> bool:
        seen.append(other.version())
        return seen[-1] != seen[-2]

    one.announce("node", "a", "1", LONG)
    assert is_new()
    one.announce("node", "a", "1", LONG)
    assert not is_new()
    one.announce("node", "a", "2", LONG)
    assert is_new()
    one.withdraw("node", "a")
    assert is_new()
    assert other.snapshot().entries == {}


def test_what_is_new_since_a_version_suffices_until_anything_is_gone(one: Registry, other: Registry) -> None:
    for number in range(3):
        one.announce("node", str(number), "1", LONG)
    first = other.snapshot(Version("another", 1))
    assert first.is_whole
    assert other.snapshot(first.version) == Snapshot(first.version, {}, is_whole=False)
    one.announce("node", "1", "1", LONG)
    one.announce("node", "2", "2", LONG)
    one.announce("pool", "a b", "ä", LONG)
    second = other.snapshot(first.version)
    assert second == Snapshot(second.version, {"node": {"2": "2"}, "pool": {"a b": "ä"}}, is_whole=False)
    assert other.snapshot(second.version).entries == {}
    one.withdraw("node", "0")
    one.announce("node", "3", "1", LONG)
    third = other.snapshot(second.version)
    assert third.is_whole
    assert third.entries == {"node": {"1": "1", "2": "2", "3": "1"}, "pool": {"a b": "ä"}}
    one.withdraw("node", "3")
    one.announce("node", "3", "1", LONG)
    assert other.snapshot(third.version).is_whole


def test_of_many_new_entries_all_arrive(one: Registry, other: Registry) -> None:
    """More than a script of Redis can hold at once."""
    one.announce("node", "a", "1", LONG)
    version = other.snapshot().version
    for number in range(MOST_NEW + 1):
        one.announce("pool", str(number), "1", LONG)
    assert len(other.snapshot(version).entries["pool"]) == MOST_NEW + 1


def test_an_entry_that_nobody_confirms_goes(one: Registry, other: Registry) -> None:
    one.announce("node", "a", "1", SHORT)
    seen = other.version()
    eventually(lambda: other.version() != seen)
    assert other.snapshot().entries == {}


def test_figures_are_no_hint(one: Registry, other: Registry) -> None:
    """A hint of what was before may come late; if figures were one, there would always be another."""

    def hints(kind: str) -> bool:
        seen = other.version()
        one.announce(kind, "a", str(seen.number), LONG)
        assert other.version() != seen
        return other.changes(SHORT)

    eventually(lambda: hints("node"))
    eventually(lambda: not hints(FIGURES))
    eventually(lambda: hints("node"))


def test_a_change_is_hinted_at(one: Registry, other: Registry) -> None:
    count = 0

    def comes() -> bool:
        nonlocal count
        count += 1
        one.announce("node", "a", str(count), LONG)
        return other.changes(1.0)

    eventually(comes)


def test_a_lease_has_one_owner(one: Registry, other: Registry) -> None:
    number = one.lease("blog", "a", LONG)
    assert number
    assert other.lease("blog", "b", LONG) is None
    assert one.lease("blog", "a", LONG) == number
    assert other.holder("blog") == ("a", number)
    assert other.holder("shop") is None
    one.release("blog", "b", number)
    one.release("blog", "a", number + 1)
    assert other.holder("blog") == ("a", number)


def test_the_number_of_a_lease_grows(one: Registry, other: Registry) -> None:
    first = one.lease("blog", "a", LONG)
    assert first
    one.release("blog", "a", first)
    second = other.lease("blog", "b", LONG)
    assert second
    assert second > first
    other.release("blog", "b", second)
    third = one.lease("blog", "a", LONG)
    assert third
    assert third > second
    other.release("blog", "b", second)  # late
    assert one.holder("blog") == ("a", third)


def test_a_lease_that_is_not_renewed_is_free(one: Registry, other: Registry) -> None:
    first = one.lease("blog", "a", SHORT)
    assert first
    eventually(lambda: other.lease("blog", "b", LONG))
    assert one.lease("blog", "a", SHORT) is None
    held = one.holder("blog")
    assert held
    assert held[0] == "b"
    assert held[1] > first


def test_an_owner_who_starts_again_still_has_its_lease(one: Registry, other: Registry) -> None:
    number = one.lease("blog", "a", LONG)
    assert other.lease("blog", "a", LONG) == number


@pytest.mark.parametrize("name", list(programs.ENGINES))
def test_an_engine_that_lost_its_data_has_another_life(name: str, tmp_path: Path) -> None:
    engine = programs.ENGINES[name](tmp_path / "engine")
    registry = open_registry(engine.url)
    with pytest.raises(EngineAway):
        registry.version()
    try:
        engine.start()
        registry.announce("node", "a", "1", LONG)
        before, lease = registry.version(), registry.lease("blog", "a", LONG)
        engine.kill()
        with pytest.raises(EngineAway):
            registry.announce("node", "a", "2", LONG)
        engine.empty()
        engine.start()
        eventually(lambda: _answers(registry))
        assert registry.version().epoch != before.epoch
        eventually(lambda: _announces(registry))
        assert registry.snapshot().entries == {"node": {"a": "1"}}
        assert registry.lease("blog", "a", LONG)
        assert lease
    finally:
        engine.kill()


def _answers(registry: Registry) -> bool:
    try:
        registry.version()
    except EngineAway:
        return False
    return True


def _announces(registry: Registry) -> bool:
    try:
        registry.announce("node", "a", "1", LONG)
    except EngineAway:
        return False
    return "node" in registry.snapshot().entries


def test_sentinel_leads_to_the_new_master(tmp_path: Path) -> None:
    first = programs.redis(tmp_path / "first")
    second = programs.redis(tmp_path / "second", "--replicaof", "127.0.0.1", str(first.port))
    watcher = programs.sentinel(tmp_path / "sentinel", first.port)
    try:
        for engine in (first, second, watcher):
            engine.start()
        registry = open_registry(watcher.url)
        eventually(lambda: _announces(registry))
        replica = open_registry(second.url)
        eventually(lambda: b"slave0" in _info(watcher.port))
        first.kill()
        eventually(lambda: _announces(registry))
        assert replica.snapshot().entries == {"node": {"a": "1"}}
    finally:
        for engine in (first, second, watcher):
            engine.kill()


def _info(port: int) -> bytes:
    import redis

    found = redis.Redis(port=port).execute_command("SENTINEL", "REPLICAS", "main")
    return b"slave0" if found else b""


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("consul://10.0.0.1", "there is no engine consul; there are: etcd, etcds, redis, rediss, sentinel"),
        ("sentinel://10.0.0.1", "the name of the master is missing"),
        ("etcd://me@10.0.0.1", "neither a user nor a path"),
    ],
)
def test_urls_that_name_no_engine(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        open_registry(url)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_url: str) -> Registry:
        raise ModuleNotFoundError("No module named 'etcd3gw.client'", name="etcd3gw.client")

    monkeypatch.setitem(engines._OWN, "etcd", (missing, "etcd"))
    with pytest.raises(ValueError, match=r"the library etcd3gw is missing; pip install 'multisite-wsgi\[etcd\]'"):
        open_registry("etcd://10.0.0.1")


def test_keys_for_other_programs_follow_what_is_published(one: Registry, other: Registry, url: str) -> None:
    prefixes = (f"x-{url.rpartition('#')[2]}/routers/", f"x-{url.rpartition('#')[2]}/services/")
    many = {f"{prefixes[0]}{number}": str(number) for number in range(250)}
    one.publish(prefixes, {**many, f"{prefixes[1]}a": "1"})
    assert written(url, prefixes) == {**many, f"{prefixes[1]}a": "1"}
    other.publish(prefixes, {f"{prefixes[0]}1": "one", f"{prefixes[1]}b": "2"})
    assert written(url, prefixes) == {f"{prefixes[0]}1": "one", f"{prefixes[1]}b": "2"}
    one.publish(prefixes, {})
    assert written(url, prefixes) == {}


def written(url: str, prefixes: tuple[str, ...]) -> dict[str, str]:
    """What the program's own client finds."""
    port = url.partition("#")[0].removesuffix("/0").rpartition(":")[2]
    if url.startswith("redis"):
        import redis

        client = redis.Redis(port=int(port), decode_responses=True)
        return {key: client.get(key) for prefix in prefixes for key in client.scan_iter(f"{prefix}*")}
    import etcd3gw

    found: dict[str, str] = {}
    for prefix in prefixes:
        for value, about in etcd3gw.client("127.0.0.1", int(port)).get_prefix(prefix):
            found[about["key"].decode()] = value.decode()
    return found


@pytest.mark.parametrize(
    ("url", "reason", "shown"),
    [
        ("redis://me:secret@10.0.0.1", "", ""),
        ("etcd://me:secret@10.0.0.1", "neither a user nor a path", "etcd://10.0.0.1"),
        ("me:secret@10.0.0.1", "not a URL", ""),
        ("redis://:secret#1@10.0.0.1", "its @ is behind", ""),
        ("redis://10.0.0.1:x?password=secret", "no port", ""),
        ("redis://me:secret@10.0.0.1,10.0.0.2", "several hosts", "redis://10.0.0.1,10.0.0.2"),
    ],
)
def test_check_reports_a_url_without_its_password(url: str, reason: str, shown: str) -> None:
    found = engines.problems(Home("/x", "/x/moya.conf", cluster=ClusterOptions(url=url)))
    assert [(problem.key, problem.value) for problem in found] == ([("url", shown)] if reason else [])
    assert all(reason in problem.reason and problem.remedy for problem in found)
    assert "secret" not in str(found)


def test_an_engine_of_another_package_has_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make(url: str) -> Registry:
        made.append(url)
        return open_registry("redis://127.0.0.1:1")

    class Found:
        name = "consul"

        @staticmethod
        def load() -> Callable[[str], Registry]:
            return make

    def entry_points(group: str, name: str = "consul") -> list[type[Found]]:
        return [Found] if (group, name) == (engines.GROUP, "consul") else []

    monkeypatch.setattr("importlib_metadata.entry_points", entry_points)
    assert open_registry("consul://10.0.0.1")
    assert made == ["consul://10.0.0.1"]


def test_what_is_published_needs_an_engine() -> None:
    found = engines.problems(Home("/x", "/x/moya.conf", cluster=ClusterOptions(publish="traefik")))
    assert [(problem.key, problem.remedy) for problem in found] == [("publish", "set url, too: redis://10.0.0.1")]
