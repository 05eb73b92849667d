"""What a site sees that is reached by a relay, and servers that know nothing of us."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import PATIENCE, Answer, Client, HomeDir, Server, eventually, free_port, gunicorn

pytestmark = pytest.mark.servers

ECHO = """
import json, os

def application(environ, start_response):
    told = {key: value for key, value in environ.items() if isinstance(value, (str, bool, int, tuple, type(None)))}
    told["body"] = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
    told["order"] = [key for key in environ if key.startswith("HTTP_")]
    body = json.dumps(told).encode()
    headers = [("Content-Length", str(len(body))), ("X-Worker", str(os.getpid())), ("X-Two", "1"), ("X-Two", "2")]
    start_response("200 OK", headers)
    return [body]
"""

# What they say of the own server is right for each; the client's port is another for each connection.
OF_THE_CONNECTION = {"wsgi.multithread", "wsgi.multiprocess", "REMOTE_PORT"}


@pytest.fixture
def home(tmp_path: Path) -> HomeDir:
    return HomeDir(tmp_path).create()


def one_worker(home: HomeDir) -> Server:
    return gunicorn(home, "gthread", "--workers", "1", "--threads", "8")


def odd_request(port: int) -> Answer:
    """A request with all that relays tend to change."""
    headers = {
        "X-Dup": ("one", "two"),
        "Cookie": ("a=1; b=2",),
        "X-Forwarded-For": ("6.6.6.6",),
        "X-Forwarded-Host": ("forged.test",),
        "X-Latin": ("\xe9",),
        "Content-Type": ("text/x-odd",),
        "Content-Length": ("4",),
        "Authorization": ("Basic eDp5",),
    }
    with contextlib.closing(Client(port)) as client:
        wire = client.connection
        wire.putrequest("POST", "/a%2Fb//c;p=1/%C3%A9?q=%20&q=+", skip_host=True, skip_accept_encoding=True)
        wire.putheader("Host", "echo.test:8080")
        for name, values in headers.items():
            for value in values:
                wire.putheader(name, value)
        wire.endheaders(b"body")
        response = wire.getresponse()
        return Answer(response.status, {n.lower(): v for n, v in response.getheaders()}, response.read())


def test_a_spawned_site_sees_the_same_environ(home: HomeDir) -> None:
    """Sharing the worker's interpreter or not: the same request, the same headers of the answer, nothing added."""
    home.site("echo", ECHO)
    text = (home.path / "sites-available" / "echo.ini").read_text()
    with one_worker(home) as server:

        def is_spawned() -> bool:
            return int(server.ask("echo.test").headers["x-worker"]) not in server.workers()

        shared = odd_request(server.port)
        assert not is_spawned()
        home.ini("echo", text + "mode = spawned\n")
        eventually(is_spawned, PATIENCE, "it is spawned")
        spawned = odd_request(server.port)
    told, same = (
        {key: value for key, value in json.loads(answer.text).items() if key not in OF_THE_CONNECTION}
        for answer in (shared, spawned)
    )
    assert same == told
    assert told["RAW_URI"] == "/a%2Fb//c;p=1/%C3%A9?q=%20&q=+"
    for answer in (shared, spawned):
        answer.headers.pop("connection", "")  # which ends after an answer that was waited for
        del answer.headers["date"], answer.headers["x-worker"], answer.headers["content-length"]
    assert spawned.headers == shared.headers


OWN_SERVER = """
import http.server, os, socketserver, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{self.headers['Host']} {self.path} {self.headers['X-Forwarded-For']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Worker", str(os.getpid()))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "unix"

socketserver.ThreadingUnixStreamServer(sys.argv[1], Handler).serve_forever()
"""


def command_site(home: HomeDir, name: str, command: str, files: dict[str, str]) -> None:
    where = home.path / "sites" / name
    where.mkdir(parents=True)
    for file, text in files.items():
        (where / file).write_text(text)
    home.ini(name, f"[service]\ndomains = {name}.test\nlocation = {where}\nserver = command\ncommand = {command}\n")


