"""Nodes of a cluster, each with a home and a server, and a site that must not run twice and notes when it runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.servers.harness import PATIENCE, Answer, Client, HomeDir, Server, eventually, free_port, gunicorn

KEY = b"k" * 40
CONF = """[projects]
read = sites-enabled/*.ini
[cluster]
url = {url}
nodes = {nodes}
node = {node}
key_file = {key}
lease = {lease}s
[supervisor]
allow_root = yes
examine = no
"""

# Each process writes a line when it begins and, as long as it runs, others, so that the last one shows how long it did.
# uWSGI's master, which imports this, writes them once it has forked: if its thread has the interpreter at that moment,
# the worker waits for it for ever. A worker with a thread may not end when it is told to.
SITE = """
import os, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
NUMBER = os.environ["MULTISITE_FENCE"]

def note(what):
    file = os.open(os.path.join(HERE, "notes"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{time.clock_gettime_ns(7)} {NUMBER} {os.getpid()} {what}\\n".encode())
    os.close(file)

def write():
    if began is not None:
        os.read(began, 1)
    while True:
        note("runs")
        time.sleep(0.01)

note("begins")
began = None
try:
    import uwsgi
    began, forked = os.pipe()
    uwsgi.post_fork_hook = lambda: os.write(forked, b"x")
except ImportError:
    pass
threading.Thread(target=write, daemon=True).start()

def application(environ, start_response):
    size = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(size) if size else b""
    seen = [NUMBER, environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ.get("HTTP_X_FORWARDED_FOR", "")]
    seen += [environ.get("REMOTE_USER", ""), str("HTTP_X_MULTISITE_RELAY" in environ), body.decode()]
    while environ["PATH_INFO"].startswith("/until/") and not os.path.exists(environ["PATH_INFO"][6:]):
        time.sleep(0.01)
    answer = "|".join(seen).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
"""


@dataclass(frozen=True)
class Noted:
    """What one process of the site has noted: nanoseconds of its first and last line."""

    number: int
    pid: int
    first: int
    last: int


def noted(place: Path) -> list[Noted]:
    """Return the processes that have run, in the order in which they began."""
    found: dict[tuple[int, int], Noted] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (place / "notes").read_text().splitlines():
            moment, number, pid, _what = line.split()
            key = int(number), int(pid)
            first = found[key].first if key in found else int(moment)
            found[key] = Noted(*key, first, int(moment))
    return sorted(found.values(), key=lambda one: one.first)


def overlaps(runs: list[Noted]) -> list[tuple[Noted, Noted]]:
    """Return those that ran at the same time, and those whose number did not grow."""
    return [(one, other) for one, other in pairwise(runs) if _is_wrong(one, other)]


def _is_wrong(one: Noted, other: Noted) -> bool:
    return one.last >= other.first or other.number < one.number


class Gate:
    """The way of one node to the registry: it can be cut, so that nothing passes and nobody is told."""

    def __init__(self, port: int) -> None:
        self._far = port
        self._is_open = threading.Event()
        self._is_open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._is_open.clear()

    def mend(self) -> None:
        self._is_open.set()

    def close(self) -> None:
        self._is_open.set()
        for one in (self._listener, *self._pairs):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._is_open.wait()
        with contextlib.suppress(OSError):
            far = socket.create_connection(("127.0.0.1", self._far))
            self._pairs += [near, far]
            threading.Thread(target=self._pass_on, args=(far, near), daemon=True).start()
            self._pass_on(near, far)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._is_open.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@dataclass
class Node:
    """One machine, as it were."""

    home: HomeDir
    gate: Gate
    keys: dict[str, str] = field(default_factory=dict)
    server: Server = field(init=False)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def ask(self, path: str = "/", **more: object) -> Answer:
        return self.server.ask("clock.test", path, **more)

    def number(self) -> int:
        """Return the number of the lease under which the site answers; 0 where it does not, or not soon."""
        client = Client(self.server.port, timeout=5.0)
        with contextlib.suppress(OSError, HTTPException), contextlib.closing(client.connection):
            answer = client.ask("clock.test")
            return int(answer.text.partition("|")[0]) if answer.status == 200 else 0
        return 0

    def site(self, name: str, more: str = "", **keys: str) -> None:
        """Write the file of the site, which was there before."""
        self.keys |= keys
        lines = [f"{key} = {text}" for key, text in self.keys.items()]
        self.home.ini(name, "\n".join(["[service]", *lines, more]))

    def status(self) -> dict[str, Any]:
        """What ``status`` tells, empty while there is no supervisor."""
        with contextlib.suppress(ValueError):
            told: dict[str, Any] = json.loads(self.home.multisite("--json", "status"))
            return told if told.get("supervisor") else {}
        return {}

    def until(self) -> int:
        """Return the nanosecond of CLOCK_BOOTTIME at which the guards of the site would end it."""
        folder = Path(f"/proc/{self.status()['supervisor']['pid']}/fd")
        fence = next(one for one in folder.iterdir() if "memfd:fence" in os.readlink(one))
        return int.from_bytes(fence.read_bytes(), sys.byteorder)

    @property
    def is_holder(self) -> bool:
        """Whether it has the site's lease, as it reports."""
        found = self.status()
        return bool(found and (found["sites"][0].get("lease") or {}).get("here"))


@dataclass
class Cluster:
    """Several nodes that serve the same site."""

    place: Path
    nodes: list[Node]

    def holder(self) -> Node | None:
        """Return the node in which a process of the site runs."""
        return next((one for one in self.nodes if one.home.processes(backends=True, of="clock")), None)

    def runs(self) -> list[Noted]:
        return noted(self.place)

    def overlaps(self) -> list[tuple[Noted, Noted]]:
        return overlaps(self.runs())

    def partition(self, how: str) -> None:
        """Cut the node off that runs the site, until another process of it answers; then mend it.

        Args:
            how: "cut" its way to the registry, "freeze" or "kill" its supervisor.
        """
        eventually(lambda: [one.is_holder for one in self.nodes].count(True) == 1)
        holder = next(one for one in self.nodes if one.is_holder)
        other = next(one for one in self.nodes if one is not holder)
        supervisor = holder.status()["supervisor"]["pid"]
        last = self.runs()[-1].pid
        if how == "cut":
            holder.gate.cut()
        else:
            os.kill(supervisor, signal.SIGSTOP if how == "freeze" else signal.SIGKILL)
        try:
            # A supervisor that is killed may have a successor in time, which keeps the lease and its number.
            def another() -> bool:
                return other.number() > 0 and self.runs()[-1].pid != last

            eventually(another, PATIENCE, f"another process answers ({how})")
        finally:
            holder.gate.mend()
            if how == "freeze":
                os.kill(supervisor, signal.SIGCONT)


@contextlib.contextmanager
def cluster(folder: Path, engine: str, port: int, count: int = 2, lease: int = 3, **keys: str) -> Iterator[Cluster]:
    """Nodes at an engine: ``{}`` in its URL is the port of each node's own way to it."""
    folder.mkdir(parents=True, exist_ok=True)
    key, place = folder / "key", folder / "clock"
    key.write_bytes(KEY)
    key.chmod(0o600)
    place.mkdir()
    (place / "app.py").write_text(SITE)
    made: list[Node] = []
    for number in range(count):
        (folder / str(number)).mkdir()
        home = HomeDir(folder / str(number)).create()
        node = Node(home, Gate(port))
        node.server = gunicorn(home)
        made.append(node)
    site = {"domains": "clock.test", "location": str(place), "application": "app:application", "exclusive": "yes"}
    with contextlib.ExitStack() as stack:
        for node in made:
            stack.callback(node.gate.close)
            url, names = engine.format(node.gate.port), ", ".join(one.address for one in made)
            node.home.conf(CONF.format(url=url, nodes=names, node=node.address, key=key, lease=lease))
            node.site("clock", **{**site, **keys})
            stack.enter_context(node.server)
        yield Cluster(place, made)


__all__ = ["PATIENCE", "Cluster", "Node", "cluster", "eventually", "free_port", "overlaps"]
