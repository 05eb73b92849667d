"""Everything at once: every kind of client, of backend and of end, in an order that a seed decides.

Whatever happens, an answer is whole, or visibly cut, or a page of ours; and when it is over nothing is held. The seed
is printed; MULTISITE_STRESS_SEED takes another.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .harness import MEASURED, PATIENCE, HomeDir, Server, eventually, gunicorn

pytestmark = pytest.mark.servers

SEED = int(os.environ.get("MULTISITE_STRESS_SEED", "20261128"))
CLIENTS = 6
SIZES = (0, 7, 5000, 70_000, 400_000)

KINDS = {
    "sync": ["--workers", "2", "--max-requests", "20"],
    "gthread": ["--workers", "2", "--threads", "4"],
    "gevent": ["--workers", "2"],
}

SITE = """
import zlib


def application(environ, start_response):
    \"\"\"Answer with so many bytes of the path's own pattern.\"\"\"
    path = environ["PATH_INFO"]
    environ["wsgi.input"].read()
    size = int(path.rpartition("/")[2])
    word = b"%08x" % zlib.crc32(path.encode())
    body = (word * (size // 8 + 1))[:size]
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(size))])
    return [body[at : at + 50_000] for at in range(0, size, 50_000)]
"""


def pattern(path: str, size: int) -> bytes:
    """What belongs to a path, unlike what belongs to another."""
    return (b"%08x" % zlib.crc32(path.encode()) * (size // 8 + 1))[:size]


# --- backends -------------------------------------------------------------------------------------------------------


class Upstream:
    """Answers as the path says, however badly that is: /HOW/NUMBER/SIZE."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(128)
        self.under_way = 0  # requests that wait for `go`
        self.go = threading.Event()
        self.failures: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(wire,), daemon=True).start()

    def _serve(self, wire: socket.socket) -> None:
        wire.settimeout(PATIENCE)
        with wire, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and (data := wire.recv(4096)):
                head += data
            head, _, begun = head.partition(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            _, how, _, size = path.split("/")
            if how in ("whole", "late", "chunks", "cut", "cutchunks"):
                self._read(wire, head.lower(), begun)
            getattr(self, how)(wire, pattern(path, int(size)))

    @staticmethod
    def _read(wire: socket.socket, head: bytes, body: bytes) -> None:
        if b"chunked" in head:
            while not body.endswith(b"0\r\n\r\n") and (data := wire.recv(65536)):
                body = body[-5:] + data
        elif b"content-length: " in head:
            left = int(head.partition(b"content-length: ")[2].split()[0]) - len(body)
            while left > 0 and (data := wire.recv(65536)):
                left -= len(data)

    @staticmethod
    def whole(wire: socket.socket, body: bytes) -> None:
        wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    early = whole  # without having read what the client sends, which makes the close a reset

    def late(self, wire: socket.socket, body: bytes) -> None:
        time.sleep(0.03)
        self.whole(wire, body)

    def held(self, wire: socket.socket, body: bytes) -> None:
        """Wait for `go`."""
        self.under_way += 1
        self.go.wait(PATIENCE)
        self.whole(wire, body)

    @staticmethod
    def chunks(wire: socket.socket, body: bytes) -> None:
        wire.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 30_000):
            piece = body[at : at + 30_000]
            wire.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        wire.sendall(b"0\r\n\r\n")

    @staticmethod
    def cut(wire: socket.socket, body: bytes) -> None:
        wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1) + body)

    @staticmethod
    def cutchunks(wire: socket.socket, body: bytes) -> None:
        wire.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (len(body) + 1) + body)

    @staticmethod
    def refuse(wire: socket.socket, body: bytes) -> None:
        """Leave without an answer."""


HOWS = ("whole", "early", "late", "chunks", "cut", "cutchunks", "refuse")
GOOD = ("whole", "late", "chunks")


# --- clients --------------------------------------------------------------------------------------------------------


