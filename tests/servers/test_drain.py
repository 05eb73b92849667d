"""A machine is taken out of service and put back, one after the other, behind front ends that check its health."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .harness import PATIENCE, HomeDir, Server, debian_program, eventually, free_port, gunicorn
from .load import Load
from .nginx import nginx_server

pytestmark = pytest.mark.servers

CONF = """[projects]
read = sites-enabled/*.ini
[service]
status_domain = status.test
[defaults]
share = yes
[supervisor]
allow_root = yes
examine = no
"""
APP = """
import os, time

def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/until/"):
        open("begun", "a").close()
        while not os.path.exists(environ["PATH_INFO"][7:]):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Length", "4")])
    return [b"here"]
"""
HAPROXY = """
global
    maxconn 100
defaults
    mode http
    timeout connect 30s
    timeout client 60s
    timeout server 60s
frontend all
    bind 127.0.0.1:{port}
    default_backend nodes
backend nodes
    balance roundrobin
    option httpchk
    http-check send meth GET uri /health ver HTTP/1.1 hdr Host status.test
    default-server check inter 100ms fall 2 rise 1
"""
NGINX = """
upstream nodes {{ {nodes} }}
server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://nodes; proxy_set_header Host $http_host; }} }}
"""


class Node:
    """A home and a server of it that can end and start again."""

    def __init__(self, path: Path) -> None:
        self.home = HomeDir(path).create()
        self.home.conf(CONF)
        self.home.site("web", APP, mode="in-process")
        self.home.site("own", APP, mode="spawned", share="no", threads="4")
        self.server = gunicorn(self.home, "gthread", "--threads", "8")
        self.running = ExitStack()

    def start(self) -> None:
        self.running.enter_context(self.server)

    def stop(self) -> None:
        self.running.close()

    def health(self) -> tuple[int, str]:
        answer = self.server.ask("status.test", "/health")
        return answer.status, answer.text

    def served(self) -> int:
        rows = json.loads(self.home.multisite("--json", "status"))["sites"]
        return sum(row["requests"] or 0 for row in rows)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path / "home")
    one.start()
    yield one
    one.stop()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    both = [Node(tmp_path / name) for name in ("one", "two")]
    for each in both:
        each.start()
    yield both
    for each in both:
        each.stop()


def haproxy(root: Path, nodes: list[Node]) -> Server:
    root.mkdir()
    port, settings = free_port(), root / "haproxy.cfg"
    lines = [f"    server n{at} 127.0.0.1:{one.server.port}" for at, one in enumerate(nodes)]
    settings.write_text(HAPROXY.format(port=port) + "\n".join(lines) + "\n")
    argv = [debian_program("haproxy", "haproxy"), "-db", "-f", str(settings)]
    return Server(argv, port, root / "log" / "haproxy.log", dict(os.environ))


def test_each_machine_in_turn_is_drained_and_returns_without_a_failed_request(
    tmp_path: Path, nodes: list[Node]
) -> None:
    """Neither of a site in the workers nor of one in its own process."""
    with haproxy(tmp_path / "front", nodes) as front:
        for each in nodes:
            eventually(lambda each=each: front.ask("web.test").status == 200 and each.served())  # type: ignore[misc]
        with Load(front.port, "web.test", "here", 2) as web, Load(front.port, "own.test", "here", 2) as own:
            for each in nodes:
                assert "draining" in each.home.multisite("drain", "--wait")
                assert each.health() == (503, "draining\n")
                each.stop()
                each.start()
                assert each.health() == (200, "ready\n")
                before = each.served()
                eventually(lambda each=each, before=before: each.served() > before, PATIENCE)  # type: ignore[misc]
        assert web.asked and not web.failures
        assert own.asked and not own.failures


def test_a_front_end_that_checks_nothing_loses_nothing_either(tmp_path: Path, nodes: list[Node]) -> None:
    """nginx sends requests to a drained machine as before, and each is answered."""
    port = free_port()
    listed = " ".join(f"server 127.0.0.1:{one.server.port} max_fails=0;" for one in nodes)
    environ = nodes[0].home.environ()
    with nginx_server(tmp_path / "nginx", NGINX.format(nodes=listed, port=port), port, environ):
        with Load(port, "own.test", "here") as load:
            for each in nodes:
                each.home.multisite("drain")
                before = each.served()
                eventually(lambda each=each, before=before: each.served() > before + 10)  # type: ignore[misc]
                each.home.multisite("drain", "--undo")
        assert load.asked and not load.failures


@pytest.mark.parametrize("site", ["web", "own"])
def test_what_is_in_flight_is_waited_for_and_late_comers_are_served(node: Node, tmp_path: Path, site: str) -> None:
    go, answers = tmp_path / "go", list[int]()
    asked = threading.Thread(
        target=lambda: answers.append(node.server.ask(f"{site}.test", f"/until/{go}").status), daemon=True
    )
    asked.start()
    eventually((node.home.path / "sites" / site / "begun").exists)
    assert f"1 request in flight ({site} 1)" in node.home.multisite("drain")
    assert node.health() == (503, "draining\n")
    waiting = threading.Thread(target=lambda: answers.append(node.home.typed("drain", "--wait").exit_code))
    waiting.start()
    assert node.server.ask("web.test").text == node.server.ask("own.test").text == "here"
    assert waiting.is_alive() and not answers
    go.touch()
    waiting.join(PATIENCE)
    asked.join(PATIENCE)
    assert answers == [200, 0]


def test_a_drain_before_the_first_request_is_known_everywhere(node: Node) -> None:
    """No site has been asked, so nobody has written down which servers there are."""
    assert node.health() == (200, "ready\n")
    node.home.multisite("drain")
    assert node.health() == (503, "draining\n")
    assert node.server.ask("status.test", "/health", method="HEAD").status == 503
    for command in ("status", "list"):
        shown = node.home.typed("--json", command)
        assert json.loads(shown.stdout)["draining"]["since"] > 0
        assert "this machine has been draining since" in node.home.typed(command).stderr
    assert json.loads(node.home.typed("--json", "explain", "web.test").stdout)["draining"]["since"] > 0
    assert "this machine has been draining since" in node.home.typed("explain", "web.test").stderr
    assert "multisite_draining 1" in node.home.multisite("metrics")
    assert "already draining" in node.home.multisite("drain")
    assert "this machine is draining" in node.server.ask("status.test").text
    assert "in service again" in node.home.multisite("drain", "--undo")
    assert node.health() == (200, "ready\n")
    assert "it was not draining" in node.home.multisite("drain", "--undo")
    assert "draining" not in json.loads(node.home.typed("--json", "status").stdout)
    assert "multisite_draining 0" in node.home.multisite("metrics")


def test_a_worker_that_is_replaced_stays_drained(node: Node) -> None:
    """Nobody has written down which servers there are, and a worker that is younger than the drain answers."""
    node.home.multisite("drain")
    (note,) = node.home.path.glob("draining-*.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "servers": []}))
    for worker in node.server.workers():
        os.kill(worker, signal.SIGKILL)
        eventually(lambda worker=worker: worker not in node.server.workers() and node.server.workers())  # type: ignore[misc]
    eventually(node.server.answers)
    assert node.health() == (503, "draining\n")


def test_requests_that_keep_coming_are_not_the_end_of_a_drain(node: Node) -> None:
    """A front end that does not check the health; the time is that of the sites."""
    node.home.ini("own", (node.home.path / "sites-available" / "own.ini").read_text() + "drain_timeout = 1s\n")
    node.home.ini("web", (node.home.path / "sites-available" / "web.ini").read_text() + "drain_timeout = 1s\n")
    with Load(node.server.port, "web.test", "here", threads=1) as load:
        eventually(lambda: load.asked)
        done = node.home.typed("drain", "--wait")
    assert (done.exit_code, load.failures) == (1, [])
    assert "after 7 seconds, " in done.stderr


def test_a_drain_lasts_until_the_last_server_has_ended(node: Node) -> None:
    other = gunicorn(node.home, "sync")
    node.server.ask("web.test")
    node.home.multisite("drain")
    with other:
        assert other.ask("status.test", "/health").text == "draining\n"
        node.stop()
        assert other.ask("status.test", "/health").text == "ready\n"
        assert "draining" not in json.loads(node.home.typed("--json", "status").stdout)
        node.start()
        assert node.health() == (200, "ready\n")


def test_a_supervisor_that_is_asked_to_end_drains_first(tmp_path: Path) -> None:
    one, go, answers = Node(tmp_path / "home"), tmp_path / "go", list[int]()
    argv = [sys.executable, "-m", "multisite", "--home", str(one.home.path), "supervise"]
    supervise = Server(argv, one.server.port, one.home.path / "log" / "supervise.log", one.home.environ())
    supervise.answers = lambda: "is ready" in supervise.log()  # type: ignore[method-assign]
    with supervise, one.running:
        one.start()
        pid = json.loads(one.home.multisite("--json", "status"))["supervisor"]["pid"]
        asked = threading.Thread(
            target=lambda: answers.append(one.server.ask("own.test", f"/until/{go}").status), daemon=True
        )
        asked.start()
        eventually((one.home.path / "sites" / "own" / "begun").exists)
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: one.health() == (503, "draining\n"))
        assert one.server.ask("own.test").text == "here"
        assert supervise.process.poll() is None
        go.touch()
        asked.join(PATIENCE)
        assert answers == [200]
        supervise.process.wait(PATIENCE)
        eventually(lambda: one.health() == (200, "ready\n"))
        assert one.server.ask("own.test").text == "here"


def test_a_request_without_end_does_not_keep_a_supervisor_that_drains(tmp_path: Path) -> None:
    one = Node(tmp_path / "home")
    for site in one.home.path.glob("sites-available/*.ini"):
        one.home.ini(site.stem, site.read_text() + "drain_timeout = 1s\nstop_timeout = 1s\nrequest_timeout = 10m\n")
    argv = [sys.executable, "-m", "multisite", "--home", str(one.home.path), "supervise"]
    supervise = Server(argv, one.server.port, one.home.path / "log" / "supervise.log", one.home.environ())
    supervise.answers = lambda: "is ready" in supervise.log()  # type: ignore[method-assign]
    with supervise, one.running:
        one.start()
        request = threading.Thread(target=lambda: one.server.ask("own.test", f"/until/{tmp_path}/never"), daemon=True)
        request.start()
        eventually((one.home.path / "sites" / "own" / "begun").exists)
        pid = json.loads(one.home.multisite("--json", "status"))["supervisor"]["pid"]
        os.kill(pid, signal.SIGTERM)
        supervise.process.wait(PATIENCE)
        request.join(PATIENCE)
        assert not request.is_alive()
