"""What sites went through, in every way that a request can take: starts and imports, slow requests, and the split."""

from __future__ import annotations

import http.server
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from .harness import HomeDir, Server, eventually, gunicorn
from .test_spawned import supervisor_of

pytestmark = pytest.mark.servers

WSGI = """
import time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1.1)
    start_response("200 OK", [("X-More", "yes")])
    if environ["PATH_INFO"] != "/stream":
        return [b"hello"]
    return (time.sleep(pause) or b"piece" for pause in (0, 1.2))
"""
ASGI = """
import asyncio

async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(1.1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-more", b"yes")]})
    if scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        await asyncio.sleep(1.2)
    await send({"type": "http.response.body", "body": b"hello"})
"""
SITES = ("here", "wsgi", "asgi", "far")


class Upstream(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/slow"):
            time.sleep(1.1)
        self.send_response(200)
        self.send_header("X-More", "yes")
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_more: Any) -> None:
        pass


@pytest.fixture(scope="module", params=["gthread", "sync"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[HomeDir, Server]]:
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    home = HomeDir(tmp_path_factory.mktemp("past")).create()
    with (home.path / "moya.conf").open("a") as conf:
        conf.write("hand_over = no\n")
    home.site("here", WSGI, mode="in-process")
    home.site("wsgi", WSGI, mode="spawned")
    home.site("asgi", ASGI, mode="spawned")
    home.site("far", mode="proxy", upstreams=f"http://127.0.0.1:{upstream.server_address[1]}", application="")
    with gunicorn(home, request.param, "--workers", "1") as server:
        for name in SITES:
            for path in ("/", "/slow?card=4111", "/stream"):
                answer = server.ask(f"{name}.test", path)
                assert answer.status == 200 and answer.headers["x-more"] == "yes"
                assert "multisite-times" not in answer.headers, name
        yield home, server
    upstream.shutdown()
    upstream.server_close()


def told(home: HomeDir, name: str) -> dict[str, Any]:
    (row,) = json.loads(home.multisite("--json", "status", name))["sites"]
    return dict(row)


def test_a_request_is_slow_whose_answer_began_late_and_its_query_is_nowhere(served: tuple[HomeDir, Server]) -> None:
    home, _server = served
    for name in SITES:
        row = told(home, name)
        assert "/stream" not in [one["path"] for one in row["slow_requests"]], name
        (slow,) = [one for one in row["slow_requests"] if one["path"] == "/slow"]  # a cold start may be slow, too
        assert (slow["method"], slow["status"]) == ("GET", 200), name
        assert slow["seconds"] >= slow["split"]["app"] >= 1.0, name
        assert "card" not in json.dumps(row)
        assert (slow["split"]["relay"] is None) == (name in ("here", "far")), name
    assert "/slow" in home.multisite("status", "wsgi")


def test_the_relay_is_measured_where_the_application_says_how_long_it_took(served: tuple[HomeDir, Server]) -> None:
    home, _server = served
    for name in SITES:
        relay = told(home, name)["latency"]["relay"]
        if name in ("here", "far"):
            assert relay is None, name
        else:
            assert relay["count"] == 3 and relay["seconds"] > 0, (name, relay)


def test_starts_imports_and_deploys_outlive_the_supervisor(served: tuple[HomeDir, Server]) -> None:
    home, server = served
    assert home.typed("restart", "--wait", "wsgi").exit_code == 0
    os.kill(supervisor_of(home), signal.SIGKILL)
    assert [(one["kind"], one["outcome"]) for one in told(home, "wsgi")["last_starts"][::-1]] == [
        ("cold", "ready"),
        ("deploy", "ready"),
    ]
    (deploy,) = told(home, "wsgi")["deploys"]
    assert (deploy["cause"], deploy["outcome"]) == ("restart", "done")
    (imported,) = told(home, "here")["last_starts"]
    assert (imported["kind"], [step["step"] for step in imported["steps"]]) == ("cold", ["import"])
    assert imported["way"].startswith("imported in worker ")
    assert told(home, "far")["last_starts"] == []
    shown = home.multisite("status", "wsgi")
    assert "starts:" in shown and "deploys:" in shown
    assert server.ask("wsgi.test").status == 200


def test_a_failed_import_has_its_reason_and_its_incident(served: tuple[HomeDir, Server]) -> None:
    home, server = served
    home.site("here", "import nothing_like_it", mode="in-process")
    eventually(lambda: server.ask("here.test").status and len(told(home, "here")["last_starts"]) > 1)
    row = told(home, "here")
    assert row["last_starts"][0]["outcome"] == row["deploys"][0]["outcome"] == "failed"
    assert "nothing_like_it" in row["deploys"][0]["failure"]
    assert row["deploys"][0]["incident"] == row["failure"]["incident"]
