"""What one slow site costs the others.

    python bench/slow.py

32 clients ask a spawned site whose every answer takes two seconds; four ask another site, in the workers and in a
process of its own. The ratio is of its 99th percentile meanwhile to that when nobody is slow, in rounds that take
turns.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import HELLO, Row, Server, median, new_home, print_rows, wrk_command

from tests.servers.harness import ask, gunicorn

SLOW = """\
import time


def application(environ, start_response):
    time.sleep(2)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"slow\\n"]
"""
SLOW_ONES = 32
CONNECTIONS = 4
ROUNDS = 6
SECONDS = 4
SERVERS = {
    "gthread, 2 workers of 8 threads": ("gthread", "--workers", "2", "--threads", "8"),
    "sync, 3 workers": ("sync", "--workers", "3"),
}
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class SlowLoad:
    """Clients that ask the slow site again and again."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers = 0
        self.failures: list[str] = []
        self._stop = threading.Event()

    def ask(self) -> None:
        while not self._stop.is_set():
            try:
                answer = ask(self.port, "slow.test")
            except OSError as error:
                self.failures.append(repr(error))
                continue
            self.answers += 1
            if (answer.status, answer.body) != (200, b"slow\n"):
                self.failures.append(f"{answer.status} {answer.text[:80]}")

    @contextmanager
    def running(self) -> Iterator[None]:
        self._stop.clear()
        threads = [threading.Thread(target=self.ask, daemon=True) for _ in range(SLOW_ONES)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()


def worst_hundredth(port: int, host: str) -> tuple[float, int]:
    """The 99th percentile in milliseconds, and how many requests failed."""
    command = [*wrk_command(port, host, SECONDS, CONNECTIONS), "--latency"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"99%\s+([\d.]+)(us|ms|s)", report)
    assert found, report
    failures = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    return float(found[1]) * UNITS[found[2]], int(failures[1]) if failures else 0


def rows_of(what: str, kind: str, *options: str) -> list[Row]:
    """One kind of server."""
    quiet: dict[str, list[float]] = {"near": [], "far": []}
    loud: dict[str, list[float]] = {"near": [], "far": []}
    failed = 0
    with new_home() as home:
        home.site("slow", SLOW, mode="spawned", threads=str(SLOW_ONES))
        home.site("near", HELLO)
        home.site("far", HELLO, mode="spawned")
        with gunicorn(home, kind, *options) as server:
            slow = SlowLoad(server.port)
            for number in range(ROUNDS + 1):
                for figures in (quiet, loud) if number % 2 else (loud, quiet):
                    failed += one_round(server, figures, slow if figures is loud else None)
    rows = []
    for site, where in (("near", "a site in the workers"), ("far", "another spawned site")):
        ratio = median(a / b for a, b in list(zip(loud[site], quiet[site], strict=True))[1:])
        figure = f"{ratio:.2f} ({median(loud[site][1:]):.1f} ms over {median(quiet[site][1:]):.1f} ms)"
        told = f"p99 of {where} beside {SLOW_ONES} two-second requests over quiet, {what}"
        rows.append(Row(told, figure, "≤ 1.5", ratio <= 1.5))
    failed += len(slow.failures)
    answers = f"{failed}; {slow.answers} slow answers"
    return [*rows, Row(f"failed requests of all three sites, {what}", answers, "0", not failed)]


def one_round(server: Server, figures: dict[str, list[float]], slow: SlowLoad | None) -> int:
    """Measure both sites, with or without slow requests; returns how many failed."""
    failed = 0

    def measure_both() -> None:
        nonlocal failed
        for site, values in figures.items():
            value, failures = worst_hundredth(server.port, f"{site}.test")
            values.append(value)
            failed += failures

    if slow is None:
        measure_both()
    else:
        with slow.running():
            measure_both()
    return failed


def measure() -> list[Row]:
    return [row for what, (kind, *options) in SERVERS.items() for row in rows_of(what, kind, *options)]


if __name__ == "__main__":
    print_rows(measure())
