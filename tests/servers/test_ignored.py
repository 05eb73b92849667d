"""Requests that neither wake nor keep awake a site, behind a real gunicorn."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from .harness import HomeDir, Server, eventually, gunicorn

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
        assert "asleep" in asleep.text
        assert not (home.runtime / "multisite" / "supervisor.lock").exists()
        assert ask(server, "/") == 200
        assert home.processes(backends=True)
        answers = []

        def stopped() -> bool:
            answers.append(ask(server, "/health"))
            time.sleep(0.05)  # many a second, as no monitor does
            return not home.processes(backends=True)

        eventually(stopped, 20, "the site is stopped in spite of health checks")
        assert answers[0] == 200
        assert set(answers) <= {200, 503}
        assert ask(server, "/status/all") == 503
        assert not home.processes(backends=True)
        assert ask(server, "/statu") == 200
        assert state(home)["state"] == "running"


def test_other_requests_keep_it_awake(home: HomeDir) -> None:
    """Beside many that are ignored."""
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "4") as server:
        assert ask(server, "/") == 200
        first = set(home.processes(backends=True))
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert ask(server, "/health") == 200
            assert ask(server, "/") == 200
            time.sleep(0.1)
        assert set(home.processes(backends=True)) == first
