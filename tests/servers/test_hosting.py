"""One file hosts many directories, behind a real gunicorn with several workers."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import PATIENCE, Answer, HomeDir, Server, eventually, gunicorn, send_raw

pytestmark = pytest.mark.servers

APP = """
import json, os

def application(environ, start_response):
    told = {"text": "TEXT", "pid": os.getpid(), "cwd": os.getcwd(), "env": dict(os.environ)}
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""
FILE = """
[service]
domains = *.hosting.test
location = {root}/%HOST
"""


class Hosting:
    """A home whose site `hosting` has its folders in `root`."""

    def __init__(self, home: HomeDir, root: Path, text: str = FILE, name: str = "hosting") -> None:
        self.home, self.root = home, root
        self.write(text, name)

    def write(self, text: str, name: str = "hosting") -> None:
        self.home.ini(name, text.format(root=self.root))

    def folder(self, host: str, code: str = APP, file: str = "wsgi.py") -> Path:
        where = self.root / host
        where.mkdir(parents=True)
        (where / file).write_text(code.replace("TEXT", host))
        return where


def made(path: Path) -> Hosting:
    root = path / "www"
    root.mkdir()
    return Hosting(HomeDir(path).create(), root)


@pytest.fixture
def own(tmp_path: Path) -> Hosting:
    """For a test that writes the file anew."""
    return made(tmp_path)


@pytest.fixture(scope="module")
def hosting(tmp_path_factory: pytest.TempPathFactory) -> Hosting:
    """The file that the tests share; each has folders of its own."""
    return made(tmp_path_factory.mktemp("hosting"))


@pytest.fixture(scope="module")
def server(hosting: Hosting) -> Iterator[Server]:
    with gunicorn(hosting.home, "gthread", "--workers", "2", "--threads", "4") as running:
        yield running
    eventually(lambda: not hosting.home.processes(), PATIENCE, "nothing is left")


def told(answer: Answer) -> dict[str, object]:
    assert answer.status == 200, answer.text
    return dict(json.loads(answer.text))


def backends(home: HomeDir, host: str = "") -> set[int]:
    """All processes of sites, or those of the instance for a host."""
    return set(home.processes(backends=True, of=host and f"hosting..{host}"))


def test_each_host_with_a_folder_is_a_site_of_its_own(hosting: Hosting, server: Server) -> None:
    """Processes, working directory, socket and folder for front ends are its own, whichever worker is asked."""
    folders = {name: hosting.folder(f"{name}.hosting.test") for name in ("ann", "bob", "cem")}
    seen: dict[str, set[object]] = {}
    for _ in range(8):
        for name, folder in folders.items():
            answer = told(server.ask(f"{name}.hosting.test"))
            assert answer["text"] == f"{name}.hosting.test"
            assert answer["cwd"] == str(folder)
            seen.setdefault(name, set()).add(answer["pid"])
    assert [len(pids) for pids in seen.values()] == [1, 1, 1]
    assert len(set.union(*seen.values())) == 3
    runtime = hosting.home.runtime / "multisite"
    assert {path.name for path in (runtime / "sites").iterdir()} >= {
        f"hosting..{name}.hosting.test.sock" for name in folders
    }
    for protocol in ("http", "uwsgi"):  # our own runner speaks both
        assert (runtime / "domains" / "ann.hosting.test" / f"{protocol}.sock").is_socket()


def test_an_unknown_folder_is_a_404_and_no_process(hosting: Hosting, server: Server) -> None:
    """So is a file in place of a folder, and a host that would lead out of the folder is refused."""
    before = backends(hosting.home)
    hosting.folder("dan.hosting.test")
    (hosting.root / "file.hosting.test").write_text("")
    (hosting.root.parent / "secret").mkdir()
    (hosting.root.parent / "secret" / "wsgi.py").write_text(APP)
    for number in range(30):
        assert server.ask(f"no{number}.hosting.test").status == 404
    assert server.ask("file.hosting.test").status == 404
    for host in (
        "../secret",
        "..",
        "../secret.hosting.test",
        "%2e%2e.hosting.test",
        "a/b.hosting.test",
        ".hosting.test",
    ):
        assert server.ask(host).status in (400, 404)
    assert server.ask(f"{'x' * 64}.hosting.test").status == 400
    assert server.ask(f"{'x' * 63}.hosting.test").status == 404
    assert backends(hosting.home) <= before
    assert told(server.ask("DAN.Hosting.Test.:8000"))["text"] == "dan.hosting.test"
    assert len(backends(hosting.home, "dan.hosting.test")) == len(backends(hosting.home) - before) == 1


