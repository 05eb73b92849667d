"""What it costs a site that everything about it is seen.

    python bench/seen.py

hello in the workers of two servers, in turn. One has status pages with a browser on ``/events``, metrics that are
scraped every 15 seconds, a supervisor that keeps histories and the bill, and a command for events. The other has
nothing of that; every request is counted there, too, because nothing turns that off. Target: at least 0.97 of the
throughput. An access log is measured by itself (`accesslog`).
"""

from __future__ import annotations

import contextlib
import http.client
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import HELLO, HomeDir, Row, Server, eventually, fill, median, middle, new_home, print_rows
from dispatch import ask_and_account, hello_server

ROUNDS = 24  # short ones: what else runs on the machine falls out of the medians
SCRAPED_EVERY = 15.0  # seconds
RETRY = 2.0  # seconds until a browser asks for events again
STATUS = "status.test"


def watched_home(home: HomeDir) -> None:
    """Turn everything on, and have a supervisor with a site to look after."""
    conf = (home.path / "moya.conf").read_text()
    home.conf(f"[service]\nstatus_domain = {STATUS}\n[events]\ncommand = /bin/true\n{conf}")
    home.site("neighbour", HELLO, mode="spawned")


def get(port: int, path: str) -> bytes:
    """Return a status page, or all events of one answer."""
    wire = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(wire):
        wire.request("GET", path, headers={"Host": STATUS})
        answer = wire.getresponse()
        assert answer.status == 200, answer.status
        return answer.read()


@contextlib.contextmanager
def looked_at(server: Server) -> Iterator[None]:
    """Scrape the metrics, and follow the events, as long as the block lasts."""
    done = threading.Event()

    def again(path: str, pause: float) -> None:
        while not done.is_set():
            get(server.port, path)
            done.wait(pause)

    threads = [threading.Thread(target=again, args=each) for each in (("/metrics", SCRAPED_EVERY), ("/events", RETRY))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def compare(worker_class: str) -> list[Row]:
    """Throughput and processor time of workers with everything on over those with nothing."""
    host = f"{middle(1)}.test"
    with new_home() as plain, new_home() as home:
        for each in (plain, home):
            fill(each, 1)
        watched_home(home)
        off = hello_server(plain, worker_class, "multisite.service:application")
        on = hello_server(home, worker_class, "multisite.service:application")
        with off, on:
            assert on.ask("neighbour.test").status == 200 and home.processes(backends=True)
            for server in (off, on):
                assert server.ask(host).body == b"hello\n"
            eventually(lambda: b"multisite_supervisor_up 1.0" in get(on.port, "/metrics"), 30, "a supervisor")
            used = {off.port: [0.0, 0], on.port: [0.0, 0]}  # seconds of processor time, requests
            ratios = []
            with looked_at(on):
                for number in range(ROUNDS + 1):
                    order = (off, on) if number % 2 else (on, off)
                    rate = {server.port: ask_and_account(server, host, used[server.port]) for server in order}
                    ratios.append(rate[on.port] / rate[off.port])
    ratio = median(ratios[1:])  # the first round was for warming up
    each = {port: seconds / requests * 1e6 for port, (seconds, requests) in used.items()}
    share = each[on.port] / each[off.port]
    what = f"hello with everything seen over nothing, gunicorn {worker_class}"
    figure = f"{ratio:.3f} ({min(ratios[1:]):.2f} to {max(ratios[1:]):.2f})"
    return [
        Row(f"throughput of {what}", figure, "≥ 0.97", ratio >= 0.97),
        Row(f"processor time of {what}", f"{share:.3f} ({each[off.port]:.0f} µs without)"),
    ]


def measure() -> list[Row]:
    """All rows."""
    return [*compare("sync"), *compare("gthread")]


if __name__ == "__main__":
    print_rows(measure())
