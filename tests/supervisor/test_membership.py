"""Two machines of one cluster, with real engines: what each knows of the other, whatever happens to the engine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from multisite.cluster import traefik
from multisite.cluster.engines import open_registry
from multisite.config.model import Site
from multisite.config.read import read_home
from multisite.control import draining, program
from multisite.router import announcement
from multisite.router.announcement import Announcement
from multisite.router.published import Subscribed
from multisite.sites.statefile import StateFile
from multisite.supervisor.cluster.agents import MOST_ASKED, STUCK
from multisite.supervisor.cluster.membership import LOOK_EVERY, NO_REGISTRY, Membership
from multisite.supervisor.loop import Loop
from multisite.supervisor.reexec import Keeper
from tests.cluster import programs
from tests.cluster.programs import Engine
from tests.cluster.test_engines import written

from .harness import SupervisedHome, supervised, wait_until

pytestmark = pytest.mark.servers

FIRST, SECOND = "127.0.0.2:8000", "127.0.0.3:8000"
CONF = """[cluster]
url = {url}
nodes = 127.0.0.2:8000, 127.0.0.3:8000
node = {node}
[router]
subscription_server = {path}/s.sock
"""


def conf(url: str, node: str, path: Path) -> str:
    return CONF.format(url=url, node=node, path=path)


class Pair(NamedTuple):
    engine: Engine
    first: SupervisedHome
    second: SupervisedHome


@pytest.fixture(scope="module", params=list(programs.ENGINES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both have a site that runs."""
    folder = tmp_path_factory.mktemp("pair")
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(programs.running(request.param, folder / "engine"))
        homes = []
        for name, node in (("first", FIRST), ("second", SECOND)):
            home = stack.enter_context(supervised(folder / name, conf(engine.url, node, folder / name)))
            home.site(f"of-{name}")
            home.get(f"of-{name}")
            homes.append(home)
        yield Pair(engine, *homes)


def told(home: SupervisedHome) -> dict[str, Any]:
    return home.client.ask({"do": "cluster"})


def known(home: SupervisedHome) -> set[str]:
    return set(told(home)["entries"].get("node", ()))


def test_each_knows_the_other(pair: Pair) -> None:
    for home in (pair.first, pair.second):
        wait_until(lambda home=home: known(home) == {FIRST, SECOND} and told(home)["state"] == "connected")
    found = told(pair.second)
    assert found["node"] == SECOND
    assert found["entries"]["node"][FIRST]["home"] == str(pair.first.path)
    assert found["entries"]["node"][FIRST]["pid"] == pair.first.pid


def test_each_knows_what_runs_at_the_other(pair: Pair) -> None:
    def row() -> list[Any]:
        figures = told(pair.second)["entries"].get("figures", {}).get(FIRST, {})
        found: list[Any] = figures.get("awake", {}).get("of-first", [])
        return found

    wait_until(lambda: row()[:2] == ["running", 1])


def test_the_command_line_shows_all_machines(pair: Pair) -> None:
    home = pair.first
    wait_until(lambda: {"of-first", "of-second"} <= {row["name"] for row in cluster(home)["sites"]})
    assert [row["node"] for row in cluster(home)["nodes"]] == [FIRST, SECOND]
    text = multisite(home, "status", "--cluster")
    assert f"registry {pair.engine.url} connected for" in text
    assert f"this machine is {FIRST}" in text
    assert f"registry {pair.engine.url} connected for" in multisite(home, "status")
    registry = json.loads(multisite(home, "--json", "status"))["registry"]
    assert [registry[key] for key in ("url", "state", "node", "machines")] == [pair.engine.url, "connected", FIRST, 2]


def cluster(home: SupervisedHome) -> dict[str, Any]:
    return dict(json.loads(multisite(home, "--json", "status", "--cluster")))


def multisite(home: SupervisedHome, *words: str) -> str:
    """Run a command; returns what it printed, without line breaks of its own."""
    argv = [sys.executable, "-m", "multisite", "--home", str(home.path), *words]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True, env={**os.environ, "COLUMNS": "400"})
    return done.stdout