def test_a_folder_is_noticed_when_it_comes_and_goes(hosting: Hosting, server: Server) -> None:
    """Within a second or so, and nothing of it goes on running; a new folder of that name is a new site."""
    host = "eve.hosting.test"
    for _ in range(6):
        assert server.ask(host).status == 404
    folder = hosting.folder(host)
    assert {told(server.ask(host))["text"] for _ in range(6)} == {host}
    (first,) = backends(hosting.home, host)
    shutil.rmtree(folder)
    eventually(lambda: all(server.ask(host).status == 404 for _ in range(6)), PATIENCE)
    eventually(lambda: not backends(hosting.home, host), PATIENCE)
    hosting.folder(host, APP.replace("TEXT", "another"))
    eventually(lambda: {server.ask(host).status for _ in range(6)} == {200}, PATIENCE)
    assert {told(server.ask(host))["text"] for _ in range(6)} == {"another"}
    assert backends(hosting.home, host).isdisjoint({first})


def test_a_folder_that_takes_the_place_of_another(hosting: Hosting, server: Server) -> None:
    """As a deployment does it: by renaming."""
    host = "fay.hosting.test"
    folder = hosting.folder(host)
    assert told(server.ask(host))["text"] == host
    newer = hosting.folder("next", APP.replace("TEXT", "newer"))
    folder.rename(hosting.root / "old")
    newer.rename(folder)
    eventually(lambda: {told(server.ask(host))["text"] for _ in range(6)} == {"newer"}, PATIENCE)


LONG = "a-customer-with-a-rather-long-name.and-another-label-of-some-length.hosting.test"


def test_a_long_host_has_an_instance_too(hosting: Hosting, server: Server) -> None:
    """Its name is cut, and is still its own."""
    other = LONG.replace("length", "lentgh")
    before = backends(hosting.home)
    for host in (LONG, other):
        hosting.folder(host)
    assert told(server.ask(LONG))["text"] == LONG
    assert told(server.ask(other))["text"] == other
    assert len(backends(hosting.home) - before) == 2


def test_commands_know_instances(hosting: Hosting, server: Server) -> None:
    """list, status, explain, where, logs, stop and restart, by the host or by the instance's name."""
    host, name = "gil.hosting.test", "hosting..gil.hosting.test"
    folder = hosting.folder(host, "print('hello from gil', flush=True)\n" + APP)
    hosting.folder("hal.hosting.test")
    first = told(server.ask(host))["pid"]
    kept = told(server.ask("hal.hosting.test"))["pid"]
    for command in ("list", "status"):
        rows = {row["name"]: row for row in json.loads(hosting.home.multisite("--json", command))["sites"]}
        assert rows["hosting"]["domains"] == ["*.hosting.test"]
        assert (rows[name]["state"], rows[name]["pids"], rows[name]["domains"]) == ("running", [first], [host])
        assert rows[name]["requests"] == 1
    explained = json.loads(hosting.home.multisite("--json", "explain", host))
    assert (explained["name"], explained["location"], explained["placement"]) == (name, str(folder), "spawned")
    assert "no folder" in hosting.home.multisite("explain", "nobody.hosting.test")
    for known in (host, name):
        assert hosting.home.multisite("where", known).strip() == str(folder)
        eventually(lambda known=known: "hello from gil" in hosting.home.multisite("logs", known))  # type: ignore[misc]
    hosting.home.multisite("restart", host)
    eventually(lambda: told(server.ask(host))["pid"] != first, PATIENCE)
    hosting.home.multisite("stop", name)
    eventually(lambda: not backends(hosting.home, host), PATIENCE)
    assert backends(hosting.home, "hal.hosting.test") == {kept}
    hosting.home.multisite("stop", "hosting")
    eventually(lambda: not backends(hosting.home), PATIENCE)
    assert told(server.ask(host))["text"] == host


EVERYTHING = """
[service]
domains = {{user}}.users.test
location = {root}/%USER/www
python = %(location)s/.venv
application = served:make("%USER")
[env]
SITE_HOST = %HOST
SITE_USER = %USER
[logging]
error = {root}/%USER/%(name)s.log
"""
MAKE = """
import json, os, sys

def make(user):
    def application(environ, start_response):
        print("asked", flush=True)
        told = [user, sys.prefix, os.environ["SITE_HOST"], os.environ["SITE_USER"], os.environ["PATH"].split(":")[0]]
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(told).encode()]
    return application
"""


