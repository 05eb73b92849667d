"""One process of a site against ``gunicorn -w1`` started by hand: start, memory, and CPU for each request.

Run it as ``python bench/runner.py``; it needs Flask and FastAPI in the interpreter that runs it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from common import HELLO, Row, median, print_rows

from tests.runner.harness import ENVIRON as VARIABLES
from tests.runner.harness import Backend, envelope, receive_all

FLASK = """\
import flask

application = flask.Flask(__name__)


@application.get("/")
def hello():
    return "hello\\n"
"""
ASGI = """\
import fastapi

application = fastapi.FastAPI()


@application.get("/")
async def hello():
    return "hello"
"""
ROUNDS = 7
REQUESTS = 2000
BROWSER = {
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "HTTP_ACCEPT_LANGUAGE": "en-GB,en;q=0.5",
    "HTTP_ACCEPT_ENCODING": "gzip, deflate, br",
    "HTTP_COOKIE": "session=0123456789abcdef0123456789abcdef",
}
IN_ENVELOPE = envelope({**VARIABLES, **BROWSER})
IN_HTTP = (
    "GET / HTTP/1.0\r\nHost: site.test\r\n"
    + "".join(f"{key[5:].replace('_', '-').title()}: {value}\r\n" for key, value in BROWSER.items())
    + "\r\n"
).encode()


class Running(Protocol):
    """A server of the site."""

    socket_path: str

    def pids(self) -> list[int]: ...
    def close(self) -> None: ...


class Runner(Backend):
    """Ours."""

    def pids(self) -> list[int]:
        return [self.process.pid]


class Gunicorn:
    """``gunicorn -w1`` by hand."""

    def __init__(self, folder: Path, worker: str) -> None:
        self.socket_path = str(folder / "gunicorn.sock")
        command = [sys.executable, "-m", "gunicorn", "-w1", "-k", worker, "--no-control-socket"]
        command += ["-b", f"unix:{self.socket_path}"]
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*command, "app:application"], cwd=folder, stdout=log, stderr=log)

    def pids(self) -> list[int]:
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def ask(path: str, request: bytes) -> bytes:
    """One request on a connection of its own."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(path)
        client.sendall(request)
        return receive_all(client)


def first_answer(start: Callable[[], Running], request: bytes) -> tuple[float, Running]:
    """Milliseconds from the start of the process to its first answer."""
    began = time.monotonic()
    server = start()
    while True:
        try:
            answer = ask(server.socket_path, request)
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.001)
            continue
        assert b" 200 OK" in answer[:20], answer
        return (time.monotonic() - began) * 1000, server


def pss(pids: list[int]) -> float:
    """MiB of the processes together."""
    text = "".join(Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids)
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def cpu(pids: list[int]) -> float:
    """Seconds that the processes have had."""
    ticks = 0
    for pid in pids:
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


Figures = tuple[float, ...]


def run(start: Callable[[], Running], request: bytes) -> Figures:
    """First answer (ms), PSS (MiB), CPU for each request (µs), requests per second."""
    took, server = first_answer(start, request)
    try:
        for _ in range(200):
            ask(server.socket_path, request)
        memory, before, began = pss(server.pids()), cpu(server.pids()), time.monotonic()
        for _ in range(REQUESTS):
            ask(server.socket_path, request)
        used = (cpu(server.pids()) - before) / REQUESTS * 1e6
        return took, memory, used, REQUESTS / (time.monotonic() - began)
    finally:
        server.close()


def measured(*ways: tuple[Callable[[], Running], bytes]) -> list[Figures]:
    """The medians of each way; the ways take turns."""
    runs: list[list[Figures]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for way, done in zip(ways, runs, strict=True):
            done.append(run(*way))
    return [tuple(median(column) for column in zip(*done, strict=True)) for done in runs]


def rows_of(name: str, code: str, worker: str = "sync") -> list[Row]:
    """One app, by hand and by the runner in both languages."""
    with tempfile.TemporaryDirectory(prefix="multisite-bench-") as path:
        numbers = iter(range(1000))

        def folder() -> Path:
            made = Path(path) / str(next(numbers))
            made.mkdir()
            (made / "app.py").write_text(code)
            return made

        hand, relayed, direct, threads = measured(
            (lambda: Gunicorn(folder(), worker), IN_HTTP),
            (lambda: Runner(folder()), IN_ENVELOPE),
            (lambda: Runner(folder()), IN_HTTP),
            (lambda: Runner(folder(), threads=4), IN_ENVELOPE),
        )
    rows = []
    for what, found in (("relayed", relayed), ("straight from a front end", direct), ("relayed, 4 threads", threads)):
        start, memory, used, rate = found
        rows += [
            Row(f"{name}, {what}: first answer", f"{start:.0f} ms, by hand {hand[0]:.0f}", "≤ 1", start <= hand[0]),
            Row(
                f"{name}, {what}: PSS",
                f"{memory:.1f} MiB, by hand {hand[1]:.1f}: {memory / hand[1]:.2f}",
                "≤ 0.75",
                memory <= 0.75 * hand[1],
            ),
            Row(f"{name}, {what}: CPU for each request", f"{used:.0f} µs, by hand {hand[2]:.0f}"),
            Row(f"{name}, {what}: one request after another", f"{rate:.0f}/s, by hand {hand[3]:.0f}"),
        ]
    return rows


def measure() -> list[Row]:
    return rows_of("hello", HELLO) + rows_of("Flask", FLASK) + rows_of("FastAPI", ASGI, "asgi")


if __name__ == "__main__":
    print_rows(measure())