@dataclass
class Wish:
    """One request, and how its client behaves."""

    host: str
    how: str
    path: str
    size: int
    body: bytes
    chunked: bool
    slow: bool
    leaves_after: int  # bytes of the answer, -1 for never

    def request(self) -> bytes:
        head = f"POST {self.path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n"
        if self.chunked:
            pieces = [self.body[at : at + 9000] for at in range(0, len(self.body), 9000)]
            framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + framed + b"0\r\n\r\n"
        return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body


def wish(chance: random.Random, number: int) -> Wish:
    host = chance.choice(["up.test", "up.test", "up.test", "site.test", "gone.test"])
    how = chance.choice(HOWS) if host == "up.test" else "whole"
    size = chance.choice(SIZES)
    body = bytes(chance.choice([0, 0, 10, 3000, 100_000, 600_000]))
    slow = chance.random() < 0.2
    leaves = chance.choice([0, 1, 100, 100_000]) if chance.random() < 0.15 else -1
    return Wish(host, how, f"/{how}/{number}/{size}", size, body, bool(body) and chance.random() < 0.3, slow, leaves)


def ask(port: int, wish: Wish) -> str:
    """Make a request; return what came of it: whole, page, cut, left, or what is wrong with it."""
    with socket.socket() as wire:
        if wish.slow:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        wire.settimeout(PATIENCE)
        data, reset = bytearray(), False
        try:
            wire.connect(("127.0.0.1", port))
            sender = threading.Thread(target=_send, args=(wire, wish.request()), daemon=True)
            sender.start()
            while piece := wire.recv(2000 if wish.slow else 65536):
                data += piece
                if 0 <= wish.leaves_after <= len(data):
                    return "left"
                if wish.slow and len(data) < 30_000:
                    time.sleep(0.002)
        except TimeoutError:
            return f"{wish}: nothing came for {PATIENCE} s after {len(data)} bytes"
        except OSError:
            reset = True
    return judged(wish, bytes(data), reset)