def test_everything_in_the_file_follows_the_host(own: Hosting) -> None:
    """What a domain captures, virtualenv, environment, application and log."""
    own.write(EVERYTHING)
    for user in ("ann", "bob"):
        where = own.folder(f"{user}/www", MAKE, "served.py")
        os.system(f"{sys.executable} -m venv --without-pip {where}/.venv")
    with gunicorn(own.home, "gthread", "--workers", "1", "--threads", "4") as server:
        for user in ("ann", "bob"):
            host, venv = f"{user}.users.test", f"{own.root}/{user}/www/.venv"
            assert json.loads(server.ask(host).text) == [user, venv, host, user, f"{venv}/bin"]
            log = own.root / user / f"hosting..{host}.log"
            eventually(lambda log=log: log.exists() and "asked" in log.read_text(), PATIENCE)  # type: ignore[misc]


COMMAND = """
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = " ".join([*sys.argv[1:2], self.headers["Host"], open("text").read()]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""


def test_luisitos_template(own: Hosting, tmp_path: Path) -> None:
    """A command of any kind with %HOST and %PORT; the program is outside the folders."""
    program = tmp_path / "serve.py"
    program.write_text(COMMAND)
    own.write(FILE + f"command = {sys.executable} {program} %HOST %PORT\n")
    for name in ("ann", "bob"):
        own.folder(f"{name}.hosting.test", f"folder of {name}", "text")
    with gunicorn(own.home, "sync", "--workers", "2") as server:
        for _ in range(4):
            for name in ("ann", "bob"):
                host = f"{name}.hosting.test"
                assert server.ask(host).text == f"{host} {host} folder of {name}"
        assert server.ask("cem.hosting.test").status == 404


# --- what was on Luisito's list ---------------------------------------------------------------------------------------


def test_allowed_domains_and_aliases(own: Hosting) -> None:
    """Only the domains of the file are answered; a link beside its target is another name, and may be redirected."""
    own.write(FILE.replace("*.hosting.test", "ann.test, www.ann.test, bob.test") + "redirect_to_canonical = yes\n")
    for name in ("ann.test", "bob.test", "eve.test"):
        own.folder(name)
    (own.root / "www.ann.test").symlink_to("ann.test")
    with gunicorn(own.home, "gthread", "--workers", "1", "--threads", "4") as server:
        assert told(server.ask("ann.test"))["text"] == "ann.test"
        assert told(server.ask("bob.test"))["text"] == "bob.test"
        assert server.ask("eve.test").status == 404
        moved = server.ask("www.ann.test:8000", "/a%2Fb?c=d")
        assert (moved.status, moved.headers["location"]) == (301, "http://ann.test:8000/a%2Fb?c=d")
        assert server.ask("www.ann.test", method="POST", body=b"x").status == 308
        own.write(FILE.replace("*.hosting.test", "ann.test, www.ann.test"))
        eventually(lambda: server.ask("www.ann.test").status == 200, PATIENCE)
        assert server.ask("bob.test").status == 404
        eventually(lambda: len(backends(own.home)) == 1, PATIENCE, "bob's is ended")
        (only,) = backends(own.home)
        assert {told(server.ask(host))["pid"] for host in ("ann.test", "www.ann.test") for _ in range(3)} == {only}


def test_one_domain_among_many_has_its_own_command_environment_and_virtualenv(own: Hosting) -> None:
    """A file of its own for the exact domain wins over the pattern."""
    for name in ("ann", "bob", "cem"):
        own.folder(f"{name}.hosting.test")
    venv = own.root / "venv"
    os.system(f"{sys.executable} -m venv --without-pip {venv}")
    text = f"[service]\ndomains = bob.hosting.test\nlocation = {own.root}/bob.hosting.test\npython = {venv}\n"
    own.home.ini("bob", text + "application = wsgi:application\nenv_mode = replace\n[env]\nGREETING = hello\n")
    program = own.root / "serve.py"
    program.write_text(COMMAND)
    (own.root / "cem.hosting.test" / "text").write_text("by a command")
    text = f"[service]\ndomains = cem.hosting.test\nlocation = {own.root}/cem.hosting.test\n"
    own.home.ini("cem", text + f"command = {sys.executable} {program} %HOST %PORT\n")
    with gunicorn(own.home, "gthread", "--workers", "1", "--threads", "4") as server:
        ann, bob = (dict(told(server.ask(f"{name}.hosting.test"))["env"]) for name in ("ann", "bob"))  # type: ignore[call-overload]
        assert "PATH" in ann and "GREETING" not in ann
        assert set(bob) - {"MULTISITE_BACKEND", "NOTIFY_SOCKET", "LC_CTYPE"} == {"GREETING"}
        assert server.ask("cem.hosting.test").text.endswith("by a command")


def test_a_folder_whose_application_fails_is_tried_again_with_growing_pauses(hosting: Hosting, server: Server) -> None:
    """503 with Retry-After for its host alone, and well again when it is mended."""
    folder = hosting.folder("bad.hosting.test", "raise RuntimeError('not today')\n")
    hosting.folder("ian.hosting.test")
    eventually(lambda: server.ask("bad.hosting.test").headers.get("retry-after"), PATIENCE)
    assert server.ask("bad.hosting.test").status == 503
    assert told(server.ask("ian.hosting.test"))["text"] == "ian.hosting.test"
    assert "not today" in server.log()
    (folder / "wsgi.py").write_text(APP.replace("TEXT", "mended"))
    (folder / "tmp").mkdir()
    (folder / "tmp" / "restart.txt").write_text("")
    eventually(lambda: server.ask("bad.hosting.test").status == 200, PATIENCE)


def test_an_empty_folder_says_what_is_missing(hosting: Hosting, server: Server) -> None:
    """In the log and in explain; the visitor gets a 503."""
    (hosting.root / "empty.hosting.test").mkdir()
    assert server.ask("empty.hosting.test").status == 503
    assert "contains none of wsgi.py" in server.log()
    assert "contains none of wsgi.py" in hosting.home.multisite("explain", "empty.hosting.test")


SEEN = """
import http.server, json, socket, socketserver

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({key.lower(): value for key, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "client"

class Server(http.server.ThreadingHTTPServer):
    def __init__(self):
        socketserver.BaseServer.__init__(self, ("", 0), Handler)
        self.socket = socket.socket(fileno=3)

    def get_request(self):
        return self.socket.accept()[0], ("client", 0)

Server().serve_forever()
"""
WSGI_SEEN = """
import json

def application(environ, start_response):
    seen = {key[5:].lower().replace("_", "-"): environ[key] for key in environ if key.startswith("HTTP_")}
    body = json.dumps(seen).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def send(server: Server, **headers: str) -> dict[str, str]:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    answer = send_raw(server.port, f"GET / HTTP/1.0\r\n{lines}\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    return dict(json.loads(body)) if b" 200 " in head[:20] else {"status": head.decode().split()[1]}


def test_the_canonical_host_of_a_front_end(own: Hosting) -> None:
    """It chooses the folder, and every kind of server sees it; from a stranger it is neither believed nor passed on."""
    own.home.conf(
        "[projects]\nread = sites-enabled/*.ini\n[supervisor]\nallow_root = yes\n"
        "[service]\nhost_header = X-Canonical-Host\n"
    )
    own.folder("ann.hosting.test", WSGI_SEEN)
    foreign = own.folder("foreign", SEEN, "seen.py")
    own.home.ini("foreign", f"[service]\ndomains = f.test\nlocation = {foreign}\ncommand = {sys.executable} seen.py\n")
    with gunicorn(own.home, "gthread", "--workers", "1", "--threads", "4") as server:
        for canonical in ("ann.hosting.test", "f.test"):
            seen = send(server, Host="www.other.test", X_Canonical_Host=canonical)
            assert (seen["host"], seen["x-canonical-host"]) == ("www.other.test", canonical)
        assert send(server, Host="www.other.test", X_Canonical_Host="no.hosting.test") == {"status": "404"}
        assert send(server, Host="ann.hosting.test")["host"] == "ann.hosting.test"
        conf = own.home.path / "moya.conf"
        conf.write_text(conf.read_text() + "trusted_proxies = 192.0.2.1\n")
        eventually(
            lambda: "x-canonical-host" not in send(server, Host="f.test", X_Canonical_Host="ann.hosting.test"), PATIENCE
        )
        for host in ("f.test", "ann.hosting.test"):
            assert "x-canonical-host" not in send(server, Host=host, X_Canonical_Host="bob.hosting.test")
