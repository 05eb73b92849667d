"""From a host that no site claims to its nodes, in a worker."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multisite.router import router as routers
from multisite.router.announcement import Announcement
from multisite.router.pool import Pool
from multisite.router.published import Publisher
from tests.backends import Backend, exactly, take
from tests.homes import MOYA_CONF, Answer, TestHome
from tests.servers.harness import eventually

KEY = "UWSGI_FASTROUTER_KEY"


def http(name: str) -> Callable[[socket.socket], None]:
    """Answers with its name."""

    def talk(wire: socket.socket) -> None:
        take(wire)
        body = name.encode()
        wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    return talk


def uwsgi(wire: socket.socket) -> None:
    """Answers with the modifiers and the host that it was sent."""
    modifier1, size, modifier2 = struct.unpack("<BHB", exactly(wire, 4))
    data, values = exactly(wire, size), []
    while data:
        length = int.from_bytes(data[:2], "little")
        values.append(data[2 : 2 + length])
        data = data[2 + length :]
    host = dict(zip(values[::2], values[1::2], strict=True))[b"HTTP_HOST"]
    wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n%d %d %b" % (modifier1, modifier2, host))


class RouterHome(TestHome):
    """A home with a [router] and nodes at sockets in its folder."""

    def __init__(self, path: Path, *lines: str, service: str = "") -> None:
        self.stack = contextlib.ExitStack()
        super().__init__(path, self.text(lines, service))

    @staticmethod
    def text(lines: tuple[str, ...], service: str = "") -> str:
        return "\n".join([MOYA_CONF.replace("[defaults]", f"{service}\n[defaults]"), "[router]", *lines, ""])

    def conf(self, *lines: str, service: str = "") -> None:
        """Write moya.conf anew, which is noticed."""
        draft = self.path / "draft"
        draft.write_text(self.text(lines, service))
        draft.replace(self.path / "moya.conf")
        self.later()

    def node(self, name: str, talk: Callable[[socket.socket], None] | None = None) -> Backend:
        """Have a node there that answers with its name."""
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        return self.stack.enter_context(Backend(path, talk or http(name)))

    def map(self, **lines: str) -> None:
        """Write the mapping file; dots of hosts are underscores."""
        draft = self.path / "draft"
        draft.write_text("".join(f"{key.replace('_', '.')} {nodes}\n" for key, nodes in lines.items()))
        draft.replace(self.path / "map.txt")

    def at(self, name: str) -> str:
        """The text of an HTTP node."""
        return f"http+unix:{self.path / name}"

    @property
    def router(self) -> routers.Router:
        found: Any = self.service._router
        assert isinstance(found, routers.Router)
        return found

    def got(self, host: str, **environ: Any) -> str:
        """Who answers: the body where that is 200, else the status."""
        answer = self.get(host, **environ)
        return answer.text if answer.status == 200 else str(answer.status)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., RouterHome]]:
    with contextlib.ExitStack() as stack:

        def made(*lines: str, **more: str) -> RouterHome:
            home = RouterHome(tmp_path, *lines, **more)
            stack.enter_context(home.stack)
            return home

        yield made


Make = Callable[..., RouterHome]


def test_sites_come_first(make: Make) -> None:
    """Also one that is enabled when its host led to a node until then."""
    home = make("map = map.txt")
    home.node("n")
    home.hello("site")
    home.map(site_test=home.at("n"), other_test=home.at("n"))
    assert home.got("site.test") == "site"
    assert home.got("other.test") == "n"
    assert home.got("none.test") == "404"
    home.hello("other")
    home.later()
    assert home.got("other.test") == "other"
    home.disable("other")
    home.later()
    assert home.got("other.test") == "n"


def test_a_pattern_of_a_site_comes_first_too(make: Make) -> None:
    home = make("map = map.txt")
    home.node("n")
    home.hello("site", domains="*.many.test")
    home.map(a_many_test=home.at("n"))
    assert home.got("a.many.test") == "site"


def test_mappers_are_asked_in_their_order(make: Make, tmp_path: Path) -> None:
    """Map, pattern, announced nodes, base, code, to."""
    lines = [f"pattern = http+unix:{tmp_path}/p/%s", "subscription_server = 127.0.0.1:7000", "map = map.txt"]
    home = make(*lines, "base = b", "code = mapper.py:get", f"to = http+unix:{tmp_path}/to")
    order = ["map", "p/a.test", "announced", "b/a.test", "code", "to"]
    for name in order:
        home.node(name, uwsgi if name.startswith("b/") else None)
    home.map(a_test=home.at("map"))
    (tmp_path / "mapper.py").write_text(f"def get(key): return {home.at('code')!r} if key == 'a.test' else None")
    publish(home, Announcement("a.test", str(tmp_path / "announced"), protocol="http"))
    assert home.got("a.test") == "map"
    home.map()
    home.router.mappers[0].read()  # type: ignore[attr-defined]
    assert home.got("a.test") == "p/a.test"
    (tmp_path / "p" / "a.test").unlink()
    home.router.mappers[1].look()
    assert home.got("a.test") == "announced"
    publish(home)
    assert home.got("a.test") == "0 0 a.test"
    (tmp_path / "b" / "a.test").unlink()
    home.router.mappers[3].look()
    assert home.got("a.test") == "code"
    assert home.got("b.test") == "to"
    assert [mapper.name for mapper in home.router.mappers] == ["map", "pattern", "subscription", "base", "code", "to"]


def publish(home: RouterHome, *announced: Announcement) -> None:
    """Stand for the supervisor."""
    from multisite.config.read import read_home
    from multisite.control.rundir import RuntimeDir

    pool, rundir = Pool(), RuntimeDir(read_home(str(home.path)))
    rundir.make()
    for each in announced:
        assert pool.take(each, 0) == "joined"
    publisher = Publisher(rundir)
    publisher.publish(pool)
    publisher.beat()


def test_a_key_with_its_port_comes_first(make: Make) -> None:
    home = make("map = map.txt")
    for name in ("with", "without"):
        home.node(name)
    (home.path / "map.txt").write_text(f"a.test:8000 {home.at('with')}\na.test {home.at('without')}\n")
    assert home.got("a.test:8000") == "with"
    assert home.got("a.test:9000") == "without"
    assert home.got("a.test") == "without"


def test_modifiers_and_the_host_are_passed_on(make: Make) -> None:
    home = make("map = map.txt")
    home.node("u", uwsgi)
    home.map(a_test=f"{home.path}/u,5,7", b_test=f"unix:{home.path}/u")
    assert home.got("a.test") == "5 7 a.test"
    assert home.got("B.test:8000") == "0 0 B.test:8000"


class Peer:
    """Stands for the connection of a client."""

    def __init__(self, address: object) -> None:
        self._address = address

    def getpeername(self) -> object:
        if isinstance(self._address, OSError):
            raise self._address
        return self._address


def test_who_may_name_the_key(make: Make) -> None:
    """A trusted peer, whoever the client is that he speaks for; what he names belongs to that request alone."""
    home = make("map = map.txt")
    for name in ("named", "host"):
        home.node(name)
    home.map(named_test=home.at("named"), host_test=home.at("host"))
    for _ in range(2):
        assert home.got("host.test", **{KEY: "named.test"}) == "named", "a server that shows no connection"
        assert home.got("host.test") == "host"
        for address, found in (
            (("127.0.0.1", 1), "named"),
            ("", "named"),
            (("::1", 1, 0, 0), "named"),
            (("10.0.0.9", 1), "host"),
            (OSError(), "host"),
        ):
            told = {KEY: "named.test", "gunicorn.socket": Peer(address), "REMOTE_ADDR": "10.9.9.9"}
            assert home.got("host.test", **told) == found
        assert home.got("host.test", **{KEY: "../named.test"}) == "404"
        assert home.got("host.test", **{KEY: "unknown"}) == "404"
        assert home.got("unknown.test", **{KEY: "NAMED.test"}) == "named"
        assert home.got("host.test", **{KEY: ""}) == "host"


def test_a_header_makes_no_key(make: Make) -> None:
    home = make("map = map.txt")
    for name in ("named", "host"):
        home.node(name)
    home.map(named_test=home.at("named"), host_test=home.at("host"))
    assert home.got("host.test", HTTP_UWSGI_FASTROUTER_KEY="named.test") == "host"


def test_a_host_that_a_front_end_names(make: Make) -> None:
    """Whatever key somebody who is not trusted sends besides."""
    home = make("map = map.txt", service="host_header = X-Canonical-Host")
    for name in ("named", "host"):
        home.node(name)
    home.map(named_test=home.at("named"), host_test=home.at("host"))
    told = {"HTTP_X_CANONICAL_HOST": "named.test"}
    for _ in range(2):
        assert home.got("host.test", **told) == "named"
        assert home.got("host.test", REMOTE_ADDR="10.0.0.9", **told) == "host"
        assert home.got("host.test", **told, **{KEY: "x", "gunicorn.socket": Peer(("10.0.0.9", 1))}) == "named"


@pytest.mark.parametrize("host", ["a..b", "a/b", "..", "x" * 300])
def test_a_bad_host_is_400(make: Make, tmp_path: Path, host: str) -> None:
    home = make("map = map.txt", f"to = http+unix:{tmp_path}/n")
    assert home.get(host).status == 400


def test_without_a_node_there_is_a_page(make: Make) -> None:
    """404 for a key that nobody knows, 503 with a time where no node can be reached."""
    home = make("map = map.txt")
    home.map(dead_test=f"{home.path}/nowhere|127.0.0.1:1")
    answer: Answer = home.get("none.test")
    assert answer.status == 404
    for _ in range(5):
        answer = home.get("dead.test")
        assert (answer.status, answer.headers["retry-after"]) == (503, str(routers.RETRY_AFTER))


def test_one_that_is_dead_is_left_out(make: Make) -> None:
    home = make("map = map.txt", "grace = 1h")
    home.node("a")
    home.node("b")
    home.map(two_test=f"{home.at('gone')}|{home.at('a')}|{home.at('b')}")
    got = Counter(home.got("two.test") for _ in range(30))
    assert set(got) == {"a", "b"}
    assert got["a"] == pytest.approx(15, abs=2)


def test_fallback_nodes(make: Make) -> None:
    """For a key that nobody knows, and where every node is dead."""
    home = make("map = map.txt")
    home.conf("map = map.txt", f"fallback = {home.at('f')}")
    home.node("f")
    home.node("n")
    home.map(n_test=home.at("n"), dead_test=home.at("gone"))
    for _ in range(3):
        assert [home.got(host) for host in ("n.test", "dead.test", "none.test")] == ["n", "f", "f"]


def test_the_default_site_comes_before_fallback_nodes(make: Make) -> None:
    """For keys that nobody knows; nodes that cannot be reached are stood in for all the same."""
    home = make("map = map.txt")
    home.conf("map = map.txt", f"fallback = {home.at('f')}", service="default_site = site")
    home.hello("site")
    home.node("f")
    home.node("n")
    home.map(n_test=home.at("n"), dead_test=home.at("gone"))
    for _ in range(3):
        assert [home.got(host) for host in ("n.test", "dead.test", "none.test")] == ["n", "f", "site"]


def test_a_key_that_goes_away_is_the_default_sites(make: Make) -> None:
    """Though its host has been answered by a node until then, and comes back."""
    home = make("map = map.txt", service="default_site = site")
    home.hello("site")
    home.node("n")
    home.map(n_test=home.at("n"))
    assert [home.got("n.test") for _ in range(3)] == ["n"] * 3
    home.map()
    home.router.mappers[0].read()  # type: ignore[attr-defined]
    assert [home.got("n.test") for _ in range(3)] == ["site"] * 3
    home.map(n_test=home.at("n"))
    home.router.mappers[0].read()  # type: ignore[attr-defined]
    assert [home.got("n.test") for _ in range(3)] == ["n"] * 3


def test_a_key_that_goes_away_is_404(make: Make) -> None:
    home = make("map = map.txt")
    home.node("n")
    home.map(n_test=home.at("n"))
    assert home.got("n.test") == "n"
    home.map()
    home.router.mappers[0].read()  # type: ignore[attr-defined]
    assert home.got("n.test") == "404"


def test_a_changed_file_is_noticed_by_requests_alone(make: Make) -> None:
    home = make("map = map.txt")
    home.node("n")
    home.map()
    assert home.got("n.test") == "404"
    home.map(n_test=home.at("n"))
    eventually(lambda: home.got("n.test") == "n")


def test_without_a_thread_files_are_read_later(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make("map = map.txt")
    home.node("n")
    home.map()
    assert home.got("n.test") == "404"
    home.map(n_test=home.at("n"))

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        home.router._look_at = 0.0
        assert home.got("n.test") == "404"
    eventually(lambda: home.got("n.test") == "n")


def test_the_configuration_is_followed(make: Make) -> None:
    """A router comes, keeps what it knows where nothing of it has changed, and goes."""
    home = make("map = map.txt")
    home.node("n")
    home.map(n_test=home.at("n"))
    assert home.got("n.test") == "n"
    first = home.router
    home.hello("site")
    home.later()
    assert home.got("site.test") == "site"
    assert home.router is first
    home.conf("map = map.txt", "grace = 5s")
    assert home.got("n.test") == "n"
    assert home.router is not first
    home.conf()
    assert home.got("n.test") == "404"
    assert home.service._router is None


def test_a_mapper_that_cannot_be_had_is_left_out(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    home = make("map = map.txt", "redis = nonsense", "code = nonsense", "sql = sqlite://", "mappers = nobodys")
    home.node("n")
    home.map(n_test=home.at("n"))
    assert home.got("n.test") == "n"
    assert [mapper.name for mapper in home.router.mappers] == ["map"]
    for option in ("redis", "code", "sql", "mappers"):
        assert f"[router] {option} = " in caplog.text


def test_turns_go_on_while_nodes_stay(make: Make) -> None:
    """Whatever else changes in the file."""
    home = make("map = map.txt")
    for name in "ab":
        home.node(name)
    both = f"{home.at('a')}|{home.at('b')}"
    home.map(two_test=both)
    got = []
    for number in range(6):
        got.append(home.got("two.test"))
        home.map(two_test=both, **{f"other{number}_test": "a:1"})
        home.router.mappers[0].read()  # type: ignore[attr-defined]
    assert got == ["a", "b"] * 3


def test_the_documented_function_alternates(make: Make) -> None:
    """From the first request on, over WSGI."""
    from tests.router.test_code import ROUND_ROBIN

    home = make("code = mapper.py:get")
    for name in "abd":
        home.node(name)
    text = ROUND_ROBIN.replace("127.0.0.1:3031", home.at("a")).replace("192.168.0.100:3032", home.at("b"))
    (home.path / "mapper.py").write_text(text.replace("192.168.0.1:1717", home.at("d")))
    assert [home.got("example.com") for _ in range(6)] == ["a", "b"] * 3
    assert home.got("other.test") == "d"


def test_what_is_remembered_of_hosts_is_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a mapper knows every host, anybody can make them up."""
    from multisite.dispatch import dispatcher
    from multisite.router import counts, groups, lookups

    for module, name in (
        (dispatcher, "MOST_HOSTS"),
        (routers, "MOST_DESTINATIONS"),
        (counts, "MOST_APART"),
        (groups, "MOST_GROUPS"),
        (lookups, "MOST_ANSWERS"),
    ):
        monkeypatch.setattr(module, name, 50)
    home = make("code = mapper.py:get")
    home.node("n")
    (home.path / "mapper.py").write_text(f"def get(key): return {home.at('n')!r}")

    def ask(begin: int, many: int) -> None:
        for number in range(begin, begin + many):
            assert home.got(f"{number}.test") == "n"

    ask(0, 150)
    tracemalloc.start()
    try:
        ask(1000, 300)
        ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/multisite/*")])
        assert sum(each.size for each in ours.statistics("filename")) < 200_000
    finally:
        tracemalloc.stop()
    assert len(home.router._destinations) <= 50
    assert len(home.service._memory) <= 50


def test_hosts_that_nobody_knows_are_not_remembered(make: Make) -> None:
    home = make("map = map.txt", "base = nodes")
    for number in range(50):
        assert home.got(f"{number}.test") == "404"
    assert not home.router._destinations
    assert not home.service._memory


def test_a_hostile_host_never_leaves_its_folder(make: Make) -> None:
    home = make("base = nodes", f"pattern = {os.sep}nowhere/%s")
    home.node("outside")
    (home.path / "nodes").mkdir()
    for host in ("../outside", "..%2foutside", "..", "/", "a/../../outside", "\x00", "outside\n"):
        assert home.get(host).status in (400, 404)
        assert home.got("a.test", **{KEY: host}) == "404"
