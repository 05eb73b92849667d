"""Workers that end after so many requests, while others are under way: each of those is answered all the same."""

from __future__ import annotations

import concurrent.futures
import http.client
import threading
import time
from pathlib import Path

import pytest

from .harness import PATIENCE, Answer, HomeDir, Server, ask, gunicorn

pytestmark = pytest.mark.servers

MIXED = """
import os, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
LARGE = b"x" * 300_000


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/slow"):
        time.sleep(0.15)
    if path.startswith("/crash"):
        while not os.path.exists(os.path.join(HERE, "go")):
            time.sleep(0.005)
        os._exit(9)
    body = LARGE if path.startswith("/large") else path.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""

KINDS = {
    "sync": ["--workers", "1"],
    "gthread": ["--workers", "1", "--threads", "4", "--keep-alive", "0"],
}


@pytest.fixture
def home(tmp_path: Path) -> HomeDir:
    home = HomeDir(tmp_path).create()
    home.conf((home.path / "moya.conf").read_text() + "hand_over = no\n")
    home.site("mixed", MIXED, mode="spawned", threads="16")
    home.site("near")
    return home


def served(home: HomeDir, kind: str, most: int, *more: str) -> Server:
    return gunicorn(home, kind.partition("-")[0], *KINDS[kind], "--max-requests", str(most), *more)


def expected(path: str) -> bytes:
    return b"x" * 300_000 if path.startswith("/large") else path.encode()


@pytest.mark.parametrize("kind", list(KINDS))
def test_nothing_is_lost_between_a_worker_and_its_successor(home: HomeDir, kind: str) -> None:
    """Quick, slow and large answers at once, over many workers: each is whole, and the answer to its own request."""
    wrong: list[str] = []

    def client(number: int) -> int:
        done = 0
        for turn in range(16):
            path = f"/{('slow', 'quick', 'quick', 'large')[(number + turn) % 4]}/{number}/{turn}"
            try:
                answer = ask(server.port, "mixed.test", path)
            except (OSError, http.client.HTTPException) as error:
                wrong.append(f"{path}: {error!r}")
                continue
            if (answer.status, answer.body) != (200, expected(path)):
                wrong.append(f"{path}: {answer.status} {answer.body[:50]!r}")
            done += 1
        return done

    with served(home, kind, 6) as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(client, range(8))) == 128, wrong
        recycled = server.log().count("Autorestarting worker")
    assert wrong == []
    assert recycled > 8


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_a_crash_after_the_worker_has_ended_is_told_at_once(home: HomeDir, kind: str) -> None:
    """Who goes on has helpers of its own to ask why there was no answer."""
    with served(home, kind, 6, "--graceful-timeout", "600") as server:
        for _ in range(2):
            assert server.ask("mixed.test", "/quick").status == 200  # by a helper, since the socket is not known yet
        got: list[Answer] = []
        thread = threading.Thread(target=lambda: got.append(server.ask("mixed.test", "/crash")), daemon=True)
        (old,) = server.workers()
        thread.start()
        while old in server.workers():
            assert server.ask("near.test").status == 200
        assert not got
        began = time.monotonic()
        (home.path / "sites" / "mixed" / "go").touch()
        thread.join(PATIENCE)
        assert got and got[0].status == 502
        assert time.monotonic() - began < PATIENCE