def test_a_node_that_announced_itself_to_one_router_is_known_to_all(pair: Pair) -> None:
    workers = Subscribed(pair.second.rundir.path)

    def keys() -> dict[str, str]:
        workers.look()
        return {key: str(group.nodes[0]) for key, group in workers.entries() if group}

    say(pair.first, Announcement("a.example", "127.0.0.1:3031"))
    wait_until(lambda: keys() == {"a.example": "127.0.0.1:3031"})
    say(pair.second, Announcement("a.example", "127.0.0.1:3032"))
    say(pair.first, Announcement("a.example", "127.0.0.1:3031", leaves=True))
    wait_until(lambda: keys() == {"a.example": "127.0.0.1:3032"})


def say(home: SupervisedHome, announced: Announcement) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(announcement.write(announced), str(home.path / "s.sock"))


def test_traefik_learns_of_machines_and_sites(pair: Pair) -> None:
    """One of both writes, and both have the sites of the other one's home only if they have its files."""
    conf = pair.first.path / "moya.conf"
    before = conf.read_text()
    conf.write_text(before.replace("[cluster]", "[cluster]\npublish = traefik"))
    pair.first.site("pinned", nodes=SECOND)
    servers = [f"traefik/http/services/multisite/loadbalancer/servers/{number}/url" for number in (0, 1)]

    def found() -> dict[str, str]:
        return written(pair.engine.url, traefik.prefixes("default"))

    wait_until(lambda: [found().get(key) for key in servers] == [f"http://{FIRST}", f"http://{SECOND}"])
    assert found()["traefik/http/routers/multisite-of-first/rule"] == "Host(`of-first.test`)"
    wait_until(lambda: "traefik/http/routers/multisite-pinned/rule" in found())
    service = found()["traefik/http/routers/multisite-pinned/service"]
    machines = [url for key, url in found().items() if key.startswith(f"traefik/http/services/{service}/")]
    assert machines == [f"http://{SECOND}"]
    conf.write_text(before)
    wait_until(lambda: not found())


def test_an_engine_that_is_away_or_empty_costs_no_request_and_no_machine(pair: Pair) -> None:
    for home in (pair.first, pair.second):
        wait_until(lambda home=home: known(home) == {FIRST, SECOND})
    pair.engine.kill()
    wait_until(lambda: told(pair.second)["state"] == "away")
    for _ in range(20):
        pair.first.get("of-first")
        assert known(pair.second) == {FIRST, SECOND}
    pair.engine.empty()
    pair.engine.start()

    def is_back() -> bool:
        """Nobody has been forgotten meanwhile."""
        pair.first.get("of-first")
        found = told(pair.second)
        assert set(found["entries"]["node"]) == {FIRST, SECOND}
        return bool(found["state"] == "connected")

    wait_until(is_back)
    wait_until(lambda: announced(pair.engine.url) == {FIRST, SECOND})


def announced(url: str) -> set[str]:
    """The machines that the engine itself knows."""
    return set(open_registry(url).snapshot().entries.get("node", ()))


def test_a_new_program_keeps_what_is_known(pair: Pair) -> None:
    wait_until(lambda: known(pair.first) == {FIRST, SECOND})
    pair.engine.freeze()
    try:
        wait_until(lambda: told(pair.first)["state"] == "away")
        os.kill(pair.first.pid, signal.SIGUSR2)
        wait_until(lambda: told(pair.first)["state"] == "away" and known(pair.first) == {FIRST, SECOND})
    finally:
        pair.engine.thaw()
    wait_until(lambda: told(pair.first)["state"] == "connected")
    assert known(pair.first) == {FIRST, SECOND}


def test_the_process_that_talks_to_the_engine_may_be_killed(pair: Pair) -> None:
    former = agents(pair.first.pid)
    os.kill(former[0], signal.SIGKILL)
    wait_until(lambda: agents(pair.first.pid) not in ([], former))
    wait_until(lambda: told(pair.first)["state"] == "connected")
    assert known(pair.first) == {FIRST, SECOND}


def agents(supervisor: int) -> list[int]:
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(stat[1]) == supervisor and b"multisite.cluster.agent" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_a_supervisor_that_exits_is_withdrawn(pair: Pair) -> None:
    """This is the last test of the pair."""
    wait_until(lambda: known(pair.first) == {FIRST, SECOND})
    pair.second.close()
    wait_until(lambda: known(pair.first) == {FIRST})


