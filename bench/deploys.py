"""Two hundred deploys under constant load, half of them broken: who was answered by what.

    python bench/deploys.py

A site in a process of its own and one in the workers are asked without a pause, each by two clients, while their code
is replaced a hundred times each. Every other version is broken in one of the ways there are; each answer carries its
version. What counts is the number of failed requests, of answers of a bad version, and of good versions that did not
come.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import HomeDir, Row, new_home, print_rows

from tests.servers.harness import ask, gunicorn

DEPLOYS = 100  # of each site
WORKERS = 2
DECIDED_WITHIN = 30.0  # seconds
CODE = """
import os, sys, time
VERSION = b"{version}"
{early}
def application(environ, start_response):
    status = "{health}" if environ["PATH_INFO"] == "/health" else "200 OK"
    start_response(status, [("Content-Length", "{size}"), ("X-Worker", str(os.getpid()))])
    return [VERSION]
"""
BROKEN = {
    "syntax error": "def",
    "missing module": "import there_is_no_such_module",
    "exit": "sys.exit('bye')",
    "500 at smoke_path": "",
    "never ready": "time.sleep(600)",
}
IN_THE_WORKERS = [way for way in BROKEN if way != "never ready"]  # an import cannot be ended there


class Load:
    """Clients of one site: the versions that answered, and what failed."""

    def __init__(self, port: int, name: str) -> None:
        self.versions: Counter[str] = Counter()
        self.processes: set[str] = set()
        self.failures: list[str] = []
        self._port, self._name = port, name
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(2)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                answer = ask(self._port, f"{self._name}.test")
            except OSError as error:
                self.failures.append(repr(error))
                continue
            if answer.status == 200:
                self.versions[answer.text] += 1
                self.processes.add(answer.headers["x-worker"])
            else:
                self.failures.append(f"{answer.status} {answer.text[:80]}")


def code(version: str, way: str) -> str:
    health = "500 Oh" if way == "500 at smoke_path" else "200 OK"
    return CODE.format(version=version, early=BROKEN.get(way, ""), health=health, size=len(version))


def deploy(home: HomeDir, load: Load, name: str, number: int, ways: list[str]) -> bool:
    """Replace the code of a site; returns whether what was to come of it came."""
    way = ways[number // 2 % len(ways)] if number % 2 else ""
    version = f"{'bad' if way else 'good'}{number}"
    file = home.path / "sites" / name / f"{name}_app.py"
    file.write_text(code(version, way))
    if name == "spawned":
        said = home.multisite("restart", "--wait", name)
        return ("the old version goes on" if way else "the new version serves") in said
    os.utime(home.path / "sites-available" / f"{name}.ini")
    deadline = time.monotonic() + DECIDED_WITHIN
    while not way and time.monotonic() < deadline:
        if load.versions[version]:
            return True
        time.sleep(0.02)
    time.sleep(1.5 if way else 0.0)  # every worker has tried it in that time
    return bool(way)


def wait_for_all(load: Load, count: int) -> None:
    """Wait until as many processes have the site: one that loads it first when it is broken has no old version."""
    deadline = time.monotonic() + DECIDED_WITHIN
    while len(load.processes) < count and time.monotonic() < deadline:
        time.sleep(0.02)


def measure() -> list[Row]:
    rows = []
    keys = {"smoke_path": "/health", "start_timeout": "2s"}
    with new_home() as home:
        for name, mode in (("spawned", "spawned"), ("shared", "in-process")):
            home.site(name, code("good0", ""), mode=mode, **keys)
        with gunicorn(home, "gthread", "--workers", str(WORKERS), "--threads", "8") as server:
            for name, ways in (("spawned", list(BROKEN)), ("shared", IN_THE_WORKERS)):
                load = Load(server.port, name)
                load.start()
                wait_for_all(load, 1 if name == "spawned" else WORKERS)
                came = sum(deploy(home, load, name, number, ways) for number in range(1, DEPLOYS + 1))
                load.stop()
                rows += rows_of(name, load, came)
    return rows


def rows_of(name: str, load: Load, came: int) -> list[Row]:
    where = "a process of its own" if name == "spawned" else "the workers"
    bad = sum(count for version, count in load.versions.items() if not version.startswith("good"))
    told = f"{DEPLOYS} deploys, half of them broken, of a site in {where}"
    asked = sum(load.versions.values())
    return [
        Row(f"{told}: failed requests", f"{len(load.failures)} of {asked}", "0", not load.failures),
        Row(f"{told}: answers of a bad version", str(bad), "0", not bad),
        Row(f"{told}: ended as they should", str(came), str(DEPLOYS), came == DEPLOYS),
    ]


if __name__ == "__main__":
    print_rows(measure())
