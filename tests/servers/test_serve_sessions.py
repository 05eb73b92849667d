"""The demonstration site whose sessions are in Redis, with a real Redis server and two processes."""

from __future__ import annotations

import http.client
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.processes import is_running

from .harness import PATIENCE, REPOSITORY, HomeDir, Server, debian_program, eventually, free_port, gunicorn

pytestmark = pytest.mark.servers


class Redis(Server):
    def answers(self) -> bool:
        import socket

        assert self.process.poll() is None, self.log()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as wire:
                wire.sendall(b"PING\r\n")
                return wire.recv(100) == b"+PONG\r\n"
        except OSError:
            return False


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    program, port = debian_program("redis-server", "redis-server"), free_port()
    argv = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = Redis(argv, port, tmp_path / "log" / "redis.log", {"PATH": "/usr/bin:/bin"})
    yield server


@pytest.fixture
def home(tmp_path: Path, redis: Redis) -> HomeDir:
    home = HomeDir(tmp_path).create()
    shutil.copytree(REPOSITORY / "sites-available/sessions", tmp_path / "sites-available/sessions")
    text = (REPOSITORY / "sites-available/sessions.ini").read_text()
    assert "$SESSIONS_URL" in text and "processes = 2" in text
    home.ini("sessions", text.replace("$SESSIONS_URL", f"redis://127.0.0.1:{redis.port}/0"))
    return home


def visit(server: Server, cookie: str = "") -> tuple[int, int, str]:
    """Number of the visit, process, cookie."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request("GET", "/", headers={"Host": "sessions.localhost", "Cookie": cookie})
    answer = connection.getresponse()
    text = answer.read().decode()
    found = re.fullmatch(r"Visit (\d+), answered by process (\d+)\.\n", text)
    assert found, text
    connection.close()
    return int(found[1]), int(found[2]), (answer.getheader("Set-Cookie") or cookie).partition(";")[0]


def test_visits_are_counted_whichever_process_answers_and_after_a_restart(home: HomeDir, redis: Redis) -> None:
    with redis, gunicorn(home) as server:
        number, process, cookie = visit(server)
        assert number == 1
        processes = {process}

        def met_both() -> bool:
            """Whether both have answered; the kernel gives one after another to the same as long as that is idle."""
            nonlocal number
            with ThreadPoolExecutor(4) as pool:
                others = [pool.submit(visit, server) for _ in range(4)]
                again, process, _ = visit(server, cookie)
            number += 1
            assert again == number
            assert {other.result()[0] for other in others} == {1}
            processes.add(process)
            return len(processes) == 2

        eventually(met_both, PATIENCE, "both processes answer")
        assert visit(server)[0] == 1  # somebody else
        home.multisite("stop", "sessions")  # which does not wait for their end
        eventually(lambda: not any(map(is_running, processes)), PATIENCE, "both have stopped")
        again, process, _ = visit(server, cookie)
        assert (again, process in processes) == (number + 1, False)


def test_without_a_redis_server_the_page_says_so(home: HomeDir) -> None:
    with gunicorn(home) as server:
        answer = server.ask("sessions.localhost")
        assert answer.status == 503
        assert answer.text.startswith("Sessions are kept in Redis, and there is none at redis://127.0.0.1:")
