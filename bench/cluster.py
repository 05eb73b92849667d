"""What [cluster] costs: a request, and the copy of what other machines announce.

    python bench/cluster.py [requests] [copy] [outages]

Requests: hello in the workers and in a process of its own, of a home with a registry and of one without, in turn.

Copy: one real machine (a server, a supervisor, and its process that talks to Redis) among others, which are written
into Redis as they announce themselves. What Redis counts of its traffic is that of the one machine.

Outages: two real machines with requests all the time, while the engine is killed and started again, or fails over.
Each round lasts from the moment in which it accepts connections again until a node that announced itself to one
machine meanwhile is known to the workers of the other.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import redis
from common import HELLO, HomeDir, Row, Server, eventually, new_home, print_rows
from density import below, pss

from multisite.cluster.engines import open_registry
from multisite.router import announcement
from multisite.router.announcement import Announcement
from multisite.router.published import Subscribed
from multisite.supervisor.cluster.loadreport import EVERY, FOR_EACH
from tests.cluster import programs
from tests.cluster.programs import Engine
from tests.servers.harness import gunicorn, read
from tests.servers.load import Load

ENTRIES = 10_000  # announced nodes of all machines together
LONG = 3600.0  # seconds to live, so that others need not announce themselves again
REST = 10.0  # seconds
PAIRS = 16  # of servers
ROUNDS = 40  # short ones: what else runs on the machine falls out of the medians
ASKED = 30  # requests of a round
HOSTS = {"hello.test": "the worker", "relayed.test": "a process of its own"}
OUTAGES = 10
NAMES = {
    "restart": "Redis killed and started again",
    "empty": "Redis started again without its data",
    "failover": "a failover by Sentinel",
    "etcd": "etcd killed and started again",
    "etcd-empty": "etcd started again without its data",
}
CHANGES = 20
CONF = """[projects]
read = sites-enabled/*.ini
[defaults]
share = yes
[supervisor]
allow_root = yes
examine = no
"""
CLUSTER = """[cluster]
url = {url}
node = {node}
nodes = {nodes}
"""
ROUTER = """[router]
subscription_server = {path}/announce.sock
"""


class Machine:
    """One real machine."""

    def __init__(self, home: HomeDir, server: Server) -> None:
        self.home, self.server = home, server
        self.known = Subscribed(str(home.runtime / "multisite"))

    def status(self) -> dict[str, Any]:
        with suppress(ValueError):
            return dict(json.loads(self.home.multisite("--json", "status")))
        return {}

    def is_connected(self) -> bool:
        return bool((self.status().get("registry") or {}).get("state") == "connected")

    def processes(self) -> dict[str, int]:
        """Supervisor, agent and worker."""
        supervisor = int(self.status()["supervisor"]["pid"])
        agent = next(pid for pid in below([supervisor]) if b"cluster.agent" in read(f"/proc/{pid}/cmdline"))
        (worker,) = self.server.workers()
        return {"supervisor": supervisor, "agent": agent, "worker": worker}

    def say(self, key: str, address: str) -> None:
        """Announce a node to this machine."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(announcement.write(Announcement(key, address)), str(self.home.path / "announce.sock"))

    def knows(self, key: str) -> bool:
        """Whether its workers do."""
        self.known.look()
        return self.known.find(key) is not None

    def count(self) -> int:
        self.known.look()
        return sum(1 for _ in self.known.entries())


@contextmanager
def machine(home: HomeDir, url: str, node: str, nodes: str) -> Iterator[Machine]:
    home.conf(CONF + CLUSTER.format(url=url, node=node, nodes=nodes) + ROUTER.format(path=home.path))
    home.site("hello", HELLO, domains="hello.test", mode="in-process")
    with gunicorn(home, "gthread", "--workers", "1") as server:
        assert server.ask("hello.test").status == 200
        one = Machine(home, server)
        eventually(one.is_connected)
        yield one


def name(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:8000"


def figures(moment: int) -> dict[str, Any]:
    """What a machine with forty sites, three of them awake, tells of itself."""
    awake = {f"site{number}": ["running", 1, 1000 + moment, 0] for number in range(3)}
    return {"sites": 40, "processes": 3, "load": 0.01 * (moment % 100), "awake": awake, "incidents": []}


def written(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def fill(url: str, machines: int) -> None:
    """Announce the other machines, with all nodes."""
    registry = open_registry(url)
    for number in range(1, machines):
        own = name(number)
        node = {"host": f"web{number}", "home": "/etc/moya", "pid": number, "version": "0.1.0", "since": 1.0}
        share = range(number - 1, ENTRIES, machines - 1)
        pool = {f"site{key}.example.com": ["", [[f"10.1.{key >> 8}.{key & 255}:3031", 0, 0, 1, 0]]] for key in share}
        for kind, value in (("node", node), ("figures", figures(0)), ("pool", pool)):
            registry.announce(kind, own, written(value), LONG)


def used(pids: dict[str, int]) -> dict[str, float]:
    """Seconds of processor time so far; /proc/PID/stat counts ticks, and sees little of what runs for less."""
    return {what: running_time(pid) / 1e6 for what, pid in pids.items()}


class Traffic:
    """What Redis has counted, without our own questions."""

    def __init__(self, port: int) -> None:
        self._client = redis.Redis(port=port)
        self.reset()

    def _count(self) -> tuple[int, int, int]:
        told: Any = self._client.info("stats")
        scripts: Any = self._client.info("commandstats")["cmdstat_evalsha"]
        return told["total_net_input_bytes"], told["total_net_output_bytes"], scripts["calls"]

    def reset(self) -> None:
        self._own = [0, 0, 0]
        first = self._count()
        second = self._count()
        self._own = [late - early for early, late in zip(first, second, strict=True)]
        self._last = second

    def read(self) -> list[int]:
        """Return bytes in, bytes out and scripts run since the last time."""
        now = self._count()
        found = [late - early - own for early, late, own in zip(self._last, now, self._own, strict=True)]
        self._last = now
        return found


def copy(machines: int) -> list[Row]:
    rows = []
    what = f"{machines:,} machines, {ENTRIES:,} announced nodes"
    with tempfile.TemporaryDirectory(prefix="multisite-engine-") as folder, ExitStack() as stack:
        engine = stack.enter_context(programs.running("redis", Path(folder)))
        home = stack.enter_context(new_home())
        nodes = ", ".join(map(name, range(machines)))
        one = stack.enter_context(machine(home, engine.url, name(0), nodes))
        pids = one.processes()
        before = {each: pss([pid]) for each, pid in pids.items()}
        fill(engine.url, machines)
        eventually(lambda: one.count() == ENTRIES)
        one.server.ask("unknown.test")  # the worker reads the pool
        one.server.ask("site1.example.com")
        after = {each: pss([pid]) for each, pid in pids.items()}
        grown = ", ".join(f"{each} {before[each] / 1024:.1f} → {after[each] / 1024:.1f} MiB" for each in pids)
        rows.append(Row(f"{what}: memory (PSS)", grown))
        print(rows[-1], file=sys.stderr)
        rows += at_rest(what, one, engine, pids)
        rows += changing(what, one, engine, machines, pids)
        rows += spread(what, one, engine, machines)
    return rows


def at_rest(what: str, one: Machine, engine: Engine, pids: dict[str, int]) -> list[Row]:
    time.sleep(3)
    traffic, began, spent = Traffic(engine.port), time.monotonic(), used(pids)
    time.sleep(REST)
    each = [count / (time.monotonic() - began) for count in traffic.read()]
    busy = {name: (late - spent[name]) / REST for name, late in used(pids).items()}
    figure = f"{each[0]:,.0f} bytes to it, {each[1]:,.0f} from it, {each[2]:.1f} questions"
    return shown(f"{what}: traffic of a machine with Redis at rest", figure, f"{what}: processor time at rest", busy)


def shown(traffic: str, figure: str, processor: str, busy: dict[str, float]) -> list[Row]:
    """Return the rows of what passed in a second; print them now, too, since the rest takes long."""
    cpu = ", ".join(f"{name} {share * 1000:.1f} ms" for name, share in busy.items())
    rows = [Row(f"{traffic}, a second", figure), Row(f"{processor}, a second", cpu)]
    print(*rows, sep="\n", file=sys.stderr)
    return rows


def changing(what: str, one: Machine, engine: Engine, machines: int, pids: dict[str, int]) -> list[Row]:
    """All other machines have other figures whenever they announce them."""
    every = max(EVERY, FOR_EACH * machines)
    registry, done, rounds = open_registry(engine.url), threading.Event(), [0]

    def again() -> None:
        began = time.monotonic()
        for moment in range(1, 1 << 30):
            for number in range(1, machines):
                due = began + every * (moment - 1 + number / machines)
                if done.wait(max(0.0, due - time.monotonic())):
                    return
                registry.announce("figures", name(number), written(figures(moment)), LONG)
                rounds[0] += 1

    thread = threading.Thread(target=again)
    thread.start()
    time.sleep(3)
    traffic, began, spent = Traffic(engine.port), time.monotonic(), used(pids)
    first = rounds[0]
    time.sleep(REST)
    took = time.monotonic() - began
    each = [count / took for count in traffic.read()]
    told = (rounds[0] - first) / took
    done.set()
    thread.join()
    busy = {name: (late - spent[name]) / took for name, late in used(pids).items()}
    figure = f"{told:.0f} changes: {each[1]:,.0f} bytes from it, {each[2] - told:.1f} questions"
    return shown(f"{what}: traffic as all others announce figures", figure, f"{what}: processor time meanwhile", busy)


def spread(what: str, one: Machine, engine: Engine, machines: int) -> list[Row]:
    """A node announces itself to another machine; when do the workers of this one know?"""
    registry, own = open_registry(engine.url), name(1)
    pool = json.loads(registry.snapshot().entries["pool"][own])
    took, traffic = [], Traffic(engine.port)
    for number in range(CHANGES):
        key = f"new{number}-{machines}.example.com"
        pool[key] = ["", [["10.2.0.1:3031", 0, 0, 1, 0]]]
        text = written(pool)
        began = time.monotonic()
        registry.announce("pool", own, text, LONG)
        eventually(lambda key=key: one.knows(key))
        took.append(time.monotonic() - began)
        time.sleep(0.7)
    size = traffic.read()[1] / CHANGES
    figure = f"{median(took):.2f} s, {max(took):.2f} s at most"
    row = Row(f"{what}: until a worker knows a new node of another machine", figure, "≤ 3 s", max(took) <= 3)
    rows = [row, Row(f"{what}: traffic of that", f"{size:,.0f} bytes from Redis, its entry has {len(text):,}")]
    print(*rows, sep="\n", file=sys.stderr)
    return rows


# --- a request ------------------------------------------------------------------------------------------------------


def requests() -> list[Row]:
    """Processor time of the worker with a registry over that without, and of two without."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="multisite-engine-") as folder, ExitStack() as stack:
        engine = stack.enter_context(programs.running("redis", Path(folder)))
        on = CLUSTER.format(url=engine.url, node=name(0), nodes=f"{name(0)}, {name(1)}")
        for what, conf in (("with a registry", on), ("another one without", "")):
            pairs = [compare(conf, number % 2 == 0) for number in range(PAIRS)]
            for host, where in HOSTS.items():
                ratio, without = (median(pair[host][place] for pair in pairs) for place in (0, 1))
                spread = f"{min(pair[host][0] for pair in pairs):.3f} to {max(pair[host][0] for pair in pairs):.3f}"
                figure = f"{ratio:.3f} ({spread} in {PAIRS} pairs; {without:.0f} µs without)"
                told = f"hello in {where}: processor time of a request, {what} over one without"
                rows.append(Row(told, figure, "≤ 1.03", ratio <= 1.03) if conf else Row(told, figure))
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def compare(conf: str, is_first: bool) -> dict[str, tuple[float, float]]:
    """Compare a new server whose home has more in moya.conf with a new one whose home has not, the one or other first.

    Two processes that do the same differ by some per cent as long as they live, so one pair says little. Both are
    asked in turn, a few requests at a time.

    Returns:
        by host, the ratio, and the microseconds without.
    """
    found = {}
    with ExitStack() as stack:
        servers = {}
        for which in (True, False) if is_first else (False, True):
            home = stack.enter_context(new_home())
            home.conf(CONF + (conf if which else ""))
            home.site("hello", HELLO, mode="in-process")
            home.site("relayed", HELLO, mode="spawned")
            server = stack.enter_context(gunicorn(home, "sync", "--workers", "1"))
            servers[which] = server
            for host in HOSTS:
                eventually(lambda server=server, host=host: server.ask(host).body == b"hello\n")
            if conf and which:
                eventually(Machine(home, server).is_connected)
        for host in HOSTS:
            spent: dict[bool, list[float]] = {True: [], False: []}
            for number in range(ROUNDS):
                for which in (True, False) if number % 2 else (False, True):
                    (worker,) = servers[which].workers()
                    before = running_time(worker)
                    for _ in range(ASKED):
                        assert servers[which].ask(host).status == 200
                    spent[which].append((running_time(worker) - before) / ASKED)
            ratio = median(late / early for early, late in zip(spent[False], spent[True], strict=True))
            found[host] = ratio, median(spent[False])
    return found


def running_time(pid: int) -> float:
    """Microseconds for which all threads have run (proc(5), schedstat)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1000


# --- outages --------------------------------------------------------------------------------------------------------


@contextmanager
def pair(url: str) -> Iterator[tuple[Machine, Machine]]:
    """Two machines, each with requests all the time."""
    with ExitStack() as stack:
        made = []
        for number in (2, 3):
            home = stack.enter_context(new_home())
            nodes = "127.0.0.2:8000, 127.0.0.3:8000"  # whose loopback addresses are for several nodes on one machine
            made.append(stack.enter_context(machine(home, url, f"127.0.0.{number}:8000", nodes)))
        yield made[0], made[1]


def outages(kind: str) -> list[Row]:
    """How long after the engine is back a node is known that announced itself meanwhile, and what failed."""
    took, asked, failed = [], 0, 0
    with tempfile.TemporaryDirectory(prefix="multisite-engine-") as folder, ExitStack() as stack:
        place = Path(folder)
        engine = "etcd" if kind.startswith("etcd") else "redis"
        engines = [stack.enter_context(programs.running(engine, place / "0"))]
        url = engines[0].url
        if kind == "failover":
            engines.append(programs.redis(place / "1", "--replicaof", "127.0.0.1", str(engines[0].port)).start())
            stack.callback(engines[1].kill)
            watcher = programs.sentinel(place / "sentinel", engines[0].port).start()
            stack.callback(watcher.kill)
            url = watcher.url
        one, other = stack.enter_context(pair(url))
        loads = [stack.enter_context(Load(each.server.port, "hello.test", "hello\n")) for each in (one, other)]
        for number in range(OUTAGES):
            took.append(outage(kind, number, engines, one, other))
            print(f"{kind} {number + 1}: {took[-1]:.2f} s", file=sys.stderr, flush=True)
        for load in loads:
            asked += load.asked
            failed += len(load.failures)
    what = f"{OUTAGES} outages, {NAMES[kind]}"
    figure = f"{median(took):.2f} s, {max(took):.2f} s at most"
    return [
        Row(f"{what}: until the workers of another machine know what is new", figure, "≤ 3 s", max(took) <= 3),
        Row(f"{what}: failed requests", f"{failed} of {asked:,}", "0", not failed),
    ]


def outage(kind: str, number: int, engines: list[Engine], one: Machine, other: Machine) -> float:
    """Let the engine go; return the seconds from the moment in which it accepts connections again."""
    key = f"{kind}{number}.example.com"
    master, *replicas = engines
    if replicas:
        eventually(lambda: role(replicas[0]) == ("slave", "connected"))
    eventually(one.is_connected)
    master.kill()
    if kind != "failover":  # which may be over before both have been asked
        eventually(lambda: not one.is_connected() and not other.is_connected())
    one.say(key, "127.0.0.1:3031")
    if kind == "failover":
        eventually(lambda: role(replicas[0])[0] == "master")
        engines.reverse()
        began = time.monotonic()
    else:
        if kind.endswith("empty"):
            master.empty()
        time.sleep(1)
        master.start()
        began = time.monotonic()
    eventually(lambda: one.say(key, "127.0.0.1:3031") or other.knows(key))
    took = time.monotonic() - began
    if kind == "failover":  # the former master follows the new one
        master.argv = [*master.argv[:7], "--replicaof", "127.0.0.1", str(engines[0].port)]
        master.start()
    return took


def role(engine: Engine) -> tuple[str, str]:
    """What a Redis is, and whether it is connected if it follows another."""
    with suppress(redis.RedisError):
        told: Any = redis.Redis(port=engine.port).execute_command("ROLE")
        return told[0].decode(), told[3].decode() if told[0] == b"slave" else ""
    return "", ""


def main() -> None:
    """Measure, and print the table."""
    asked = sys.argv[1:] or ["requests", "copy", "outages"]
    rows = []
    if "requests" in asked:
        rows += requests()
    if "copy" in asked:
        for machines in (3, 100, 1000):
            rows += copy(machines)
    if "outages" in asked:
        for kind in NAMES:
            rows += outages(kind)
    print_rows(rows)


if __name__ == "__main__":
    main()