def _send(wire: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # an early answer need not wait for it
        wire.sendall(data)


def judged(wish: Wish, data: bytes, reset: bool) -> str:
    """Return what an answer is."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return "cut"
    status, lower = int(head.split(b" ")[1]), head.lower()
    whole = True
    if b"transfer-encoding: chunked" in lower:
        body, whole = unchunked(body)
    elif b"content-length: " in lower:
        length = int(lower.partition(b"content-length: ")[2].split()[0])
        if len(body) > length:
            return f"{wish}: {len(body) - length} bytes too many"
        whole = len(body) == length
    else:
        whole = not reset
    if status >= 400:
        return "page" if whole else "cut"
    right = pattern(wish.path, wish.size)
    if not right.startswith(body):
        at = next(at for at in range(len(body)) if body[: at + 1] != right[: at + 1])
        return f"{wish}: from byte {at} on it is not what was sent"
    if whole and (len(body) != wish.size or wish.how.startswith("cut")):
        return f"{wish}: {len(body)} of {wish.size} bytes called whole"
    return "whole" if whole else "cut"


def unchunked(data: bytes) -> tuple[bytes, bool]:
    found, at = [], 0
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end], 16)
        if not size:
            return b"".join(found), data[end:] == b"\r\n\r\n"
        found.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(found), False


class Crowd:
    """Clients side by side, who make what a seed says of so many requests."""

    def __init__(self, server: Server, name: str, count: int) -> None:
        chance = random.Random(f"{SEED} {name}")
        self.wishes = [wish(chance, number) for number in range(count)]
        self.port = server.port
        self.outcomes: list[tuple[Wish, str]] = []
        self._left = iter(self.wishes)
        self._lock = threading.Lock()

    def come(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Make all requests; when a third has been answered, let something happen meanwhile."""
        threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(self.outcomes) > len(self.wishes) // 3, 4 * PATIENCE)
        meanwhile()
        for thread in threads:
            thread.join(4 * PATIENCE)
            assert not thread.is_alive(), "a client still waits"

    def _ask(self) -> None:
        while True:
            with self._lock:
                following = next(self._left, None)
            if following is None:
                return
            self.outcomes.append((following, ask(self.port, following)))

    def wrong(self, strict: bool) -> list[str]:
        """What must not be; where it is `strict` a good backend's answer is whole."""
        found = []
        for one, outcome in self.outcomes:
            good = one.host != "gone.test" and one.how in GOOD
            if outcome not in ("whole", "page", "cut", "left"):
                found.append(outcome)
            elif (strict and good and outcome not in ("whole", "left")) or (
                strict and one.host == "gone.test" and outcome not in ("page", "left")
            ):
                found.append(f"{one.host}{one.path}: {outcome}")
        return found


# --- the tests ------------------------------------------------------------------------------------------------------


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    made = Upstream(tmp_path / "up.sock")
    yield made
    made.go.set()
    made.listener.close()


@pytest.fixture
def home(tmp_path: Path, upstream: Upstream) -> HomeDir:
    made = HomeDir(tmp_path).create()
    made.conf((made.path / "moya.conf").read_text() + "hand_over = no\n")
    made.site("site", SITE, mode="spawned", threads="4")
    for name, socket_name in (("up", "up.sock"), ("gone", "nobody.sock")):
        made.ini(name, f"[service]\ndomains = {name}.test\nmode = proxy\nupstreams = unix:{tmp_path / socket_name}\n")
    return made


def held_by(pid: int) -> tuple[int, int]:
    """Descriptors of a process, and its own memory in KiB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
    return len(os.listdir(f"/proc/{pid}/fd")), private


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_answer_is_whole_or_cut_or_a_page(home: HomeDir, upstream: Upstream, kind: str) -> None:
    with gunicorn(home, kind, *KINDS[kind], "--graceful-timeout", "15") as server:
        warm = Crowd(server, f"{kind} warm", 40)
        warm.come()
        before = {pid: held_by(pid) for pid in server.workers()}
        quiet = Crowd(server, f"{kind} quiet", 90)
        quiet.come()
        if kind != "sync":  # which has other workers by now
            for pid, (descriptors, memory) in before.items():
                eventually(lambda pid=pid, most=descriptors + 3: held_by(pid)[0] <= most, PATIENCE, "all is closed")  # type: ignore[misc]
                assert held_by(pid)[1] < memory + 24_000
        reloaded = Crowd(server, f"{kind} HUP", 60)
        reloaded.come(lambda: server.process.send_signal(signal.SIGHUP))
        killed = Crowd(server, f"{kind} KILL", 60)
        killed.come(lambda: os.kill(min(server.workers()), signal.SIGKILL))
        ended = _end(server, upstream)
    crowds = {"warm": warm, "quiet": quiet, "HUP": reloaded}
    found = {name: crowd.wrong(strict=True) for name, crowd in crowds.items()} | {"KILL": killed.wrong(strict=False)}
    MEASURED.append(
        f"stress, {kind}: seed {SEED}, {sum(len(crowd.outcomes) for crowd in crowds.values()) + 66} requests"
    )
    assert not any(found.values()), (SEED, found)
    assert ended == ["whole"] * CLIENTS, SEED


def _end(server: Server, upstream: Upstream) -> list[str]:
    """Tell a server to end while requests are under way; return what comes of them."""
    outcomes: list[str] = []

    def held(number: int) -> None:
        one = Wish("up.test", "held", f"/held/{number}/70000", 70_000, b"", False, False, -1)
        outcomes.append(ask(server.port, one))

    threads = [threading.Thread(target=held, args=(number,), daemon=True) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    eventually(lambda: upstream.under_way == CLIENTS, PATIENCE, "all are under way")
    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: "Handling signal: term" in server.log(), PATIENCE, "the server ends")
    assert not outcomes
    upstream.go.set()
    for thread in threads:
        thread.join(PATIENCE)
    return outcomes
