"""Hosts that are no sites of the home: real uWSGI nodes announce themselves to a real supervisor, gunicorn relays."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from multisite.config.read import read_home
from multisite.control.client import Client
from multisite.router import announcement
from multisite.router.announcement import Announcement
from tests.processes import is_running
from tests.router.signing import Signer
from tests.servers.harness import PATIENCE, HomeDir, Server, ask, eventually, free_port, gunicorn
from tests.servers.load import Load
from tests.servers.system_python import uwsgi_of_debian

pytestmark = pytest.mark.servers

APP = """
import os, time
def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/until"):
        open(environ["PATH_INFO"][6:] + ".begun", "w").close()
        while not os.path.exists(environ["PATH_INFO"][6:]):
            time.sleep(0.01)
    size = int(environ.get("CONTENT_LENGTH") or 0)
    text = os.environ["NAME"].encode() + environ["wsgi.input"].read(size)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]
"""
CONF = """[projects]
read = sites-enabled/*.ini
[service]
runtime_dir = {runtime}
state_dir = {path}/state
[defaults]
share = yes
[supervisor]
allow_root = yes
examine = no
[router]
map = map.txt
subscription_server = {servers}
subscription_allow = 127.0.0.0/8
subscription_keys = SHA1:keys
stats = 127.0.0.1:{stats}
"""
FLOOD = 30_000


@dataclass
class RouterHome:
    """A home whose supervisor takes announcements, and the gunicorn in front of it."""

    path: Path
    home: HomeDir = field(init=False)
    server: Server = field(init=False)
    port: int = field(default_factory=free_port)  # for announcements
    stats_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.home = HomeDir(self.path).create()
        self.local = str(self.home.runtime / "subscribe.sock")
        (self.path / "keys").mkdir()
        (self.path / "app.py").write_text(APP)
        (self.path / "map.txt").write_text("")
        self.home.site("local")
        self.listen(f"127.0.0.1:{self.port}", self.local)

    def listen(self, *servers: str) -> None:
        """Have the configuration name these addresses for announcements."""
        draft = self.path / "moya.tmp"
        draft.write_text(
            CONF.format(
                path=self.path,
                runtime=self.home.runtime / "multisite",
                servers=", ".join(servers),
                stats=self.stats_port,
            )
        )
        draft.replace(self.path / "moya.conf")

    def stats(self) -> dict[str, Any]:
        """The statistics document; empty while nobody serves it."""
        try:
            with socket.create_connection(("127.0.0.1", self.stats_port), PATIENCE) as reader:
                document: dict[str, Any] = json.load(reader.makefile())
                return document
        except (OSError, ValueError):
            return {}

    def nodes(self, key: str) -> dict[str, dict[str, Any]]:
        """The nodes that announced themselves for a key, by address."""
        keys = self.stats().get("subscriptions", ())
        return {node["name"]: node for one in keys if one["key"] == key for node in one["nodes"]}

    def counted(self) -> Counter[str]:
        """What became of announcements, as the command tells."""
        return Counter(json.loads(self.home.multisite("--json", "router"))["announcements"])

    def send(self, data: bytes) -> None:
        """Send a datagram to the supervisor's UDP socket."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(data, ("127.0.0.1", self.port))

    def ask(self, host: str, path: str = "/", **more: Any) -> tuple[int, str]:
        """What a request gets."""
        answer = ask(self.server.port, host, path, **more)
        return answer.status, answer.text

    def pid(self) -> int:
        """The supervisor's process."""
        return int(self.stats().get("pid", 0))


@dataclass
class UwsgiNode:
    """A real uWSGI instance that announces itself for a key; its answers begin with its name."""

    router: RouterHome
    key: str
    name: str
    options: tuple[str, ...] = ()
    announce: str = ""
    address: str = ""

    def __enter__(self) -> UwsgiNode:
        path = self.router.path
        self.address = self.address or f"127.0.0.1:{free_port()}"
        self.log = path / f"uwsgi-{self.name}-{time.monotonic_ns()}.log"  # with a colon it would be an address
        argv = [uwsgi_of_debian(), "--plugin", "python3", "--socket", self.address, "-M", "--die-on-term"]
        argv += ["--wsgi-file", str(path / "app.py"), "--env", f"NAME={self.name}", "--logto", str(self.log)]
        argv += ["--threads", "4", "--subscribe-freq", "1", *self.options]
        argv += ["--subscribe-to", self.announce or f"127.0.0.1:{self.router.port}:{self.key}"]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        key = self.key.partition(",")[0]
        try:
            eventually(lambda: self.address in self.router.nodes(key), PATIENCE, f"{self.name} joins")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.returncode is None:
            self.kill()

    def stop(self) -> None:
        """Have it leave as an administrator does; one in a hundred uWSGIs that have only just come does not end."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the master and its worker at once, and wait for the end of both."""
        pid = self.process.pid
        workers = list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
        os.killpg(pid, signal.SIGKILL)
        self.process.wait()
        eventually(lambda: not any(map(is_running, workers)))


@contextlib.contextmanager
def served(path: Path, worker_class: str, *options: str) -> Iterator[RouterHome]:
    router = RouterHome(path)
    router.server = gunicorn(router.home, worker_class, *options)
    with router.server:
        eventually(router.stats, PATIENCE, "the supervisor serves statistics")
        yield router


@pytest.fixture(scope="module", autouse=True)
def routers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RouterHome]]:
    with (
        served(tmp_path_factory.mktemp("gthread"), "gthread", "--workers", "2", "--threads", "8") as threads,
        served(tmp_path_factory.mktemp("sync"), "sync", "--workers", "2") as sync,
    ):
        yield {"gthread": threads, "sync": sync}


@pytest.fixture
def router(routers: dict[str, RouterHome]) -> RouterHome:
    return routers["gthread"]


@pytest.fixture(params=["gthread", "sync"])
def each(routers: dict[str, RouterHome], request: pytest.FixtureRequest) -> RouterHome:
    """A router under either kind of worker."""
    return routers[request.param]


def test_nodes_join_and_leave(each: RouterHome) -> None:
    """With bodies in both directions; a site of the home comes first."""
    assert each.ask("joins.example")[0] == 404
    with UwsgiNode(each, "joins.example", "one") as node, UwsgiNode(each, "local.test", "thief"):
        for _ in range(4):
            assert each.ask("joins.example") == (200, "one")
        assert each.ask("JOINS.example:8000", method="POST", body=b"x" * 100_000) == (200, "one" + "x" * 100_000)
        assert each.ask("local.test") == (200, "site local")
        node.stop()
    eventually(lambda: not each.nodes("joins.example"))
    assert [each.ask("joins.example")[0] for _ in range(4)] == [404] * 4


def test_nodes_at_unix_sockets(router: RouterHome) -> None:
    """Which announce themselves at one, too."""
    address = str(router.home.runtime / "n.sock")
    with UwsgiNode(router, "unix.example", "u", announce=f"{router.local}:unix.example", address=address):
        assert router.ask("unix.example") == (200, "u")


def test_signed_nodes_join_and_leave(each: RouterHome) -> None:
    signer = Signer(each.path / "keys", "signed.example")
    announce = f"127.0.0.1:{each.port}:signed.example,0,SHA1:{signer.private}"
    before = each.counted()
    with UwsgiNode(each, "signed.example", "signed", announce=announce) as node:
        assert each.ask("signed.example") == (200, "signed")
        node.stop()
    eventually(lambda: not each.nodes("signed.example"))
    assert not (each.counted() - before)["refused"]


def test_requests_are_shared_by_weight(router: RouterHome) -> None:
    heavy = UwsgiNode(router, "weights.example", "heavy", ("--weight", "3"))
    light = UwsgiNode(router, "weights.example", "light", ("--weight", "1"))
    with heavy, light:
        eventually(lambda: {node["weight"] for node in router.nodes("weights.example").values()} == {1, 3})
        got = Counter(router.ask("weights.example") for _ in range(400))
    assert set(got) == {(200, "heavy"), (200, "light")}
    assert got[200, "heavy"] == pytest.approx(300, rel=0.1)
    assert got[200, "light"] == pytest.approx(100, rel=0.1)


def test_modifiers_are_passed_on(router: RouterHome) -> None:
    """uWSGI says for which modifier it has no plugin."""
    with UwsgiNode(router, "modified.example,7", "m") as node:
        assert router.nodes("modified.example")[node.address]["modifier1"] == 7
        assert router.ask("modified.example")[0] in (502, 503)
        eventually(lambda: "unavailable modifier requested: 7" in node.log.read_text())


def test_nobody_fails_when_a_node_leaves(each: RouterHome) -> None:
    """No request that began when the node had left; those before may have met it in the middle of its end."""
    with UwsgiNode(each, "leaves.example", "n"), UwsgiNode(each, "leaves.example", "n") as going:
        with Load(each.server.port, "leaves.example", "n") as load:
            eventually(lambda: load.asked > 100)
            going.process.send_signal(signal.SIGTERM)
            eventually(lambda: going.address not in each.nodes("leaves.example"))
            left, asked = time.monotonic(), load.asked
            eventually(lambda: load.asked > asked + 100)
        assert [failure for failure, at in zip(load.failures, load.begun, strict=True) if at > left] == []
        assert len(load.failures) <= load.threads


def test_a_killed_node_costs_what_it_had_in_hand(each: RouterHome) -> None:
    """Though it stays announced until it has been silent for long."""
    with UwsgiNode(each, "killed.example", "n"):
        going = UwsgiNode(each, "killed.example", "n")
        with going, Load(each.server.port, "killed.example", "n") as load:
            eventually(lambda: load.asked > 100)
            going.kill()
            gone, asked = time.monotonic(), load.asked
            assert going.address in each.nodes("killed.example")
            eventually(lambda: load.asked > asked + 100)
        assert [failure for failure, at in zip(load.failures, load.begun, strict=True) if at > gone] == []
        assert len(load.failures) <= 2 * load.threads  # who asked again at once may have met its worker's last moment


def test_requests_in_flight_outlive_what_is_announced(router: RouterHome, tmp_path: Path) -> None:
    """A node that leaves for good still ends what it began, and its last request is not cut."""
    go = tmp_path / "go"
    answers: list[tuple[int, str]] = []
    with UwsgiNode(router, "flight.example", "n") as node:
        thread = threading.Thread(target=lambda: answers.append(router.ask("flight.example", f"/until{go}")))
        thread.start()
        eventually(Path(f"{go}.begun").exists)
        packet = Announcement("flight.example", node.address, leaves=True)
        router.send(announcement.write(packet))
        eventually(lambda: router.ask("flight.example")[0] == 404)
        go.touch()
        thread.join(PATIENCE)
    assert answers == [(200, "n")]


def test_the_statistics_are_a_fastrouters(router: RouterHome) -> None:
    with UwsgiNode(router, "stats.example,0", "s", ("--weight", "2")) as node:
        eventually(lambda: router.nodes("stats.example")[node.address]["weight"] == 2)
        for _ in range(10):
            assert router.ask("stats.example") == (200, "s")
        document = router.stats()
        told = router.nodes("stats.example")[node.address]
        listed = json.loads(router.home.multisite("--json", "router", "stats.example"))["keys"]
    assert {"version", "pid", "uid", "gid", "cwd", "active_sessions", "subscriptions", "static_nodes", "cheap"} <= set(
        document
    )
    assert document["fastrouter"] == [f"127.0.0.1:{router.port}", router.local]
    assert document["cheap"] == 0
    subscription = next(one for one in document["subscriptions"] if one["key"] == "stats.example")
    assert {"key", "hash", "hits", "sni_enabled", "algo", "nodes"} == set(subscription)
    assert subscription["hits"] == 10
    wanted = "name modifier1 modifier2 last_check pid uid gid requests last_requests tx rx cores load weight wrr ref"
    assert {*wanted.split(), "failcnt", "death_mark"} <= set(told)
    assert (told["requests"], told["cores"], told["failcnt"], told["death_mark"]) == (10, 4, 0, 0)
    assert abs(told["last_check"] - time.time()) < PATIENCE
    assert [(one["mapper"], one["nodes"][0]["requests"]) for one in listed] == [("subscription", 10)]


def test_a_supervisor_that_is_killed_comes_back(router: RouterHome) -> None:
    """Workers keep on relaying meanwhile; what was taken before is taken no second time, joins and leaves alike."""
    signer = Signer(router.path / "keys", "replayed.example")
    now = int(time.time())
    join, leave = (
        signer.packet(Announcement("replayed.example", "127.0.0.1:9", leaves, unix=now + leaves))
        for leaves in (False, True)
    )
    with UwsgiNode(router, "survives.example", "n"):
        assert router.ask("survives.example") == (200, "n")
        router.send(join)
        eventually(lambda: router.nodes("replayed.example"))
        router.send(leave)
        eventually(lambda: not router.nodes("replayed.example"))
        with Load(router.server.port, "survives.example", "n", threads=2) as load:
            old = router.pid()
            os.kill(old, signal.SIGKILL)
            eventually(lambda: router.pid() not in (0, old), PATIENCE, "another supervisor")
        assert load.failures == []
        before = router.counted()["replayed"]
        for packet in (join, leave):
            router.send(packet)
        eventually(lambda: router.counted()["replayed"] == before + 2)
        assert not router.nodes("replayed.example")
        eventually(lambda: router.nodes("survives.example"))
        assert router.ask("survives.example") == (200, "n")


def test_a_supervisor_that_is_replaced_keeps_sockets_and_pool(router: RouterHome) -> None:
    with UwsgiNode(router, "kept.example", "n") as node:
        before = router.counted()
        inode = os.stat(router.local).st_ino
        with Load(router.server.port, "kept.example", "n", threads=2) as load:
            Client(read_home(str(router.path))).ask({"do": "upgrade"}, within=PATIENCE)
            eventually(lambda: router.nodes("kept.example"))
            asked = load.asked
            eventually(lambda: load.asked > asked + 20)
        assert load.failures == []
        assert os.stat(router.local).st_ino == inode
        assert not (router.counted() - before)["joined"], "the new one knows what the old one knew"
        refreshed = router.counted()["refreshed"]
        eventually(lambda: router.counted()["refreshed"] > refreshed)
        assert node.address in router.nodes("kept.example")


def test_sockets_follow_the_configuration(router: RouterHome) -> None:
    """Without a restart, and without the others being closed."""
    other, inode = free_port(), os.stat(router.local).st_ino
    packet = announcement.write(Announcement("other.example", "127.0.0.1:9"))

    def at_other() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(packet, ("127.0.0.1", other))
        return bool(router.nodes("other.example"))

    router.listen(f"127.0.0.1:{other}", router.local)
    eventually(at_other)
    assert router.stats()["fastrouter"] == [router.local, f"127.0.0.1:{other}"]
    assert os.stat(router.local).st_ino == inode
    router.listen(f"127.0.0.1:{router.port}", router.local)
    eventually(lambda: set(router.stats()["fastrouter"]) == {f"127.0.0.1:{router.port}", router.local})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", other))


def test_rubbish_costs_nothing(router: RouterHome) -> None:
    """Datagrams of all kinds: each is counted, none leads anywhere, and no memory stays with them."""
    signer = Signer(router.path / "keys", "rubbish.example")
    good = signer.packet(Announcement("rubbish.example", "127.0.0.1:9", leaves=True, unix=int(time.time())))
    kinds: list[Callable[[int], bytes]] = [
        lambda number: number.to_bytes(4, "little") * (number % 50),
        lambda number: good[: number % len(good)],
        lambda number: good,
        lambda number: good + bytes(announcement.LARGEST),
        lambda number: announcement.write(Announcement(f"hostile{number}.example/../x", "127.0.0.1:9")),
        lambda number: announcement.write(Announcement(f"hostile{number}.example", f"nowhere{number}")),
    ]
    rubbish = [kind(number) for number in range(500) for kind in kinds]

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", router.port))

        def flood(many: int) -> None:
            for number in range(many):
                if number % 16 == 0:  # the kernel drops what finds no room
                    eventually(lambda: queue(router.port)[0] < 100_000)
                sock.send(rubbish[number % len(rubbish)])

        def settled() -> Counter[str]:
            """What was counted, once all that was sent before has been taken."""
            last = Announcement(f"last{time.monotonic_ns()}.example", "127.0.0.1:9")
            sock.send(announcement.write(last))
            eventually(lambda: router.nodes(last.key))
            return router.counted()

        sock.send(good)
        flood(2000)  # what is kept is there from now on
        before, pid, memory = settled(), router.pid(), resident(router.pid())
        flood(FLOOD)
        counted = settled() - before
        assert queue(router.port)[1] == 0
    share = FLOOD / len(kinds)
    assert sum(counted[kind] for kind in ("garbage", "replayed", "bad", "refused")) == FLOOD
    assert counted["replayed"] == pytest.approx(share, abs=1)
    assert router.pid() == pid
    assert resident(pid) - memory < 40 * FLOOD
    assert router.ask("rubbish.example")[0] == 404
    assert not [one for one in router.stats()["subscriptions"] if one["key"].startswith(("hostile", "rubbish"))]


def queue(port: int) -> tuple[int, int]:
    """Bytes that wait at a UDP socket, and how many datagrams had no room there."""
    mark = f":{port:04X} "
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        words = line.split()
        if f"{words[1]} ".endswith(mark):
            return int(words[4].partition(":")[2], 16), int(words[-1])
    raise AssertionError(f"nobody has the port {port}")


def resident(pid: int) -> int:
    """Bytes of memory that a process has for itself."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))
