"""Real engines for the tests: Redis, Sentinel and etcd, which may be killed and started again at the same port."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.harness import eventually, free_port


class Engine:
    """One process of an engine; its data stays in its folder."""

    def __init__(self, argv: list[str], port: int, folder: Path, url: str) -> None:
        self.argv, self.port, self.folder, self.url = argv, port, folder, url
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Engine:
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(self.argv, cwd=self.folder, stdout=log, stderr=log)
        eventually(self.answers)
        return self

    def answers(self) -> bool:
        assert self._process and self._process.poll() is None, (self.folder / "log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def empty(self) -> None:
        """Remove its data; it must not be running."""
        shutil.rmtree(self.folder)


def needed(program: str) -> str:
    """Return the path of a program; without it the test is skipped, aloud."""
    found = shutil.which(program)
    if not found:
        pytest.skip(f"NOT TESTED: {program} is not installed")
    return found


def redis(folder: Path, *more: str) -> Engine:
    port = free_port()
    argv = [needed("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", *more]
    return Engine(argv, port, folder, f"redis://127.0.0.1:{port}/0")


def sentinel(folder: Path, master: int) -> Engine:
    """A sentinel that decides alone, and quickly."""
    port, file = free_port(), folder / "sentinel.conf"
    folder.mkdir(parents=True)
    file.write_text(
        f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 1\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
    )
    argv = [needed("redis-server"), str(file), "--sentinel"]
    return Engine(argv, port, folder, f"sentinel://127.0.0.1:{port}/main")


def etcd(folder: Path) -> Engine:
    port, peer = free_port(), free_port()
    client, own = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    argv = [
        *(needed("etcd"), "--data-dir", "data", "--unsafe-no-fsync", "--name", "one"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", own, "--initial-advertise-peer-urls", own, "--initial-cluster", f"one={own}"),
        *("--heartbeat-interval", "100", "--election-timeout", "500"),
    ]
    return Engine(argv, port, folder, f"etcd://127.0.0.1:{port}")


ENGINES = {"redis": redis, "etcd": etcd}


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[Engine]:
    """An engine that answers its first question."""
    engine = ENGINES[name](folder)
    try:
        yield engine.start()
    finally:
        engine.kill()
