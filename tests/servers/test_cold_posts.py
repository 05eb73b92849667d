"""Fifty first requests with bodies, whose backend is killed while it starts: each is answered once, and rightly.

A site's first process is killed between its spawn and its readiness; the queue is kept, and the process that is started
at once instead finds every request in it, whole. A second failure in a row would be told (503), see docs/supervisor.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .harness import PATIENCE, HomeDir, eventually, gunicorn

pytestmark = pytest.mark.servers

SITES = 25
MEGABYTE = 1_000_000
BLOCK = random.Random(1).randbytes(MEGABYTE)

# Its first process waits in its import to be killed; whichever it is, what it executes is on record.
SITE = """
import hashlib, os, pathlib, time
try:
    os.close(os.open("starting", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
except FileExistsError:
    pass
else:
    pathlib.Path("pid.new").write_text(str(os.getpid()))
    os.rename("pid.new", "pid")
    time.sleep(60)

def application(environ, start_response):
    record = os.open("executed", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(record, environ["PATH_INFO"].encode() + b"\\n")
    os.close(record)
    stream, digest, size = environ["wsgi.input"], hashlib.sha256(), 0
    while block := stream.read(65536):
        digest.update(block)
        size += len(block)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['PATH_INFO']} {size} {digest.hexdigest()}".encode()]
"""


def sizes() -> list[int]:
    """Fifty, from 1 byte to 50 MB: most are small, some larger than any buffer on the way."""
    usual = [round(1.36**number) for number in range(46)]  # the largest: 1.0 MB
    return [*usual, 5 * MEGABYTE, 10 * MEGABYTE, 25 * MEGABYTE, 50 * MEGABYTE]


@dataclass
class Killer:
    """Kills the first process of each site: as soon as it is seen, or else in its import."""

    home: HomeDir
    folders: dict[str, Path]
    killed: Counter[str] = field(default_factory=Counter)

    def look(self) -> None:
        for name, folder in self.folders.items():
            if not self.killed[name]:
                with contextlib.suppress(OSError):
                    self.kill(name, int((folder / "pid").read_text()))
        for pid in self.home.processes(backends=True):
            with contextlib.suppress(OSError):
                mark = Path(f"/proc/{pid}/environ").read_bytes().partition(b"MULTISITE_BACKEND=")[2].partition(b"\0")[0]
                name = mark.decode().partition(":")[2].partition(":")[0]  # none: it has ended since it was listed
                if name and int(name[1:]) % 2 and not self.killed[name]:  # half of them do not reach their import
                    os.kill(pid, signal.SIGSTOP)  # or it would go on where the next one may
                    eventually(lambda pid=pid: not is_going_on(pid))  # type: ignore[misc]
                    (self.folders[name] / "starting").touch()
                    self.kill(name, pid)

    def kill(self, name: str, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.killed[name] += 1

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        done = threading.Event()

        def work() -> None:
            while not done.wait(0.01):
                self.look()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def is_going_on(pid: int) -> bool:
    """Whether a process is neither stopped nor at its end."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "TZX"
    return False


def body(size: int) -> Iterator[bytes]:
    for start in range(0, size, MEGABYTE):
        yield BLOCK[: min(MEGABYTE, size - start)]


def digest(size: int) -> str:
    whole = hashlib.sha256()
    for piece in body(size):
        whole.update(piece)
    return whole.hexdigest()


def post(port: int, name: str, path: str, size: int) -> str:
    wire = http.client.HTTPConnection("127.0.0.1", port, timeout=2 * PATIENCE)
    try:
        wire.request("POST", path, body(size), {"Host": f"{name}.test", "Content-Length": str(size)})
        answer = wire.getresponse()
        text = answer.read().decode()
        return text if answer.status == 200 else f"{answer.status} {text}"
    except OSError as error:
        return repr(error)
    finally:
        wire.close()


@pytest.mark.parametrize(
    "options", [("sync", "--workers", "3"), ("gthread", "--workers", "2", "--threads", "8")], ids=lambda o: o[0]
)
def test_cold_posts_survive_the_death_of_the_process_they_wait_for(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Fifty of 1 byte to 50 MB, two for each site; every site's first start is killed."""
    home = HomeDir(tmp_path).create()
    names = [f"s{number}" for number in range(SITES)]
    killer = Killer(home, {name: home.site(name, SITE, mode="spawned") for name in names})
    cases = [(names[number % SITES], f"/post/{number}", size) for number, size in enumerate(sizes())]
    random.Random(2).shuffle(cases)
    with gunicorn(home, *options) as server, killer.at_work(), ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda case: post(server.port, *case), cases))
    expected = [f"{path} {size} {digest(size)}" for _, path, size in cases]
    wrong = [(case, got) for case, got, right in zip(cases, answers, expected, strict=True) if got != right]
    assert wrong == []
    assert len(cases) == 50
    assert killer.killed == dict.fromkeys(names, 1)
    executed = Counter(line for folder in killer.folders.values() for line in (folder / "executed").read_text().split())
    assert executed == {path: 1 for _, path, _ in cases}
