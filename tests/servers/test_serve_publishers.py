"""`multisite serve --publisher`: every server that such a file may name, and front ends that speak to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .harness import (
    PATIENCE,
    HomeDir,
    Server,
    assert_serves,
    debian_program,
    documented,
    eventually,
    find_program,
    free_port,
    not_tested,
)
from .nginx import nginx_server
from .system_python import system_virtualenv, uwsgi_of_debian
from .tell import TELL

pytestmark = pytest.mark.servers

NGINX_USER = "root" if os.geteuid() == 0 else ""
LIGHTTPD = """\
server.document-root = "{root}/nothing"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{root}/log/lighttpd-error.log"
"""


@pytest.fixture
def home(public_path: Path) -> HomeDir:
    return home_at(public_path / "home")


def home_at(path: Path) -> HomeDir:
    path.mkdir()
    home = HomeDir(path).create()
    for name in ("a", "b"):
        home.site(name)
    home.site("tell", TELL, domains="tell.test")
    home.site("mounted", TELL, domains="tell.test", mount="/mounted")
    home.site("apart", TELL, domains="apart.test", mode="spawned")
    return home


def publisher(home: HomeDir, port: int, text: str, python: str = sys.executable) -> Server:
    file = home.path / "publisher.conf"
    file.write_text(f"[publisher]\nport = {port}\n{text}")
    argv = [python, "-m", "multisite", "serve", "--publisher", str(file)]
    return Server(argv, port, home.path / "log" / "publisher.log", home.environ())


@pytest.mark.parametrize("kind", ["gunicorn", "standalone", "waitress", "granian"])
def test_servers_that_speak_http_serve_two_domains(home: HomeDir, kind: str) -> None:
    program = {"waitress": "waitress-serve", "granian": "granian"}.get(kind)
    if program and not find_program(program):
        not_tested(f"{program}: not installed")
    with publisher(home, free_port(), f"type = {kind}\nthreads = 4\n") as server:
        assert_serves(server, home)
        assert server.ask("apart.test").status == 200


class Behind(Server):
    """What does not speak HTTP is asked through a front end; here it only has to listen."""

    def answers(self) -> bool:
        assert self.process.poll() is None, f"{self.argv} ended with {self.process.returncode}:\n{self.log()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def behind(server: Server) -> Behind:
    return Behind(server.argv, server.port, server.log_path, server.env)


def nginx(home: HomeDir, caption: str, port: int, published: int) -> Server:
    address = {"FastCGI, for nginx": "127.0.0.1:9000", "uwsgi, for nginx": "127.0.0.1:3031"}[caption]
    location = documented("../serve.md", caption, {address: f"127.0.0.1:{published}"})
    inside = f"server {{ listen 127.0.0.1:{port}; merge_slashes off; {location} }}"
    return nginx_server(home.path, inside, port, home.environ(), NGINX_USER)


def lighttpd(home: HomeDir, caption: str, port: int, published: int) -> Server:
    rules = documented("../serve.md", caption, {"9000": str(published)})
    file = home.path / "lighttpd.conf"
    (home.path / "log").mkdir(exist_ok=True)
    file.write_text(LIGHTTPD.format(root=home.path, port=port) + rules)
    argv = [debian_program("lighttpd", "lighttpd"), "-D", "-f", str(file)]
    return Server(argv, port, home.path / "log" / "lighttpd.log", home.environ())


@pytest.fixture(scope="module", params=["fastcgi-nginx", "fastcgi-lighttpd", "uwsgi-nginx"])
def fronted(request: pytest.FixtureRequest, shared_public_path: Path) -> Iterator[tuple[Server, HomeDir]]:
    """A front end, and the home behind it."""
    home = home_at(shared_public_path / request.param)
    kind, _, front_end = request.param.partition("-")
    python = sys.executable
    if kind == "uwsgi" and not (Path(sys.executable).parent / "uwsgi").exists():
        uwsgi_of_debian()
        python = str(system_virtualenv() / "bin" / "python")
    caption = f"{'FastCGI' if kind == 'fastcgi' else kind}, for {front_end}"
    published = free_port()
    children = "min_children = 3\nmax_children = 8\nmax_requests = 5\n"
    with (
        behind(publisher(home, published, f"type = {kind}\n{children}", python)),
        {"nginx": nginx, "lighttpd": lighttpd}[front_end](home, caption, free_port(), published) as server,
    ):
        yield server, home


@pytest.fixture
def front(fronted: tuple[Server, HomeDir]) -> Server:
    return fronted[0]


def tell(server: Server, path: str, host: str = "tell.test", **more: object) -> dict[str, str]:
    answer = server.ask(host, path, **more)
    assert answer.status == 200, answer.text
    told: dict[str, str] = json.loads(answer.body)
    return told


def test_a_front_end_speaks_to_it_and_sites_come_and_go(fronted: tuple[Server, HomeDir]) -> None:
    assert_serves(*fronted)


@pytest.mark.parametrize("host", ["tell.test", "apart.test"])
def test_sites_see_the_request_as_it_was(front: Server, host: str) -> None:
    """The client's address, the path decoded once, the query as it stands, the body, the headers."""
    told = tell(front, "/a%20b%2520c/%C3%A4;x=1?q=%20%25&r", host)
    assert told["REMOTE_ADDR"] == "127.0.0.1"
    assert told.get("SCRIPT_NAME", "") == ""  # PEP 3333: what is empty may be left out
    assert told["PATH_INFO"].encode("latin-1").decode() == "/a b%20c/ä;x=1"
    assert told["QUERY_STRING"] == "q=%20%25&r"
    assert told["REQUEST_METHOD"] == "GET"
    body = bytes(range(256)) * 100
    told = tell(front, "/", host, method="POST", body=body)
    assert told["body"].encode("latin-1") == body
    assert told["HTTP_HOST"] == host
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=PATIENCE)
    connection.request("GET", "/", headers={"Host": host, "X-Some-Field": "a, b", "Cookie": "c=d"})
    told = json.loads(connection.getresponse().read())
    connection.close()
    assert (told["HTTP_X_SOME_FIELD"], told["HTTP_COOKIE"]) == ("a, b", "c=d")


