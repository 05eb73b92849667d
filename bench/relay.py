"""A spawned site behind nginx and the dispatcher, against the same site behind nginx and a gunicorn of its own.

The dispatcher relays to the one, and hands its connections over to the other (`[supervisor] hand_over`).

    python bench/relay.py

Each has one worker and one process of the site; nginx speaks HTTP/1.0 to either, as it does by default. The ratios
are of requests a second, and of the processor time that everything behind nginx uses for one request.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import HELLO, HomeDir, Row, Server, free_port, median, new_home, print_rows, wrk

from tests.servers.harness import find_program

FLASK = """\
import flask

application = flask.Flask(__name__)


@application.get("/")
def hello():
    return "hello\\n"
"""
CONF = "[projects]\nread = sites-enabled/*.ini\n[supervisor]\nallow_root = yes\nhand_over = {}\n"
WAYS = {"relayed": "no", "handed over": "yes"}
WORKERS = {"sync": (), "gthread": ("--threads", "4")}
TARGETS = {"relayed": 0.70, "handed over": 1.0}
ROUNDS = 12
SECONDS = 1
CONNECTIONS = 8
HOST = "site.test"

NGINX = """\
daemon off;
worker_processes 1;
pid {root}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
{servers}
}}
"""
BEHIND = """\
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://{upstream};
            proxy_set_header Host $http_host;
        }}
    }}
"""


@contextmanager
def nginx(home: HomeDir, *upstreams: str) -> Iterator[list[int]]:
    """One nginx in front of all; yields a port for each."""
    program = find_program("nginx") or sys.exit("bench: nginx is missing (apt-get install nginx-light)")
    root = home.path / "nginx"
    root.mkdir(exist_ok=True)
    ports = [free_port() for _ in upstreams]
    servers = "".join(BEHIND.format(port=port, upstream=to) for port, to in zip(ports, upstreams, strict=True))
    (root / "nginx.conf").write_text(NGINX.format(root=root, servers=servers))
    argv = [program, "-p", str(root), "-c", str(root / "nginx.conf")]
    with Server(argv, ports[0], root / "nginx.log", home.environ()):
        yield ports


def gunicorn(home: HomeDir, name: str, place: Path, *options: str) -> Server:
    """One sync worker for `name`, at `place`."""
    port = free_port()
    argv = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--chdir", str(place)]
    argv += ["--workers", "1", "--no-control-socket", *options, name]
    log = home.path / "log" / f"{name.partition(':')[0]}-{port}.log"
    return Server(argv, port, log, home.environ())


def processor_seconds(pids: set[int]) -> float:
    """What these processes used so far (proc(5): utime and stime)."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


class Side:
    """One of the ways to the site: its port, and what it has used."""

    def __init__(self, port: int, pids: Callable[[], set[int]]) -> None:
        self.port = port
        self.pids = pids
        self.seconds = 0.0
        self.requests = 0

    def ask(self) -> float:
        """Requests a second of one round."""
        before = processor_seconds(self.pids())
        load = wrk(self.port, HOST, SECONDS, CONNECTIONS)
        assert not load.failures, f"{load.failures} failed requests"
        self.seconds += processor_seconds(self.pids()) - before
        self.requests += load.requests
        return load.per_second

    @property
    def each(self) -> float:
        """Microseconds of processor time a request."""
        return self.seconds / self.requests * 1e6


@contextmanager
def dispatched(code: str, hand_over: str, options: Sequence[str]) -> Iterator[tuple[int, Callable[[], set[int]]]]:
    """The site behind a dispatcher; its port, and the processes that serve it."""
    with new_home() as home:
        home.conf(CONF.format(hand_over))
        home.site("site", code, mode="spawned")
        with gunicorn(home, "multisite.service:application", home.path, *options) as server:
            assert server.ask(HOST).body == b"hello\n"
            backends = set(home.processes(backends=True))
            assert backends
            yield server.port, lambda: server.workers() | backends


def measured(code: str, options: Sequence[str]) -> dict[str, tuple[Side, list[float]]]:
    """Each way, with the requests a second of its rounds."""
    with new_home() as home, ExitStack() as stack:
        place = home.site("site", code, mode="spawned")
        direct = stack.enter_context(gunicorn(home, "site_app:application", place, *options))
        found: dict[str, tuple[int, Callable[[], set[int]]]] = {"directly": (direct.port, direct.workers)}
        for way, hand_over in WAYS.items():
            found[way] = stack.enter_context(dispatched(code, hand_over, options))
        ports = stack.enter_context(nginx(home, *(f"127.0.0.1:{port}" for port, _ in found.values())))
        sides = {way: Side(port, found[way][1]) for way, port in zip(found, ports, strict=True)}
        rates: dict[str, list[float]] = {way: [] for way in sides}
        for number in range(ROUNDS + 1):
            for way in list(sides) if number % 2 else reversed(sides):
                rates[way].append(sides[way].ask())
            if not number:  # the first round was for warming up
                for side in sides.values():
                    side.seconds, side.requests = 0.0, 0
        return {way: (sides[way], rates[way][1:]) for way in sides}


def rows_of(what: str, code: str, worker: str) -> list[Row]:
    """The ratios of one site."""
    found = measured(code, WORKERS[worker])
    bare, bare_rates = found.pop("directly")
    rows = []
    for way, (side, rates) in found.items():
        ratios = [one / other for one, other in zip(rates, bare_rates, strict=True)]
        ratio, processor = median(ratios), bare.each / side.each
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}; directly {median(bare_rates):,.0f} requests/s"
        used = f"directly {bare.each:.0f} µs, {way} {side.each:.0f} µs"
        target = TARGETS[way] if worker == "sync" else 0.0
        told, wanted = f"{what} {way} behind nginx over nginx and gunicorn directly, {worker}", f"≥ {target:.2f}"
        rows += [
            Row(f"{told}: throughput", f"{ratio:.2f} ({spread})", *((wanted, ratio >= target) if target else ())),
            Row(f"{told}: processor time", f"{processor:.2f} ({used})"),
        ]
    return rows


def measure() -> list[Row]:
    return [
        row
        for worker in WORKERS
        for what, code in (("hello", HELLO), ("Flask", FLASK))
        for row in rows_of(what, code, worker)
    ]


if __name__ == "__main__":
    print_rows(measure())
