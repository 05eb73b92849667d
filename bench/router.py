"""uWSGI's Fastrouter and ours, side by side on the same uWSGI nodes, behind the same nginx.

    python bench/router.py

Two nodes announce themselves to both. nginx speaks uwsgi to the Fastrouter, and HTTP to one worker of gunicorn with
multisite. The ratios are of requests a second and, because other processes disturb those, of the processor time that
all behind nginx use for one request; of the 99th percentile, too. A page takes its node a millisecond of processor
time, a bare answer none.

Also: a front end that goes straight to a site's socket, against the same front end before a uWSGI started by hand; what
the mappers add to a request; and what a mapping file of 100,000 lines takes.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import HomeDir, Row, Server, free_port, median, new_home, print_rows, wrk_command

from tests.servers.harness import ask, eventually, find_program

NODE = """\
import time

HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "6")]


def application(environ, start_response):
    if environ["PATH_INFO"] == "/page":
        until = time.thread_time() + 0.001
        while time.thread_time() < until:
            pass
    start_response("200 OK", HEADERS)
    return [b"hello\\n"]
"""
CONF = """\
[projects]
read = sites-enabled/*.ini
[supervisor]
allow_root = yes
[router]
subscription_server = 127.0.0.1:{}
"""
NGINX = """\
daemon off;
worker_processes 1;
pid {root}/nginx.pid;
error_log stderr;
user root;
events {{}}
http {{
    access_log off;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    proxy_set_header Host $http_host;
    uwsgi_param REQUEST_METHOD $request_method;
    uwsgi_param REQUEST_URI $request_uri;
    uwsgi_param PATH_INFO $document_uri;
    uwsgi_param QUERY_STRING $query_string;
    uwsgi_param CONTENT_TYPE $content_type;
    uwsgi_param CONTENT_LENGTH $content_length;
    uwsgi_param SERVER_PROTOCOL $server_protocol;
    uwsgi_param REQUEST_SCHEME $scheme;
    uwsgi_param REMOTE_ADDR $remote_addr;
    uwsgi_param REMOTE_PORT $remote_port;
    uwsgi_param SERVER_PORT $server_port;
    uwsgi_param SERVER_NAME $server_name;
{servers}
}}
"""
KEY = "key.test"
PATHS = {"a page of 1 ms": "/page", "a bare answer": "/"}
TARGETS = {"a page of 1 ms": 0.6, "a bare answer": 0.37}
WORKERS = {"sync": (), "gthread": ("--threads", "4")}
SLOWEST = 1.5  # of the Fastrouter's 99th percentile
ROUNDS = 12
SECONDS = 1
CONNECTIONS = 8

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


# --- who is measured -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def uwsgi(log: Path, *options: str) -> Iterator[int]:
    """A uWSGI as it is started by hand; yields the number of its process."""
    program = find_program("uwsgi") or sys.exit("bench: uwsgi is missing (apt-get install uwsgi uwsgi-plugin-python3)")
    plugins = ["--plugins-dir", "/usr/lib/uwsgi/plugins"] if program == "/usr/bin/uwsgi" else []
    with log.open("ab") as file:
        argv = [program, *plugins, "--master", "--die-on-term", *options]
        process = subprocess.Popen(argv, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def nginx(root: Path, *passes: str) -> Iterator[list[int]]:
    """Ports of an nginx, one for each directive."""
    program = find_program("nginx") or sys.exit("bench: nginx is missing (apt-get install nginx-light)")
    ports = [free_port() for _ in passes]
    servers = "\n".join(
        f"server {{ listen 127.0.0.1:{port}; location / {{ {each}; }} }}"
        for port, each in zip(ports, passes, strict=True)
    )
    root.mkdir(exist_ok=True)
    settings = root / "nginx.conf"
    settings.write_text(NGINX.format(root=root, servers=servers))
    with Server([program, "-p", str(root), "-c", str(settings)], ports[0], root / "log", dict(os.environ)):
        yield ports


def with_children(pid: int) -> set[int]:
    """A process and its own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {pid}.union(*(with_children(int(child)) for child in children))


def processor_seconds(pids: set[int]) -> float:
    """What these processes used so far (proc(5): utime and stime)."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


@dataclass
class Side:
    """One of the ways to the nodes: its port, and the figures of its rounds."""

    port: int
    pids: Callable[[], set[int]]
    host: str = KEY
    rates: list[float] = field(default_factory=list)
    slowest: list[float] = field(default_factory=list)
    each: list[float] = field(default_factory=list)

    def ask(self, path: str, counts: bool) -> None:
        """One round."""
        before = processor_seconds(self.pids())
        command = wrk_command(self.port, self.host, SECONDS, CONNECTIONS, path)
        report = subprocess.run([*command, "--latency"], capture_output=True, text=True, check=True).stdout
        used = processor_seconds(self.pids()) - before
        assert "Non-2xx" not in report and "Socket errors" not in report, report
        if counts:
            number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", report).groups()
            self.rates.append(float(re.search(r"Requests/sec:\s+([\d.]+)", report)[1]))
            self.slowest.append(float(number) * _UNITS[unit])
            self.each.append(used / int(re.search(r"(\d+) requests in", report)[1]) * 1e6)


def interleaved(sides: list[Side], path: str) -> None:
    """The rounds of all sides in turn, there and back."""
    for side in sides:
        side.rates, side.slowest, side.each = [], [], []
    for number in range(ROUNDS + 1):  # the first round is for warming up
        for side in sides if number % 2 else reversed(sides):
            side.ask(path, bool(number))


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, str]:
    """The median of the rounds' ratios, and what to say of it."""
    found = [one / other for one, other in zip(ours, theirs, strict=True)]
    return median(found), f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f}"


# --- the two routers -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def both() -> Iterator[dict[str, Side]]:
    """The Fastrouter and ours, with the same two nodes."""
    theirs, at_theirs, at_ours = free_port(), free_port(), free_port()
    with new_home() as home, contextlib.ExitStack() as stack:
        home.conf(CONF.format(at_ours))
        (home.path / "node.py").write_text(NODE)
        log = home.path / "log"
        log.mkdir(exist_ok=True)
        subscriptions = "--fastrouter-subscription-server", f"127.0.0.1:{at_theirs}"
        router = stack.enter_context(
            uwsgi(log / "fastrouter", "--plugin", "fastrouter", "--fastrouter", f"127.0.0.1:{theirs}", *subscriptions)
        )
        servers = {worker: stack.enter_context(gunicorn(home, worker)) for worker in WORKERS}
        for server in servers.values():
            server.ask(KEY)  # which has the supervisor started, and with it the subscription server
        eventually(lambda: "subscription_server" not in home.multisite("status") and is_open(at_ours), 30, "it is open")
        nodes = [
            stack.enter_context(node(home, log / f"node{number}", number, at_theirs, at_ours)) for number in range(2)
        ]
        others = [f"proxy_pass http://127.0.0.1:{server.port}" for server in servers.values()]
        ports = stack.enter_context(nginx(home.path / "nginx", f"uwsgi_pass 127.0.0.1:{theirs}", *others))
        for port in ports:
            eventually(lambda: is_answered(port), 60, f"the nodes are known behind {port}")  # noqa: B023

        def pids_of(more: Callable[[], set[int]]) -> Callable[[], set[int]]:
            return lambda: more() | {pid for each in nodes for pid in with_children(each)}

        sides = {"fastrouter": Side(ports[0], pids_of(lambda: with_children(router)))}
        for port, (worker, server) in zip(ports[1:], servers.items(), strict=True):
            sides[worker] = Side(port, pids_of(server.workers))
        yield sides


def node(home: HomeDir, log: Path, number: int, *servers: int) -> contextlib.AbstractContextManager[int]:
    """A uWSGI that announces itself to some subscription servers."""
    options = ["--plugin", "python3", "--wsgi-file", str(home.path / "node.py"), "--disable-logging"]
    options += [part for port in servers for part in ("--subscribe-to", f"127.0.0.1:{port}:{KEY}")]
    return uwsgi(log, "--socket", f"127.0.0.1:{free_port()}", *options)


def gunicorn(home: HomeDir, worker: str) -> Server:
    """One worker of this kind with multisite."""
    port = free_port()
    argv = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1", "--no-control-socket"]
    log = home.path / "log" / f"gunicorn-{worker}"
    return Server([*argv, *WORKERS[worker], "multisite.service:application"], port, log, home.environ())


def is_open(port: int) -> bool:
    """Whether somebody receives at this port of UDP."""
    return f":{port:04X}" in Path("/proc/net/udp").read_text()


def is_answered(port: int) -> bool:
    """Whether the key is answered there."""
    with contextlib.suppress(OSError):
        return ask(port, KEY).body == b"hello\n"
    return False


def routers() -> list[Row]:
    """Throughput, processor time and tails of both routers."""
    rows = []
    with both() as sides:
        theirs = sides["fastrouter"]
        for what, path in PATHS.items():
            interleaved(list(sides.values()), path)
            for worker in WORKERS:
                ours = sides[worker]
                told = f"{what} through the router over the Fastrouter, gunicorn {worker}"
                rate, text = ratio(ours.rates, theirs.rates)
                least = TARGETS[what]
                wanted = f"≥ {least}", rate >= least
                rows.append(Row(told, f"{text}; Fastrouter {median(theirs.rates):,.0f} requests/s)", *wanted))
                _, text = ratio(ours.each, theirs.each)
                figures = f"{median(theirs.each):.0f} µs, ours {median(ours.each):.0f} µs"
                rows.append(Row(f"processor time of {told}", f"{text}; Fastrouter {figures})"))
                slowness, text = ratio(ours.slowest, theirs.slowest)
                figures = f"{text}; Fastrouter {median(theirs.slowest):.1f} ms)"
                at_most = (f"≤ {SLOWEST}", slowness <= SLOWEST) if worker == "gthread" and path == "/page" else ()
                rows.append(Row(f"99th percentile of {told}", figures, *at_most))
    return rows


# --- straight to a site's socket -------------------------------------------------------------------------------------


def straight() -> list[Row]:
    """nginx to the socket of a uWSGI site, against nginx to a uWSGI started by hand with the same options."""
    with new_home() as home, contextlib.ExitStack() as stack:
        place = home.site("site", NODE, mode="spawned", server="uwsgi", protocol="uwsgi")
        file = home.path / "sites-available" / "site.ini"
        file.write_text(f"{file.read_text()}[env]\nUWSGI_DISABLE_LOGGING = true\n")  # else each writes a line a request
        options = ["--disable-logging"]
        options += ["--plugin", "python3", "--need-app", "--auto-procname", "--harakiri", "60"]
        socket = home.path / "hand.sock"
        hand = stack.enter_context(
            uwsgi(home.path / "hand", "--socket", str(socket), *options, "--chdir", str(place), "--module", "site_app")
        )
        behind = stack.enter_context(gunicorn(home, "sync"))
        assert behind.ask("site.test").status == 200, behind.log()
        eventually(socket.exists, 20, "uWSGI serves")
        domain = home.runtime / "multisite" / "domains" / "site.test" / "uwsgi.sock"
        to = (f"uwsgi_pass unix:{socket}", f"uwsgi_pass unix:{domain}")
        ports = stack.enter_context(nginx(home.path / "nginx", *to))
        ours = set(home.processes(backends=True))
        theirs = Side(ports[0], lambda: with_children(hand), "site.test")
        mine = Side(ports[1], lambda: ours, "site.test")
        interleaved([theirs, mine], "/")
    rate, text = ratio(mine.rates, theirs.rates)
    figures = f"{median(theirs.each):.0f} µs, the site's {median(mine.each):.0f} µs"
    told = "nginx straight to a uWSGI site's socket over nginx and uWSGI by hand"
    return [
        Row(told, f"{text}; by hand {median(theirs.rates):,.0f} requests/s)", "≥ 0.97", rate >= 0.97),
        Row(f"processor time of {told}", f"{ratio(mine.each, theirs.each)[1]}; by hand {figures})"),
    ]


# --- in one process --------------------------------------------------------------------------------------------------

MAPPERS = ("map", "pattern", "subscription", "base", "code", "sql", "to")
BLOCKS = 101
CALLS = 1_000
LINES = 100_000
MOST_ADDED = 5.0  # µs
MOST_BYTES = 300

MAPPER = """\
nodes = ["127.0.0.1:3031", "127.0.0.1:3032"]
turn = 0


def get(key):
    global turn
    turn += 1
    return nodes[turn % 2]
"""


def mappers() -> list[Row]:
    """What each mapper adds to a warm request, and what a large mapping file takes."""
    rows = []
    for mapper in MAPPERS:
        with new_home() as home:
            added = in_a_child(home, mapper)["added"]
            told = f"{mapper}: added to a request whose node is known"
            rows.append(Row(told, f"{added:.2f} µs", f"≤ {MOST_ADDED:g} µs", added <= MOST_ADDED))
    with new_home() as home:
        found = in_a_child(home, "lines")
    took = f"{found['first']:.2f} s, {found['again']:.2f} s when a line has changed"
    sizes = f"{found['bytes']:.0f} bytes, {found['later']:.0f} after it was read again"
    until = found["until"]
    fits = max(found["bytes"], found["later"]) <= MOST_BYTES
    return [
        *rows,
        Row(f"mapping file of {LINES:,} lines: memory for each", sizes, f"≤ {MOST_BYTES} bytes", fits),
        Row(f"mapping file of {LINES:,} lines: processor time to read it", took),
        Row("the same: from a changed line to an answer by it", f"{until:.2f} s", "≤ 1 s", until <= 1),
    ]


def in_a_child(home: HomeDir, what: str) -> dict[str, float]:
    """The figures that a fresh process prints."""
    argv = [sys.executable, __file__, "--child", what]
    done = subprocess.run(argv, env=home.environ(), cwd=home.path, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def child(what: str) -> None:
    """Measure in this process and print the figures as JSON."""
    print(json.dumps(lines_child() if what == "lines" else mapper_child(what)))


def mapper_child(name: str) -> dict[str, float]:
    """What a request costs from the host that nobody claims to the node that it is sent to."""
    from multisite.router import router

    routed, environ = routed_by(name)
    router.relay = lambda destination, environ, start_response: destination._order(environ)[0]

    def block(app: Callable[..., object]) -> float:
        began = time.process_time_ns()
        for _ in range(CALLS):
            app(dict(environ), None)
        return (time.process_time_ns() - began) / CALLS / 1000

    def nobody(environ: object, start_response: object) -> None:
        pass

    assert str(routed.app(dict(environ), None).proxy.endpoint).startswith("uwsgi")
    block(routed.app)
    pairs = [(block(nobody), block(routed.app)) for _ in range(BLOCKS)]
    return {"added": median(ours - bare for bare, ours in pairs)}


def routed_by(name: str):
    """Who answers a key by this mapper, and a request for it."""
    from multisite.config.read import read_home
    from multisite.router import router

    Path("map.txt").write_text(f"other.test 127.0.0.1:3030\n{KEY} 127.0.0.1:3031|127.0.0.1:3032\n")
    Path("mapper.py").write_text(MAPPER)
    folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "base"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / KEY))
    home = read_home(os.environ["MOYA_SERVICE_HOME"])
    values = {
        "map": {"map": "map.txt"},
        "pattern": {"pattern": f"{folder}/%s"},
        "base": {"base": str(folder)},
        "code": {"code": "mapper.py:get"},
        "sql": {"sql": "sqlite:///map.db", "query": "SELECT '127.0.0.1:3031|127.0.0.1:3032' WHERE :key != ''"},
        "to": {"to": ("127.0.0.1:3031", "127.0.0.1:3032")},
        "subscription": {"subscription_server": ("127.0.0.1:1",)},
    }[name]
    if name == "subscription":
        published(home)
    environ = {"HTTP_HOST": KEY, "PATH_INFO": "/", "SCRIPT_NAME": "", "REMOTE_ADDR": "127.0.0.1"}
    routed = router.Router(replace(home, router=replace(home.router, **values))).answering(environ, "", False)
    assert routed, f"nobody answers by {name}"
    return routed, environ


def published(home: object) -> None:
    """Publish two nodes as a supervisor does."""
    from multisite.control.rundir import RuntimeDir
    from multisite.router.announcement import Announcement
    from multisite.router.pool import Pool
    from multisite.router.published import Publisher

    pool = Pool()
    for port in (3031, 3032):
        pool.take(Announcement(KEY, f"127.0.0.1:{port}"), time.monotonic())
    rundir = RuntimeDir(home)
    rundir.make()
    publisher = Publisher(rundir)
    publisher.publish(pool)
    publisher.beat()


def lines_child() -> dict[str, float]:
    """What a mapping file of many lines takes, each with a node of its own."""
    from multisite.router import mappers
    from multisite.router.groups import Groups

    path = Path("map.txt")
    lines = [
        f"customer{number}.example.com 10.{number >> 16}.{number >> 8 & 255}.{number & 255}:3031"
        for number in range(LINES)
    ]
    path.write_text("\n".join(lines) + "\n")
    groups = Groups()
    gc.collect()
    before, began = memory(), time.process_time()
    found = mappers.MapFile(str(path), groups)
    first, size = time.process_time() - began, memory() - before
    lines[LINES // 2] = "customer50000.example.com 10.9.9.9:3031"
    draft = path.with_suffix(".new")
    draft.write_text("\n".join(lines) + "\n")
    looks, changed, began = 1, time.monotonic(), time.process_time()
    draft.replace(path)
    while "10.9.9.9" not in str(found.find("customer50000.example.com")):
        if time.monotonic() - changed >= looks * mappers.LOOK_EVERY:
            looks += 1
            found.look()
        time.sleep(0.001)
    until, again = time.monotonic() - changed, time.process_time() - began
    return {"first": first, "again": again, "bytes": size / LINES, "later": (memory() - before) / LINES, "until": until}


def memory() -> int:
    """Bytes that this process has (PSS)."""
    return int(re.search(r"^Pss:\s+(\d+)", Path("/proc/self/smaps_rollup").read_text(), re.M)[1]) * 1024


def measure() -> list[Row]:
    return [*routers(), *straight(), *mappers()]


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(sys.argv[-1])
    else:
        print_rows(measure())