def test_a_mount_becomes_script_name(front: Server) -> None:
    told = tell(front, "/mounted/x%20y")
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/mounted", "/x y")


def test_children_are_replaced_after_their_requests(fronted: tuple[Server, HomeDir]) -> None:
    """max_requests = 5: forty requests are answered all the same, by many processes.

    uWSGI replaces none that is younger than a minute.
    """
    front, home = fronted
    workers = set()
    for _ in range(40):
        answer = front.ask("a.test")
        assert answer.text == "site a"
        workers.add(answer.headers["x-worker"])
    is_uwsgi = "uWSGI" in (home.path / "log" / "publisher.log").read_text()
    assert is_uwsgi or len(workers) >= 8


def test_fastcgi_at_a_unix_socket(home: HomeDir) -> None:
    """As lighttpd and nginx use it; one that was left there is replaced."""
    path, port = home.runtime / "fcgi.sock", free_port()
    file = home.path / "publisher.conf"
    file.write_text(f"[publisher]\ntype = fastcgi\nsocket = {path}\numask = 0007\n")

    class AtPath(Server):
        def answers(self) -> bool:
            assert self.process.poll() is None, self.log()
            with socket.socket(socket.AF_UNIX) as probe:
                return probe.connect_ex(str(path)) == 0

    location = documented("../serve.md", "FastCGI, for nginx", {"127.0.0.1:9000": f"unix:{path}"})
    argv = [sys.executable, "-m", "multisite", "serve", "--publisher", str(file)]
    for _ in range(2):
        with AtPath(argv, 0, home.path / "log" / "publisher.log", home.environ()):
            assert path.stat().st_mode & 0o777 == 0o770
            inside = f"server {{ listen 127.0.0.1:{port}; {location} }}"
            with nginx_server(home.path, inside, port, home.environ(), NGINX_USER) as server:
                assert server.ask("a.test").text == "site a"


def test_the_command_line_overrides_the_file(home: HomeDir) -> None:
    port = free_port()
    file = home.path / "publisher.conf"
    file.write_text("[publisher]\ntype = waitress\nport = 1\n")
    argv = [sys.executable, "-m", "multisite", "serve", "--publisher", str(file), "--port", str(port)]
    with Server(argv, port, home.path / "log" / "publisher.log", home.environ()) as server:
        assert server.ask("a.test").status == 200


FASTCGI = "type = fastcgi\nmin_children = 1\nmax_spare = 2\nmax_children = 6\n"


def is_deaf(pid: int, number: signal.Signals) -> bool:
    """Whether a process ignores a signal, as one does that is ending already (proc(5))."""
    ignored = Path(f"/proc/{pid}/status").read_text().partition("SigIgn:")[2].split()[0]
    return bool(int(ignored, 16) >> (number - 1) & 1)


def test_fastcgi_has_more_processes_while_they_are_needed_and_finishes_what_it_began(home: HomeDir) -> None:
    """Six slow requests at one time take six processes; SIGTERM meanwhile costs none of them its answer."""
    begun, go = home.path / "begun", home.path / "go"
    begun.mkdir(mode=0o777)
    slow = "import os, time\ndef application(environ, start_response):\n"
    slow += f"    open('{begun}/%d' % os.getpid(), 'w').close()\n"
    slow += f"    while not os.path.exists('{go}'):\n        time.sleep(0.005)\n    start_response('200 OK', [])\n"
    home.site("slow", slow + "    return [b'%d' % os.getpid()]\n")
    published = free_port()
    manager = behind(publisher(home, published, FASTCGI))
    with manager, nginx(home, "FastCGI, for nginx", free_port(), published) as server:
        eventually(lambda: len(manager.workers()) == 2, PATIENCE, "it has as many as it wants")
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(server.ask, "slow.test") for _ in range(6)]
            eventually(lambda: len(list(begun.iterdir())) == 6, PATIENCE)
            manager.process.terminate()
            eventually(lambda: is_deaf(manager.process.pid, signal.SIGTERM), PATIENCE, "it has been told")
            go.touch()
            answers = [each.result() for each in asked]
        assert [answer.status for answer in answers] == [200] * 6
        assert len({answer.text for answer in answers}) == 6
        assert manager.process.wait(PATIENCE) == 0
