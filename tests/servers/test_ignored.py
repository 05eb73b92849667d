"""Requests that neither wake nor keep awake a site, behind a real gunicorn."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from .harness import PATIENCE, HomeDir, Server, eventually, gunicorn
from .load import Load

pytestmark = pytest.mark.servers

ASGI = """
async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"site quiet"})
"""
COMMAND = """
import socket

body = b"site quiet"
listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    if connection.recv(65536):
        head = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n"
        connection.sendall(head % len(body) + body)
    connection.close()
"""
HELD_UP = 2.5  # seconds after which three may have passed for the site
KINDS = {
    "wsgi": ({}, None),
    "asgi": ({}, ASGI),
    "command": ({"command": f"{sys.executable} quiet_app.py"}, COMMAND),
}


@pytest.fixture(params=sorted(KINDS))
def home(request: pytest.FixtureRequest, tmp_path: Path) -> HomeDir:
    """A home with one site that stops after a second and ignores /health and robots."""
    home = HomeDir(tmp_path).create()
    keys, code = KINDS[request.param]
    ignore = {"ignore_activity": "/health, /status/*", "ignore_agents": "robot"}
    home.site("quiet", code, mode="spawned", idle_timeout="1s", **ignore, **keys)
    return home


def ask(server: Server, path: str) -> int:
    return server.ask("quiet.test", path).status


def state(home: HomeDir) -> dict[str, object]:
    (site,) = json.loads(home.multisite("--json", "status"))["sites"]
    return dict(site)


def test_a_health_check_neither_wakes_nor_keeps_awake(home: HomeDir) -> None:
    """503 while it is stopped; while it runs the usual answer, and it stops as if nobody had asked."""
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "4") as server:
        asleep = server.ask("quiet.test", "/health")
        assert (asleep.status, asleep.headers["retry-after"]) == (503, "600")
        assert "does not start it" in asleep.text
        assert not (home.runtime / "multisite" / "supervisor.lock").exists()
        # A site that is idle for a second is soon gone: on a busy machine what is true of it is so for a moment.
        eventually(lambda: ask(server, "/") == 200 and home.processes(backends=True), PATIENCE, "it runs")
        eventually(lambda: ask(server, "/") == 200 == ask(server, "/health"), PATIENCE, "it is well")

        def stopped() -> bool:
            assert ask(server, "/health") in (200, 503)
            time.sleep(0.05)  # many a second, as no monitor does
            return not home.processes(backends=True)

        eventually(stopped, PATIENCE, "the site is stopped in spite of health checks")
        assert ask(server, "/status/all") == 503
        assert not home.processes(backends=True)
        assert ask(server, "/statu") == 200
        with Load(server.port, "quiet.test", "site quiet", threads=1):  # or it sleeps again before the command looks
            eventually(lambda: state(home)["state"] == "running", PATIENCE, "it runs")


def test_other_requests_keep_it_awake(home: HomeDir) -> None:
    """Beside many that are ignored, for longer than it would go on without them."""
    file = home.path / "sites-available" / "quiet.ini"
    home.ini("quiet", file.read_text().replace("idle_timeout = 1s", "idle_timeout = 3s"))
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "4") as server:

        def is_kept_awake() -> bool:
            """Whether it was, unless this test has itself been held up for that long: then it says nothing."""
            asked = time.monotonic()
            assert ask(server, "/") == 200
            first, end = set(home.processes(backends=True)), asked + 4
            while asked < end:
                health = ask(server, "/health")
                before, asked = asked, time.monotonic()
                if asked - before > HELD_UP:
                    return False
                assert health == 200
                assert ask(server, "/") == 200
                time.sleep(0.1)
            now = set(home.processes(backends=True))
            if time.monotonic() - asked > HELD_UP:
                return False
            assert now == first
            return True

        eventually(is_kept_awake, PATIENCE, "some seconds in which nobody was held up")
