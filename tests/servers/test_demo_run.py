"""What `make run` starts: the demonstration sites by `multisite serve`, with a Redis server if one is installed."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.processes import is_running
from tests.servers.harness import PATIENCE, debian_program, eventually, free_port

pytestmark = pytest.mark.servers

CHECKOUT = Path(__file__).parents[2]
ADDRESS = re.compile(r"http://[a-z-]+\.localhost:\d+/\S*")


class Demo:
    """The server, and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[str], port: int, sockets: Path) -> None:
        self.process, self.port, self.sockets = process, port, sockets
        self.lines: list[str] = []
        self.is_listening = threading.Event()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)
            if "Booting worker" in line:
                self.is_listening.set()
        self.is_listening.set()

    @property
    def addresses(self) -> list[str]:
        return [address for line in self.lines if re.match(r"[a-z-]+: ", line) for address in ADDRESS.findall(line)]

    def status(self, address: str) -> int:
        parts = urlsplit(address)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request("GET", parts.path, headers={"Host": parts.netloc})
        status = connection.getresponse().status
        connection.close()
        return status


@contextmanager
def demo(copy: Path, path: str) -> Iterator[Demo]:
    """Run a copy of the demonstration, with programs from `path`."""
    for name in ("etc-moya", "sites-available", "sites-enabled"):
        shutil.copytree(
            CHECKOUT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("var", "__pycache__")
        )
    with tempfile.TemporaryDirectory(prefix="demo") as folder:  # short: paths of sockets are bounded
        port = free_port()
        argv = [sys.executable, str(CHECKOUT / ".ci/demo"), str(copy / "etc-moya"), "--bind", f"127.0.0.1:{port}"]
        env = {"PATH": path, "XDG_RUNTIME_DIR": folder, "XDG_STATE_HOME": folder, "HOME": folder}
        process = subprocess.Popen(
            [*argv, "--workers", "1"], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        running = Demo(process, port, Path(folder) / "multisite")
        try:
            assert running.is_listening.wait(PATIENCE), running.lines
            assert process.poll() is None, running.lines
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)
            running.reader.join(PATIENCE)


def test_each_address_that_is_printed_answers(tmp_path: Path, own_django: None) -> None:
    """The sessions' Redis server ends with ours, however that ends."""
    programs = {os.path.dirname(sys.executable), os.path.dirname(debian_program("redis-server", "redis-server"))}
    with demo(tmp_path, ":".join([*sorted(programs), "/usr/bin:/bin"])) as running:
        assert len(running.addresses) >= 8
        assert f"http://sessions.localhost:{running.port}/" in running.addresses
        assert {address: running.status(address) for address in running.addresses} == dict.fromkeys(
            running.addresses, 200
        )
        (socket,) = running.sockets.glob("redis-*.sock")
        redis = child(running.process.pid, "redis-server")
        running.process.kill()
        eventually(lambda: not is_running(redis), PATIENCE, "the Redis server has ended")
    assert socket.name == f"redis-{running.process.pid}.sock"


def child(parent: int, program: str) -> int:
    """Return the child of a process that runs a program."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return next(int(pid) for pid in children if program in Path(f"/proc/{pid}/cmdline").read_text())


def test_without_redis_the_sessions_are_left_out(tmp_path: Path) -> None:
    with demo(tmp_path, str(tmp_path)) as running:
        assert (
            "sessions.localhost is left out" in running.lines[0] and "apt-get install redis-server" in running.lines[0]
        )
        assert not any("sessions" in address for address in running.addresses)
        assert running.status(f"http://hello.localhost:{running.port}/") == 200
