"""A thousand enabled sites, twenty backends at most, and a load that asks a few sites often and all of them sometimes.

    python bench/zipf.py [--seconds 120] [--sites 1000] [--backends 20] [--clients 16] [--worker gthread]

Every answer is checked: the site's own name, and a body that is another for each request. How many backends live is
counted from outside: processes that hold the listening socket of a site. First each site is asked once; then the load
lasts as long as it is told to. Targets: no failed request, never more than `max_backends`, memory of supervisor and
workers flat once all sites are known.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import hashlib
import http.client
import itertools
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import HomeDir, Row, Server, median, new_home, print_rows

from tests.servers.harness import Client, gunicorn

CODE = """\
import hashlib, os, time
BEGAN = time.monotonic()
NAME = __name__.partition("_")[0]


def application(environ, start_response):
    size = int(environ.get("QUERY_STRING") or 0)
    body = (hashlib.sha256(f"{NAME} {environ['PATH_INFO']}".encode()).digest() * (size // 32 + 1))[:size]
    told = [("X-Site", NAME), ("X-Process", f"{os.getpid()} {BEGAN}"), ("Content-Length", str(size))]
    start_response("200 OK", [("Content-Type", "application/octet-stream"), *told])
    return [body]
"""
LISTENS = 0x10000  # __SO_ACCEPTCON in the flags of /proc/net/unix
SAMPLE_EVERY, WEIGH_EVERY = 0.03, 2.0  # seconds
FLAT = 0.1  # of the size, a minute
QUIET = 5.0  # seconds without a request at the end


@dataclass
class Options:
    """What is asked of whom."""

    seconds: float = 120.0
    sites: int = 1000
    backends: int = 20
    clients: int = 16
    worker: str = "gthread"
    exponent: float = 1.0


class Zipf:
    """Numbers below `count`, the n-th of which comes with a weight of 1 / n ** exponent."""

    def __init__(self, count: int, exponent: float) -> None:
        self._sums = list(itertools.accumulate(1 / (n + 1) ** exponent for n in range(count)))

    def draw(self, chance: random.Random) -> int:
        return bisect.bisect(self._sums, chance.random() * self._sums[-1])


# --- the load -------------------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """All answers: milliseconds, whether the process began after the request, and what was wrong."""

    warm: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    processes: set[str] = field(default_factory=set)
    sites: set[str] = field(default_factory=set)

    @property
    def count(self) -> int:
        return len(self.warm) + len(self.cold) + len(self.failures)


def tour(port: int, options: Options, seed: int, asked: Asked) -> None:
    """Ask this client's share of all sites once each."""
    for number in range(seed, options.sites, options.clients):
        ask(port, f"s{number}", "/first", 100, asked)


def visit(port: int, options: Options, seed: int, until: float, asked: Asked) -> None:
    """Ask one site after another until it is time."""
    chance, zipf = random.Random(seed), Zipf(options.sites, options.exponent)
    number = 0
    while time.monotonic() < until:
        number += 1
        name = f"s{zipf.draw(chance)}"
        size = int(10 ** chance.uniform(1, 5.3))
        ask(port, name, f"/{seed}/{number}", size, asked)


def at_once(clients: int, what: Callable[[int], None]) -> None:
    """Have so many clients do it, each with its number."""
    threads = [threading.Thread(target=what, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def ask(port: int, name: str, path: str, size: int, asked: Asked) -> None:
    """One request, and everything that can be said of its answer."""
    right = (hashlib.sha256(f"{name} {path}".encode()).digest() * (size // 32 + 1))[:size]
    client, began = Client(port, timeout=60), time.monotonic()
    try:
        answer = client.ask(f"{name}.test", f"{path}?{size}")
        took = time.monotonic() - began
    except (OSError, http.client.HTTPException) as error:
        asked.failures.append(f"{name}: {error!r} after {time.monotonic() - began:.1f} s")
        return
    finally:
        client.close()
    if answer.status != 200 or answer.headers.get("x-site") != name or answer.body != right:
        asked.failures.append(f"{name}: {answer.status} after {took:.1f} s: {answer.body[:300]!r}")
        return
    pid, started = answer.headers["x-process"].split()
    (asked.cold if float(started) > began else asked.warm).append(took * 1000)
    asked.processes.add(f"{name} {pid} {started}")
    asked.sites.add(name)


# --- what is watched from outside -----------------------------------------------------------------------------------


def descendants(pid: int) -> list[int]:
    """All processes below `pid`."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found[1:]


def site_sockets(home: HomeDir) -> set[str]:
    """The listening sockets of all sites, as /proc/PID/fd names them."""
    folder, found = f"{home.runtime}/multisite/sites/", set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(None, 7)
        if len(fields) > 7 and fields[7].startswith(folder) and int(fields[3], 16) & LISTENS:
            found.add(f"socket:[{fields[6]}]")
    return found


def holds_one(pid: int, sockets: set[str]) -> bool:
    """Tell whether a process has one of these sockets open; a preloader does so for a moment, to pass it on."""
    with contextlib.suppress(OSError):
        if b":%preloader:" in Path(f"/proc/{pid}/environ").read_bytes():
            return False
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}") in sockets:
                    return True
    return False


def pss(pid: int) -> float:
    """MiB, 0 when the process is gone."""
    with contextlib.suppress(OSError):
        found = re.search(r"Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


def processor_seconds(pid: int) -> float:
    """What a process used so far (proc(5): utime and stime); 0 when it is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


@dataclass
class Watch:
    """Samples taken beside the load."""

    home: HomeDir
    server: Server
    most: int = 0
    counts: list[int] = field(default_factory=list)
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {"supervisor": [], "workers": []})

    def supervisor(self) -> int:
        """Its process, which has signed the lock; 0 before there is one."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int((self.home.runtime / "multisite" / "supervisor.lock").read_text().split()[0])
        return 0

    def count(self) -> None:
        supervisor = self.supervisor()
        if supervisor:
            sockets = site_sockets(self.home)
            self.counts.append(sum(holds_one(pid, sockets) for pid in descendants(supervisor)))

    def weigh(self, now: float) -> None:
        self.memory["supervisor"].append((now, pss(self.supervisor())))
        self.memory["workers"].append((now, sum(map(pss, self.server.workers()))))


@contextlib.contextmanager
def repeated(what: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call it again and again beside the block."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(seconds):
            what()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def slope(samples: list[tuple[float, float]]) -> float:
    """Units a minute of the line that fits best."""
    times, values = zip(*samples, strict=True)
    at, middle = sum(times) / len(times), sum(values) / len(values)
    square = sum((one - at) ** 2 for one in times) or 1.0
    return 60 * sum((one - at) * (value - middle) for one, value in samples) / square


# --- the table ------------------------------------------------------------------------------------------------------


def fill(home: HomeDir, options: Options) -> None:
    """The enabled sites, each with a process of its own."""
    home.conf(
        f"[projects]\nread = sites-enabled/*.ini\n[supervisor]\nallow_root = yes\nmax_backends = {options.backends}\n"
    )
    for number in range(options.sites):
        home.site(f"s{number}", CODE, mode="spawned")


@dataclass
class Used:
    """Seconds, and seconds of the processor."""

    seconds: float
    supervisor: float
    workers: float
    quiet: float = 0.0  # share of a processor that the supervisor takes when nobody asks


def measure(options: Options | None = None) -> list[Row]:
    options = options or Options()
    first, asked = Asked(), Asked()
    with new_home() as home:
        fill(home, options)
        with gunicorn(home, options.worker, "--workers", "2", "--threads", "8") as server:
            watch = Watch(home, server)
            with repeated(watch.count, SAMPLE_EVERY):
                at_once(options.clients, lambda number: tour(server.port, options, number, first))
                used = load(options, watch, asked)
            before = processor_seconds(watch.supervisor())
            time.sleep(QUIET)
            used.quiet = (processor_seconds(watch.supervisor()) - before) / QUIET
    for failure in (first.failures + asked.failures)[:20]:
        print(failure, file=sys.stderr)
    return rows(options, first, asked, watch, used)


def load(options: Options, watch: Watch, asked: Asked) -> Used:
    """The load itself, and what it took."""
    server, supervisor, began = watch.server, watch.supervisor(), time.monotonic()
    before = [processor_seconds(supervisor), sum(map(processor_seconds, server.workers()))]
    with repeated(lambda: watch.weigh(time.monotonic()), WEIGH_EVERY):
        at_once(options.clients, lambda number: visit(server.port, options, number, began + options.seconds, asked))
    after = [processor_seconds(supervisor), sum(map(processor_seconds, server.workers()))]
    return Used(time.monotonic() - began, after[0] - before[0], after[1] - before[1])


def rows(options: Options, first: Asked, asked: Asked, watch: Watch, used: Used) -> list[Row]:
    name = f"{options.sites:,} sites, {options.backends} backends, {used.seconds:.0f} s"
    most, starts, took = max(watch.counts, default=0), len(asked.processes), used.seconds
    failures, count = len(first.failures) + len(asked.failures), first.count + asked.count
    sites = len(first.sites | asked.sites)
    costs = f"{used.supervisor / max(1, starts) * 1000:.1f} ms a start, workers "
    costs += f"{used.workers / max(1, asked.count) * 1000:.1f} ms a request"
    found = [
        Row(
            f"{name}: wrong or failed answers", f"{failures} of {count:,}", "0", not failures and sites == options.sites
        ),
        Row(
            f"{name}: backends alive, of {len(watch.counts):,} samples",
            f"{most} at most",
            f"≤ {options.backends}",
            0 < most <= options.backends,
        ),
        Row(f"{name}: warm", f"{len(asked.warm):,} requests, {percentiles(asked.warm)}"),
        Row(f"{name}: cold", f"{len(asked.cold):,} requests, {percentiles(asked.cold)}"),
        Row(f"{name}: throughput", f"{asked.count / took:.0f} requests and {starts / took:.1f} starts a second"),
        Row(f"{name}: processor time of the supervisor", costs),
        Row(f"{name}: processor time of the supervisor at rest", f"{used.quiet * 1000:.1f} ms a second"),
    ]
    for who, samples in watch.memory.items():
        late = samples[len(samples) // 2 :]
        grows = slope(late) / median(size for _, size in late)
        figure = f"{late[0][1]:.1f} to {late[-1][1]:.1f} MiB in the second half, {grows:+.1%} a minute"
        found.append(Row(f"{name}: memory of the {who} (PSS)", figure, f"≤ {FLAT:.0%} a minute", grows <= FLAT))
    return found


def percentiles(times: list[float]) -> str:
    if not times:
        return "none"
    ordered = sorted(times)
    return f"p50 {median(ordered):.0f} ms, p99 {ordered[int(len(ordered) * 0.99)]:.0f} ms, worst {ordered[-1]:.0f} ms"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for key, default in vars(Options()).items():
        parser.add_argument(f"--{key}", type=type(default), default=default)
    table = measure(Options(**vars(parser.parse_args())))
    print_rows(table)
    sys.exit(int(any(row.met is False for row in table)))