REQUESTS = """
import json, sys, threading
from wsgiref.util import setup_testing_defaults
from multisite.service import application

def get():
    environ = {"HTTP_HOST": "hello.test"}
    setup_testing_defaults(environ)
    begun = []
    body = b"".join(application(environ, lambda status, headers, exc_info=None: begun.append(status)))
    assert begun == ["200 OK"] and body == b"hello", (begun, body)

for _ in range(3):
    get()
events, main, known = [], threading.get_ident(), set(sys.modules)
sys.addaudithook(lambda event, _: events.append(event) if threading.get_ident() == main else None)
for _ in range(200):
    get()
events = [event for event in events if event == "import" or event.startswith("socket")]
print(json.dumps([events, sorted(name for name in sys.modules if "multisite.cluster" in name or "redis" in name)]))
"""


@pytest.mark.parametrize("name", programs.ENGINES)
def test_what_is_asked_first_and_last_is_done(tmp_path: Path, name: str) -> None:
    """A question waits for the process that talks to the engine, and that process for its end until all is done."""
    with programs.running(name, tmp_path / "engine") as engine:
        (tmp_path / "moya.conf").write_text(conf(engine.url, FIRST, tmp_path))
        home, loop = read_home(str(tmp_path)), Loop()
        membership = Membership(home, loop, dict, dict, lambda _entries: None)
        keys = [str(number) for number in range(20)]
        numbers: dict[str, Any] = {}
        for key in keys:
            membership.lease(key, "one", 600.0, lambda number, error, key=key: numbers.update({key: number or error}))
        assert numbers == {}

        def are_answered() -> bool:
            membership.tick(loop.now(), home)
            loop.turn(0.1)
            return numbers.keys() == {*keys}

        try:
            wait_until(are_answered)
            for key in keys:
                membership.release(key, "one", numbers[key])
        finally:
            membership.close()
            loop.close()
        registry = open_registry(engine.url)
        assert [registry.holder(key) for key in keys] == [None] * len(keys)


def test_only_nodes_that_may_run_a_site_and_stay_take_it_over(tmp_path: Path) -> None:
    """What was last known of them counts while the registry is away."""
    url, third = "redis://127.0.0.1:1", "127.0.0.4:8000"
    text = conf(url, FIRST, tmp_path)
    (tmp_path / "moya.conf").write_text(text.replace(f"{SECOND}\n", f"{SECOND}, {third}\n", 1))
    home, loop = read_home(str(tmp_path)), Loop()
    known = {FIRST: {}, SECOND: {}, third: {"draining": 1.5}, "127.0.0.9:8000": {}}
    entries = {"node": {node: json.dumps(told) for node, told in known.items()}}
    assert StateFile(home, "cluster", guides_us=True).store({"url": url, "version": None, "entries": entries})
    membership = Membership(home, loop, dict, dict, lambda _entries: None, lambda: [os.getpid()])  # type: ignore[arg-type]
    anywhere, here = Site("/x/one.ini", "one"), Site("/x/two.ini", "two", nodes=(FIRST, third))
    try:
        membership.tick(0.0, home)
        assert membership.successors(anywhere) == []
        draining.note(draining.file_of(home), draining.begin([os.getpid()]))
        membership.tick(10.0, home)
        assert (membership.successors(anywhere), membership.successors(here)) == ([SECOND], [])
    finally:
        membership.close()
        loop.close()


class Member:
    """A machine without a supervisor: its loop turns while a test waits."""

    def __init__(self, path: Path, url: str) -> None:
        path.mkdir(exist_ok=True)
        (path / "moya.conf").write_text(conf(url, FIRST, path))
        self.home, self.loop = read_home(str(path)), Loop()
        self.membership = Membership(self.home, self.loop, dict, dict, lambda _entries: None)
        self.answers: list[Any] = []

    def ask(self, key: str = "a") -> None:
        self.membership.lease(key, "one", 600.0, lambda number, error: self.answers.append(error or number))

    def wait(self, what: Callable[[], Any]) -> None:
        def turned() -> Any:
            self.membership.tick(self.loop.now(), self.home)
            self.loop.turn(0.05)
            return what()

        wait_until(turned)

    def close(self) -> None:
        self.membership.close()
        self.loop.close()


@pytest.fixture
def member(tmp_path: Path) -> Iterator[tuple[Member, Engine]]:
    """One that is connected."""
    with programs.running("redis", tmp_path / "engine") as engine:
        made = Member(tmp_path / "home", engine.url)
        made.wait(lambda: made.membership.state == "connected")
        yield made, engine
        made.close()


