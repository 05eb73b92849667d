"""Domains that nobody knows: who sets them up is asked once, and their first requests wait and are served."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from tests.backends import Backend

from .harness import PATIENCE, Answer, HomeDir, Server, ask, eventually, free_port, gunicorn

pytestmark = pytest.mark.servers

Served = tuple[HomeDir, Server]

CONF = """[projects]
read = sites-enabled/*.ini
[supervisor]
allow_root = yes
[router]
provision = {provision}
provision_timeout = {timeout}
"""

FUNCTION = """
import os, time

HOME = os.path.dirname(os.path.abspath(__file__))


def domain(name):
    with open(os.path.join(HOME, "asked"), "a") as file:
        file.write(name + "\\n")
    print("this is not the answer")
    kind = name.partition("-")[0]
    if kind in ("site", "slow", "here", "files"):
        while kind == "slow" and not os.path.exists(os.path.join(HOME, "go")):
            time.sleep(0.01)
        more = {"here": "mode = in-process\\n", "files": f"[static]\\n/static = {HOME}\\n"}.get(kind, "")
        where = os.path.join(HOME, "sites", "shared")
        with open(os.path.join(HOME, "sites-enabled", f".{name}"), "w") as file:
            file.write(f"[service]\\nname = {name}\\ndomains = {name}\\nlocation = {where}\\n")
            file.write(f"application = shared_app:application\\n{more}")
        os.rename(file.name, os.path.join(HOME, "sites-enabled", f"{name}.ini"))
    if kind == "node":
        return f"http+unix:{HOME}/node.sock"
    if kind == "raises":
        raise RuntimeError("the bill is not paid")
"""

APPLICATION = """
import os

def application(environ, start_response):
    size = environ.get("CONTENT_LENGTH") or (-1 if "HTTP_TRANSFER_ENCODING" in environ else 0)
    body = environ["wsgi.input"].read(int(size))
    if body:
        with open(os.path.join(os.path.dirname(__file__), "posted"), "ab") as file:
            file.write(body[:20] + b"\\n")
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return [environ["HTTP_HOST"].encode() + b" " + str(len(body)).encode()]
"""


def made(path: Path, provision: str, timeout: str = "60s") -> HomeDir:
    home = HomeDir(path).create()
    home.conf(CONF.format(provision=provision, timeout=timeout))
    home.site("shared", APPLICATION, domains="shared.test")
    (path / "provision.py").write_text(FUNCTION)
    (path / "asked").touch()
    return home


def asked(home: HomeDir) -> Counter[str]:
    """How often each domain was asked about."""
    return Counter((home.path / "asked").read_text().split())


def later(call: object, *args: object, **more: object) -> Future[Answer]:
    """Ask in a thread."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(call, *args, **more)  # type: ignore[arg-type]
    finally:
        pool.shutdown(wait=False)


@pytest.fixture(scope="module", params=["gthread", "sync"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = made(tmp_path_factory.mktemp("provision"), "provision.py:domain")
    threads = ("--threads", "2") if request.param == "gthread" else ()
    with gunicorn(home, request.param, "--workers", "2", *threads) as server:
        yield home, server


def test_a_site_that_is_written_serves_the_request_that_asked_for_it(served: Served) -> None:
    home, server = served
    answer = server.ask("site-new.test")
    assert (answer.status, answer.text) == (200, "site-new.test 0"), server.log()
    assert {server.ask("site-new.test").status for _ in range(10)} == {200}
    assert asked(home)["site-new.test"] == 1


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_body_waits_with_its_request_and_is_taken_once(served: Served, size: int) -> None:
    home, server = served
    name = f"site-post{size}.test"
    answer = server.ask(name, method="POST", body=(f"{size}:".encode() + b"x" * size)[:size])
    assert (answer.status, answer.text) == (200, f"{name} {size}"), server.log()
    posted = (home.path / "sites" / "shared" / "posted").read_bytes().split()
    assert sum(body.startswith(f"{size}:".encode()) for body in posted) == 1
    assert asked(home)[name] == 1


def test_a_body_in_pieces_waits_and_a_client_that_leaves_harms_nobody(served: Served) -> None:
    home, server = served
    (home.path / "go").unlink(missing_ok=True)
    head = "POST / HTTP/1.1\r\nHost: slow-pieces.test\r\nConnection: close\r\n"
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n6\r\npieces\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as wire:
        wire.sendall(chunked)
        with socket.create_connection(("127.0.0.1", server.port)) as leaver:
            leaver.sendall(f"{head}Content-Length: 6\r\n\r\nleaver".encode())
            eventually(lambda: asked(home)["slow-pieces.test"] == 1)
        (home.path / "go").touch()
        wire.sendall(b"4\r\nmore\r\n0\r\n\r\n")
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ") and b"slow-pieces.test 10" in answer, server.log()
    assert server.ask("slow-pieces.test").text == "slow-pieces.test 0"
    assert asked(home)["slow-pieces.test"] == 1


def test_all_requests_of_a_domain_wait_and_hold_no_thread(served: Served) -> None:
    """There are fewer threads than requests that wait, and a neighbour is served meanwhile."""
    home, server = served
    (home.path / "go").unlink(missing_ok=True)
    waiting = [later(server.ask, "slow-one.test") for _ in range(20)]
    eventually(lambda: asked(home)["slow-one.test"] == 1)
    for _ in range(10):
        assert server.ask("shared.test").text == "shared.test 0"
    assert not any(each.done() for each in waiting)
    (home.path / "go").touch()
    assert {each.result(PATIENCE).text for each in waiting} == {"slow-one.test 0"}, server.log()
    assert asked(home)["slow-one.test"] == 1


def test_a_node_that_is_named_answers(served: Served) -> None:
    home, server = served
    with contextlib.suppress(FileNotFoundError):
        (home.path / "node.sock").unlink()

    def talk(wire: socket.socket) -> None:
        wire.recv(65536)
        wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnode")

    with Backend(home.path / "node.sock", talk):
        assert {server.ask("node-a.test").text for _ in range(10)} == {"node"}, server.log()
        assert server.ask("node-a.test:8000", method="POST", body=b"x").text == "node"
    assert asked(home)["node-a.test"] == 1
    assert "node.sock" in home.multisite("router", "node-a.test")
    assert "node.sock" in home.multisite("explain", "node-a.test")


def test_a_refusal_is_a_404_and_holds(served: Served) -> None:
    home, server = served
    assert {server.ask("other.test").status for _ in range(10)} == {404}
    assert asked(home)["other.test"] == 1


def test_a_function_that_raises_is_logged_and_asked_again_later(served: Served) -> None:
    home, server = served
    answer = server.ask("raises-a.test")
    assert answer.status == 503 and int(answer.headers["retry-after"]) > 0
    assert server.ask("raises-a.test").status == 503
    assert asked(home)["raises-a.test"] == 1
    assert "the bill is not paid" in server.log()


@pytest.mark.parametrize("kind", ["here", "files"])
def test_a_site_that_needs_the_worker_answers_the_next_request(served: Served, kind: str) -> None:
    """Which the client is told."""
    home, server = served
    answer = server.ask(f"{kind}-a.test")
    assert answer.status == 503 and answer.headers["retry-after"] == "1"
    assert server.ask(f"{kind}-a.test").text == f"{kind}-a.test 0"
    assert asked(home)[f"{kind}-a.test"] == 1


def test_what_is_no_domain_is_never_asked_about(served: Served) -> None:
    home, server = served
    before = asked(home)
    hosts = ["localhost", "127.0.0.1", "[::1]", "1.2.3", "a", "-x.test", "a.b/../c", "$(id).test", "x;y.test", "a'b.c"]
    assert {server.ask(host).status for host in hosts} <= {400, 404}
    assert asked(home) == before


def test_strangers_have_few_processes_started(served: Served) -> None:
    """200 unknown hosts at once: each is asked about once at most, and all are answered; sites serve meanwhile."""
    home, server = served
    hosts = [f"stranger{number}.test" for number in range(200)]
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda host: ask(server.port, host), hosts))
        assert server.ask("shared.test").status == 200
    assert {answer.status for answer in answers} <= {404, 503}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers if answer.status == 503)
    told = asked(home)
    assert all(told[host] <= 1 for host in hosts)
    assert 0 < sum(told[host] for host in hosts) < 150


def test_a_server_that_keeps_its_connections_waits_in_a_thread(tmp_path: Path) -> None:
    """waitress, for one; there a site in the worker answers the first request, too."""
    home = made(tmp_path, "provision:domain")
    port = free_port()
    argv = [sys.executable, "-m", "waitress", "--listen", f"127.0.0.1:{port}", "multisite.service:application"]
    with Server(argv, port, home.path / "log" / "waitress.log", home.environ()) as server:
        for kind in ("site", "here", "files"):
            assert server.ask(f"{kind}-w.test", method="POST", body=b"four").text == f"{kind}-w.test 4", server.log()
        assert server.ask("other.test").status == 404
        assert max(asked(home).values()) == 1


@pytest.mark.parametrize("kind", ["fallback", "default"])
def test_who_is_refused_goes_where_unknown_hosts_go(tmp_path: Path, kind: str) -> None:
    """The first request, which waited, and the later ones."""
    home = made(tmp_path, "provision.py:domain")
    more = {"fallback": f"fallback = http+unix:{tmp_path}/node.sock", "default": "[service]\ndefault_site = shared"}
    home.conf((home.path / "moya.conf").read_text() + more[kind])

    def talk(wire: socket.socket) -> None:
        wire.recv(65536)
        wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfallback")

    with Backend(home.path / "node.sock", talk), gunicorn(home, "gthread") as server:
        answers = [server.ask("other.test", method="POST", body=b"four") for _ in range(5)]
        assert {answer.text for answer in answers} == {"fallback" if kind == "fallback" else "other.test 4"}
        assert asked(home)["other.test"] == 1
        assert server.ask("site-new.test").text == "site-new.test 0"


def supervisor_of(home: HomeDir) -> int:
    status = json.loads(home.multisite("--json", "status"))
    return int(status["supervisor"]["pid"])


def test_the_supervisor_may_be_replaced_or_killed_meanwhile(tmp_path: Path) -> None:
    """A new program waits until domains are set up, and knows the nodes; after a crash one is asked about again."""
    home = made(tmp_path, "provision.py:domain")

    def talk(wire: socket.socket) -> None:
        wire.recv(65536)
        wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnode")

    with Backend(home.path / "node.sock", talk), gunicorn(home, "gthread", "--workers", "1") as server:
        assert server.ask("node-a.test").text == "node"
        waiting = later(server.ask, "slow-one.test", method="POST", body=b"four")
        eventually(lambda: asked(home)["slow-one.test"] == 1)
        reload = later(home.multisite, "reload", "--supervisor")
        hosts = (f"node-{number}.test" for number in count())
        eventually(lambda: server.ask(next(hosts)).status == 503, what="nothing new is begun")
        (home.path / "go").touch()
        assert waiting.result(PATIENCE).text == "slow-one.test 4", server.log()
        assert "new program" in str(reload.result(PATIENCE))
        assert "node-a.test" in home.multisite("router")
        (home.path / "go").unlink()
        waiting = later(server.ask, "slow-two.test", method="POST", body=b"four")
        eventually(lambda: asked(home)["slow-two.test"] == 1)
        os.kill(supervisor_of(home), signal.SIGKILL)
        eventually(lambda: asked(home)["slow-two.test"] == 2, what="it is asked about again")
        (home.path / "go").touch()
        assert waiting.result(PATIENCE).text == "slow-two.test 4", server.log()
        assert (home.path / "sites" / "shared" / "posted").read_text() == "four\n" * 2
        assert asked(home)["slow-one.test"] == 1


COMMAND = """#!/bin/sh
echo "$#:$1:$HOME:$GUNICORN_CMD_ARGS:$PYTHONPATH" >> asked
case "$1" in
node-*) echo "http+unix:$MOYA_SERVICE_HOME/node.sock";;
loud-*) yes no | head -c 10000000;;
stuck-*) echo $$ > stuck; sleep 1000;;
odd-*) exit 3;;
*) exit 1;;
esac
"""


@pytest.fixture(scope="module")
def commanded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = made(tmp_path_factory.mktemp("command"), "./provision", "3s")
    (home.path / "provision").write_text(COMMAND)
    (home.path / "provision").chmod(0o755)
    server = gunicorn(home, "gthread", "--threads", "2")
    server.env["GUNICORN_CMD_ARGS"] = "--capture-output"
    with server:
        yield home, server


def test_a_command_gets_the_domain_as_one_word_and_nothing_of_the_server(commanded: Served) -> None:
    home, server = commanded
    assert server.ask("refused.test").status == 404
    line = (home.path / "asked").read_text().splitlines()[-1]
    assert line.startswith("1:refused.test:/") and line.endswith("::")


@pytest.mark.parametrize("kind", ["loud", "odd"])
def test_a_command_that_says_nonsense_has_failed(commanded: Served, kind: str) -> None:
    _home, server = commanded
    assert server.ask(f"{kind}-a.test").status == 503
    assert f"{kind}-a.test" in server.log()


def test_a_command_that_takes_too_long_is_killed(commanded: Served) -> None:
    home, server = commanded
    answer = server.ask("stuck-a.test")
    assert answer.status == 503 and int(answer.headers["retry-after"]) > 0
    pid = int((home.path / "stuck").read_text())
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), what="it is gone")
    eventually(lambda: "took too long" in server.log())


def test_refusals_use_up_an_allowance_that_grows_slowly(commanded: Served) -> None:
    """The last of these tests, which leaves nothing of it."""
    home, server = commanded
    began = time.monotonic()
    statuses = Counter(server.ask(f"vain{number}.test").status for number in range(150))
    told = (home.path / "asked").read_text().count(":vain")
    assert 0 < told <= 60 + 1 + time.monotonic() - began
    assert statuses == {404: told, 503: 150 - told}