def test_a_command_serves_on_the_port_it_is_given(home: HomeDir) -> None:
    """Python's own file server knows nothing of us; it runs in the site's folder and ends with the rest."""
    command_site(home, "files", f"{sys.executable} -m http.server --bind 127.0.0.1 %PORT", {"hello": "from a file\n"})
    with one_worker(home) as server:
        for _ in range(5):
            answer = server.ask("files.test", "/hello")
            assert (answer.status, answer.text) == (200, "from a file\n")
        assert server.ask("files.test", "/nowhere").status == 404
        lines = home.processes(backends=True).values()
        assert len([line for line in lines if "http.server" in line and "socketproxy.py" not in line]) == 1


def test_a_command_serves_on_the_socket_it_is_given(home: HomeDir) -> None:
    """A server that binds a unix socket of its own, and is told who asks; killed, it comes back."""
    command_site(home, "own", f"{sys.executable} own.py %SOCKET", {"own.py": OWN_SERVER})
    with one_worker(home) as server:
        answer = server.ask("own.test", "/a%2Fb?x=1")
        assert (answer.status, answer.text) == (200, "own.test /a%2Fb?x=1 127.0.0.1")
        os.kill(int(answer.headers["x-worker"]), signal.SIGKILL)
        eventually(lambda: server.ask("own.test").status == 200, PATIENCE, "it is back")


@pytest.mark.parametrize(
    ("command", "reason"),
    [("/bin/true", "before it was ready"), ("/nowhere/server %PORT", "/nowhere")],
    ids=["exits", "missing"],
)
def test_a_command_that_cannot_serve(home: HomeDir, command: str, reason: str) -> None:
    """503 for this site and a reason in the log; its neighbour is served."""
    command_site(home, "wrong", command, {})
    home.site("good", mode="spawned")
    with one_worker(home) as server:
        refused = server.ask("wrong.test")
        assert refused.status == 503
        assert "retry-after" in refused.headers
        assert server.ask("good.test").text == "site good"
        assert any("wrong" in line and reason in line for line in server.log().splitlines())


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Server]:
    """A second gunicorn that serves the echo by itself."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    (folder / "echo_upstream.py").write_text(ECHO)
    port = free_port()
    argv = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--no-control-socket"]
    argv += ["--chdir", str(folder), "echo_upstream:application"]
    with Server(argv, port, folder / "gunicorn.log", dict(os.environ)) as server:
        yield server


@pytest.mark.parametrize(
    ("worker_class", "trusted", "visitor", "host"),
    [
        ("sync", "10.9.8.7", "127.0.0.1", "echo.test:8080"),
        ("gthread", "10.9.8.7", "127.0.0.1", "echo.test:8080"),
        ("gthread", "127.0.0.1", "6.6.6.6, 127.0.0.1", "forged.test"),
    ],
)
def test_upstreams_are_told_of_the_visitor(
    home: HomeDir, upstream: Server, worker_class: str, trusted: str, visitor: str, host: str
) -> None:
    """A foreign server gets X-Forwarded-*, which only a trusted proxy may have set before, and all else as sent."""
    home.conf(f"[projects]\nread = sites-enabled/*.ini\n[service]\ntrusted_proxies = {trusted}\n")
    keys = f"domains = echo.test\nmode = proxy\nupstreams = http://127.0.0.1:{upstream.port}\n"
    home.ini("echo", f"[service]\n{keys}")
    with gunicorn(home, worker_class, "--workers", "2") as server:
        answer = odd_request(server.port)
        assert int(answer.headers["x-worker"]) in upstream.workers()
        told = json.loads(answer.text)
        assert (told["HTTP_X_FORWARDED_FOR"], told["HTTP_X_FORWARDED_PROTO"]) == (visitor, "http")
        assert (told["HTTP_X_FORWARDED_HOST"], told["HTTP_HOST"]) == (host, "echo.test:8080")
        assert told["RAW_URI"] == "/a%2Fb//c;p=1/%C3%A9?q=%20&q=+"
        assert (told["body"], told["HTTP_X_DUP"], told["HTTP_COOKIE"]) == ("body", "one,two", "a=1; b=2")
        upstream.process.send_signal(signal.SIGTERM)
        upstream.process.wait(PATIENCE)
        assert server.ask("echo.test").status == 502
