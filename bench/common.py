"""What the measurements share: homes, load, medians, and the rows of the table."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY))

from tests.servers.harness import HomeDir, Server, eventually, find_program, free_port  # noqa: E402

__all__ = [
    "HomeDir",
    "Row",
    "Server",
    "fill",
    "free_port",
    "loaded",
    "median",
    "middle",
    "new_home",
    "print_rows",
    "wrk",
    "wrk_command",
]

HELLO = """\
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "6")]
BODY = [b"hello\\n"]


def application(environ, start_response):
    start_response("200 OK", HEADERS)
    return BODY
"""


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, the figure, the target, and whether it was met (None: no target)."""

    what: str
    figure: str
    target: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        verdict = {True: "yes", False: "**no**", None: ""}[self.met]
        return f"| {self.what} | {self.figure} | {self.target} | {verdict} |"


def print_rows(rows: list[Row]) -> str:
    """Print the table and return it."""
    table = "\n".join(["| what | measured | target | met |", "| --- | --- | --- | --- |", *map(str, rows)])
    print(table, flush=True)
    return table


median = statistics.median


@contextmanager
def new_home() -> Iterator[HomeDir]:
    """A home in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="multisite-bench-") as path:
        home = HomeDir(Path(path)).create()
        yield home
        eventually(lambda: not home.processes(), 30, "the supervisor has left, and writes no file any more")


def fill(home: HomeDir, count: int) -> None:
    """`count` enabled site files, s0.test and so on; only the middle one (`middle(count)`) has code."""
    for number in range(count):
        name = f"s{number}"
        keys = f"domains = {name}.test, www.{name}.test\nlocation = {home.path}/sites/{name}\n"
        home.ini(name, f"[service]\n{keys}application = hello_of_{name}:application\n")
    home.site(middle(count), HELLO, application=f"hello_of_{middle(count)}:application")


def middle(count: int) -> str:
    """The name of the site that is asked."""
    return f"s{count // 2}"


# --- load -----------------------------------------------------------------------------------------------------------


@dataclass
class Load:
    """What wrk counted."""

    per_second: float = 0.0
    requests: int = 0
    failures: int = 0
    report: str = ""  # what wrk said

    def read(self, report: str) -> None:
        """Take the figures from wrk's report."""
        self.report = report
        self.per_second = float(_number(r"Requests/sec:\s+([\d.]+)", report))
        self.requests = int(_number(r"(\d+) requests in", report))
        self.failures = int(_number(r"Non-2xx or 3xx responses: (\d+)", report))
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", report)
        self.failures += sum(map(int, errors.groups())) if errors else 0


def _number(pattern: str, report: str) -> str:
    found = re.search(pattern, report)
    return found[1] if found else "0"


def wrk_command(port: int, host: str, seconds: int, connections: int, path: str = "/") -> list[str]:
    program = find_program("wrk") or sys.exit("bench: wrk is missing (apt-get install wrk)")
    return [
        program,
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "-H",
        f"Host: {host}",
        f"http://127.0.0.1:{port}{path}",
    ]


def wrk(port: int, host: str, seconds: int, connections: int = 8, path: str = "/") -> Load:
    """Ask one host for so many seconds."""
    load = Load()
    command = wrk_command(port, host, seconds, connections, path)
    load.read(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return load


@contextmanager
def loaded(port: int, host: str, connections: int = 8) -> Iterator[Load]:
    """Ask one host for as long as the block lasts; the figures are there afterwards."""
    import signal

    load = Load()
    asking = subprocess.Popen(wrk_command(port, host, 600, connections), stdout=subprocess.PIPE, text=True)
    try:
        yield load
    finally:
        asking.send_signal(signal.SIGINT)
        load.read(asking.communicate()[0])