@pytest.mark.parametrize("is_asked", [True, False], ids=["asked", "not asked"])
def test_a_process_that_is_stopped_is_replaced_and_another_one_answers(
    member: tuple[Member, Engine], is_asked: bool
) -> None:
    """Whether anybody asks or not: what it has announced would be over."""
    one, _ = member
    (former,) = one.membership.pids
    os.kill(former, signal.SIGSTOP)
    if not is_asked:
        one.wait(lambda: former not in one.membership.pids)
    one.ask()
    one.wait(lambda: one.answers)
    assert isinstance(one.answers[0], int)
    assert former not in one.membership.pids
    assert os.WTERMSIG(os.waitpid(former, 0)[1]) == signal.SIGKILL


def test_an_engine_that_hangs_is_away_until_it_does_not(member: tuple[Member, Engine]) -> None:
    """Whoever asks meanwhile learns why there is no answer, however many they are."""
    one, engine = member
    engine.freeze()
    for key in range(50):
        one.ask(str(key))
    one.wait(lambda: one.membership.state == "away" and len(one.answers) == 50)
    assert {type(answer) for answer in one.answers} == {str}
    engine.thaw()
    one.wait(lambda: one.membership.state == "connected")
    one.ask()
    one.wait(lambda: len(one.answers) == 51)
    assert isinstance(one.answers[-1], int)


def test_the_next_program_can_ask_at_once(member: tuple[Member, Engine]) -> None:
    """The process of the one before answers until that of the next is ready, and no answer is taken for another."""
    one, engine = member
    one.ask()
    state = json.loads(json.dumps(one.membership.pack(Keeper())))
    agent = one.membership._agents._current
    assert agent
    agent._socket.detach()  # as if another program were executed here
    one.loop.close()
    following = Member(Path(one.home.path), engine.url)
    one.membership, one.loop = following.membership, following.loop  # which is closed in the end
    following.membership.take_over(state)
    following.ask("b")
    wait_until(lambda: [following.loop.turn(0.05)] and following.answers)
    assert following.membership.pids == {agent.pid}
    assert open_registry(engine.url).holder("b") == ("one", following.answers[0])
    following.wait(lambda: following.membership.pids.isdisjoint({agent.pid}) and following.membership.pids)
    following.ask("c")
    following.wait(lambda: len(following.answers) == 2)


def test_a_question_on_which_every_process_hangs_is_answered_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine whose answer never ends: each byte of it comes in time."""
    monkeypatch.setattr("multisite.supervisor.cluster.agents.ANSWERS_WITHIN", 0.5)
    monkeypatch.setattr("multisite.supervisor.cluster.membership.START_EVERY", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=trickle, args=(listener,), daemon=True).start()
        one = Member(tmp_path, f"redis://127.0.0.1:{listener.getsockname()[1]}")
        seen: set[int] = set()
        one.ask()
        one.wait(lambda: seen.update(one.membership.pids) or one.answers)
        one.close()
    assert one.answers == [STUCK]
    assert len(seen) >= MOST_ASKED


def trickle(listener: socket.socket) -> None:
    connected: list[socket.socket] = []
    listener.settimeout(0.2)
    with contextlib.suppress(OSError):
        while listener.fileno() >= 0:
            with contextlib.suppress(TimeoutError):
                connected.append(listener.accept()[0])
            for each in connected:
                with contextlib.suppress(ConnectionError):
                    each.sendall(b"+")


def test_who_asks_where_nobody_can_answer_learns_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "moya.conf").write_text("")
    loop = Loop()
    membership = Membership(read_home(str(tmp_path)), loop, dict, dict, lambda _entries: None)
    answers: list[tuple[object, str]] = []
    membership.holder("a", lambda *answer: answers.append(answer))
    loop.close()
    assert answers == [(None, NO_REGISTRY)]


def test_other_nodes_are_no_other_registry(tmp_path: Path) -> None:
    with programs.running("redis", tmp_path / "engine") as engine:
        one, loop = tmp_path / "moya.conf", Loop()
        one.write_text(conf(engine.url, FIRST, tmp_path))
        former = read_home(str(tmp_path))
        membership = Membership(former, loop, dict, dict, lambda _entries: None)

        def is_connected() -> bool:
            membership.tick(loop.now(), former)
            loop.turn(0.1)
            return membership.state == "connected"

        try:
            wait_until(is_connected)
            pids, since = membership.pids, membership.since
            one.write_text(conf(engine.url, FIRST, tmp_path).replace(SECOND, "127.0.0.4:8000"))
            membership.tick(loop.now() + LOOK_EVERY, read_home(str(tmp_path)))
            assert (membership.state, membership.pids, membership.since) == ("connected", pids, since)
        finally:
            membership.close()
            loop.close()


def test_its_end_is_its_end_although_something_still_has_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry of another package may have started a program."""
    interpreter, left = tmp_path / "python", tmp_path / "left"
    interpreter.write_text(f"#!/bin/sh\nexec 3<&0\nsleep 600 &\necho $! > {left}\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(program, "own_interpreter", lambda: str(interpreter))
    (tmp_path / "moya.conf").write_text("[cluster]\nurl = redis://127.0.0.1:1\n")
    home, loop = read_home(str(tmp_path)), Loop()
    membership = Membership(home, loop, dict, dict, lambda _entries: None)
    try:
        membership.tick(loop.now(), home)
        assert membership.ended(*os.waitpid(next(iter(membership.pids)), 0))
        assert membership.pids == set()
    finally:
        os.kill(int(left.read_text()), signal.SIGKILL)
        loop.close()


def test_requests_ask_nobody(tmp_path: Path) -> None:
    """A worker of a cluster connects to nothing, imports nothing for it, and does not even know its modules."""
    with supervised(tmp_path, conf("redis://127.0.0.1:1", FIRST, tmp_path)) as home:
        code = "def application(environ, start):\n    start('200 OK', [])\n    return [b'hello']\n"
        home.app("hello", code, mode="in-process")
        environ = {**os.environ, "MOYA_SERVICE_HOME": str(tmp_path)}
        argv = [sys.executable, "-c", REQUESTS]
        done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True, env=environ, cwd=home.path)
        assert json.loads(done.stdout.splitlines()[-1]) == [[], []]


def test_a_failover_costs_no_request(tmp_path: Path) -> None:
    first = programs.redis(tmp_path / "redis1")
    second = programs.redis(tmp_path / "redis2", "--replicaof", "127.0.0.1", str(first.port))
    watcher = programs.sentinel(tmp_path / "sentinel", first.port)
    try:
        for engine in (first, second, watcher):
            engine.start()
        with supervised(tmp_path / "home", conf(watcher.url, FIRST, tmp_path / "home")) as home:
            home.site("blog")
            home.get("blog")
            wait_until(lambda: told(home)["state"] == "connected" and known(home) == {FIRST})
            wait_until(lambda: is_replicated(watcher.port))
            first.kill()
            before = announced_until(second)

            def has_moved() -> bool:
                home.get("blog")
                assert known(home) == {FIRST}
                return announced_until(second) > before

            wait_until(has_moved)
            wait_until(lambda: told(home)["state"] == "connected")
    finally:
        for engine in (first, second, watcher):
            engine.kill()


def is_replicated(port: int) -> bool:
    import redis

    return bool(redis.Redis(port=port).execute_command("SENTINEL", "REPLICAS", "main"))


def announced_until(engine: Engine) -> float:
    """When the entry of the node expires there; it is later after each announcement, and a copy gets no more."""
    import redis

    return float(redis.Redis(port=engine.port).zscore("multisite:{default}:expires", f"node {FIRST}") or 0)


def test_a_library_that_is_missing_is_told(tmp_path: Path) -> None:
    with supervised(tmp_path, "[cluster]\nurl = consul://me:secret@10.0.0.1\n") as home:
        home.site("blog")
        home.get("blog")
        wait_until(lambda: told(home)["state"] == "refused")
        found = told(home)
        assert "there is no engine consul" in found["reason"]
        assert found["url"] == "consul://10.0.0.1"


def test_a_url_that_is_none_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Although a map of the sites is to be published there."""
    with supervised(tmp_path, "[cluster]\nurl = redis://:se#cret@10.0.0.1\npublish = traefik\n") as home:
        home.site("blog")
        home.get("blog")
        wait_until(lambda: told(home)["state"] == "refused")
        assert "its @ is behind" in told(home)["reason"]
        log = capfd.readouterr().err
        assert log.count("MS743") == 1
        assert "cret" not in log
        assert "Traceback" not in log
