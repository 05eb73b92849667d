"""The front ends with what `multisite create-rules` prints for three sites, in front of gunicorn."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from multisite.cli.frontends import plan, syntax
from multisite.cli.frontends.blocks import Front
from tests.cli.test_frontends import front_of, many, rendered
from tests.runner.websocket import ACCEPT, FIELDS, WebSocket

from .everyway import received
from .harness import (
    PATIENCE,
    Answer,
    HomeDir,
    Server,
    assert_serves,
    debian_install,
    debian_program,
    eventually,
    free_port,
    gunicorn,
    not_tested,
    remove,
)
from .nginx import nginx_settings
from .tell import TELL

pytestmark = pytest.mark.servers

APACHE = """\
ServerRoot {root}
PidFile {root}/apache.pid
DefaultRuntimeDir {root}
TypesConfig /dev/null
AddType text/css .css
Mutex file:{root}
ServerName localhost
ErrorLog {root}/log/apache-error.log
{modules}
StartServers 1
ServerLimit 2
ThreadsPerChild 16
MaxRequestWorkers 32
{user}
<Directory />
    Require all denied
</Directory>
Include {root}/rules
"""
MODULES = ["mpm_event", "authz_core", "env", "dir", "mime", "headers", "rewrite", "proxy", "proxy_http"]
LIGHTTPD = """\
server.document-root = "{root}/nothing"
server.bind = "127.0.0.1"
server.port = {other}
server.errorlog = "{root}/log/lighttpd-error.log"
mimetype.assign = ( ".css" => "text/css" )
server.modules = ( "mod_staticfile" )
server.http-parseopts = ( "url-path-2f-decode" => "disable", "url-path-2f-reject" => "disable" )
{rules}
"""
CADDY = """\
{{
    admin off
    storage file_system {root}/caddy
}}
import {root}/rules
"""


@dataclass
class FrontEnd:
    """A real web server of one kind, over rules that the command made."""

    kind: str
    home: HomeDir

    def rules(self, port: int, behind: int, *options: str) -> str:
        root = self.home.path
        (root / "log").mkdir(exist_ok=True)
        argv = [f"--{self.kind}", "--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{behind}"]
        logs = [] if self.kind == "haproxy" else ["--logs", str(root / "log")]
        argv += [*logs, *options]
        return create_rules(self.home, *argv)

    def started(self, behind: int, *options: str) -> Server:
        """The server, not started yet, with a folder for what is its own: several may stand before one home."""
        port = free_port()
        program = debian_program(*PROGRAMS[self.kind])
        place = replace(self.home, path=self.home.path / f"{self.kind}-{next(STARTED)}")
        (place.path / "log").mkdir(parents=True)
        (place.path / "rules").write_text(self.rules(port, behind, *options))
        environ = self.home.environ() | {"HOME": str(place.path)}
        argv = [program, *ARGUMENTS[self.kind](place, port, options)]
        return Server(argv, port, place.path / "log" / f"{self.kind}.log", environ)

    def logged(self, server: Server, name: str) -> str:
        """What the log has of a site's requests; HAProxy has one log, with the host in each line."""
        if self.kind == "haproxy":
            return "".join(line for line in server.log().splitlines(True) if f"{{{name}.test}}" in line)
        return (self.home.path / "log" / f"{name}.test.access.log").read_text()


def create_rules(home: HomeDir, *arguments: str) -> str:
    done = home.typed("create-rules", *arguments)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def write(home: HomeDir, text: str) -> str:
    path = home.path / "frontend.conf"
    path.write_text(text)
    return str(path)


def nginx(home: HomeDir, port: int, options: tuple[str, ...]) -> list[str]:
    text = nginx_settings(home.path, f"include {home.path}/rules;", "root" if os.geteuid() == 0 else "")
    return ["-p", str(home.path), "-e", "stderr", "-c", write(home, text)]


def apache(home: HomeDir, port: int, options: tuple[str, ...]) -> list[str]:
    modules = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in MODULES)
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    return ["-f", write(home, APACHE.format(root=home.path, modules=modules, user=user)), "-D", "FOREGROUND"]


def lighttpd(home: HomeDir, port: int, options: tuple[str, ...]) -> list[str]:
    command = ["cat", str(home.path / "rules")]
    text = LIGHTTPD.format(root=home.path, other=free_port(), rules=f'include_shell "{shlex.join(command)}"')
    return ["-D", "-f", write(home, text)]


def caddy(home: HomeDir, port: int, options: tuple[str, ...]) -> list[str]:
    return ["run", "--adapter", "caddyfile", "--config", write(home, CADDY.format(root=home.path))]


def haproxy(home: HomeDir, port: int, options: tuple[str, ...]) -> list[str]:
    (home.path / "global.cfg").write_text("global\n    log stdout format raw local0\n    nbthread 2\n")
    return ["-db", "-f", str(home.path / "global.cfg"), "-f", str(home.path / "rules")]


ARGUMENTS: dict[str, Callable[[HomeDir, int, tuple[str, ...]], list[str]]] = {
    "nginx": nginx,
    "apache": apache,
    "lighttpd": lighttpd,
    "caddy": caddy,
    "haproxy": haproxy,
}
STARTED = itertools.count()  # front ends, each of which has a folder of its own
PROGRAMS = {
    "nginx": ("nginx", "nginx"),
    "apache": ("apache2", "apache2-bin"),
    "lighttpd": ("lighttpd", "lighttpd"),
    "caddy": ("caddy", "caddy"),
    "haproxy": ("haproxy", "haproxy"),
}


def three_sites(path: Path) -> HomeDir:
    """Each with a folder of files: one in-process and two with processes of their own."""
    home = HomeDir(path).create()
    for name, mode in (("shared", "in-process"), ("warm", "spawned"), ("cold", "spawned")):
        where = home.site(name, TELL, mode=mode)
        static = where / "static"
        static.mkdir()
        (static / "hello.css").write_text(f"/* {name} */")
        site = home.path / "sites-available" / f"{name}.ini"
        home.ini(name, site.read_text() + f"static_links = all\n[static]\n/static = {static}\n")
    return home


@pytest.fixture
def home(public_path: Path) -> HomeDir:
    """A home with these sites."""
    return three_sites(public_path)


@pytest.fixture(params=list(ARGUMENTS))
def front(request: pytest.FixtureRequest, home: HomeDir) -> FrontEnd:
    return FrontEnd(request.param, home)


@dataclass
class Behind:
    """What all front ends may stand before: a home with sites of all kinds, and its server."""

    home: HomeDir
    server: Server


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    path = Path(tempfile.mkdtemp(prefix="multisite-test-"))
    path.chmod(0o755)
    home = three_sites(path)
    echoing(home)
    for name in ("a", "b"):
        home.site(name)
    home.site("words", TELL, mode="spawned", domains=", ".join(WORDS))
    ini = path / "sites-available" / "words.ini"
    home.ini("words", ini.read_text() + f"[static]\n/static = {path}/sites/shared/static\n")
    for policy in POLICIES:
        write_files(home, policy)
    try:
        with gunicorn(home) as server:
            yield Behind(home, server)
    finally:
        remove(path)


@pytest.fixture(params=list(ARGUMENTS))
def over(request: pytest.FixtureRequest, behind: Behind) -> FrontEnd:
    """A front end of the test's own over that home."""
    return FrontEnd(request.param, behind.home)


@pytest.fixture(scope="module", params=list(ARGUMENTS))
def standing(request: pytest.FixtureRequest, behind: Behind) -> Iterator[Standing]:
    """A front end over the usual rules, for tests that only ask; `echo.test` answers messages, too."""
    front = FrontEnd(request.param, behind.home)
    with front.started(behind.server.port) as server:
        yield Standing(front.kind, server)


@dataclass
class Standing:
    """A front end that runs."""

    kind: str
    server: Server


def told(answer: Answer) -> dict[str, str]:
    assert answer.status == 200, answer.text
    found: dict[str, str] = json.loads(answer.text)
    return found


def test_three_sites(front: FrontEnd) -> None:
    """Static and dynamic content of an in-process, a warm and a cold site, with a log of its own for each."""
    with gunicorn(front.home) as behind, front.started(behind.port) as server:

        def ask(name: str, path: str = "/", **more: object) -> Answer:
            return server.ask(f"{name}.test:{server.port}", path, **more)

        assert told(ask("warm"))["HTTP_HOST"] == f"warm.test:{server.port}"
        for name in ("shared", "warm"):
            assert told(ask(name, "/x?y=1"))["QUERY_STRING"] == "y=1"
            css = ask(name, "/static/hello.css")
            assert (css.status, css.text) == (200, f"/* {name} */")
            assert css.headers["content-type"].startswith("text/css")
        first = told(ask("cold", method="POST", body=b"posted"))
        assert (first["REQUEST_METHOD"], first["body"]) == ("POST", "posted")
        assert ask("cold", "/static/nothing.css").status == 404
        assert ask("cold", "/static/hello.css", method="POST", body=b"x").status == 405
        assert ask("unknown").status == 404
        # A front end that is told to end may end before it has written what it did last.
        paths = {"shared": "/x?y=1", "warm": "/static/hello.css", "cold": "POST"}
        for name, path in paths.items():
            eventually(lambda name=name, path=path: path in front.logged(server, name))  # type: ignore[misc]
    for name, path in paths.items():
        log = front.logged(server, name)
        assert path in log
        assert "unknown" not in log
        assert not any(other in log for other in {"shared.test", "warm.test", "cold.test"} - {f"{name}.test"})


STATUS = "status.test"
TOKEN = "let me in"


@pytest.fixture(scope="module")
def pages() -> Iterator[Behind]:
    """A home with status pages, and a server that can spare a thread for a stream."""
    path = Path(tempfile.mkdtemp(prefix="multisite-test-"))
    path.chmod(0o755)
    home = HomeDir(path).create()
    conf = (path / "moya.conf").read_text()
    home.conf(f"[service]\nstatus_domain = {STATUS}\nstatus_token = {TOKEN}\n{conf}")
    home.site("blog", TELL, domains=f"blog.test, {STATUS}")
    try:
        with gunicorn(home, "gthread", "--threads", "8") as server:
            yield Behind(home, server)
    finally:
        remove(path)


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_who_comes_through_a_front_end_is_no_administrator_of_this_machine(kind: str, pages: Behind) -> None:
    """Whatever the client claims: the form is all that there is without the token. Events arrive at once."""
    front = FrontEnd(kind, pages.home)
    assert pages.server.ask(STATUS).status == 200
    with front.started(pages.server.port) as server:
        for claimed in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"Via": "1.1 x"}):
            for path in ("/", "/metrics", "/status.json", "/events", "/site/blog"):
                status, text = fetched(server, path, **claimed)
                assert (status, "blog" in text.replace("/site/blog", "")) == (401, False), (path, claimed)
        let_in = {"Authorization": f"Bearer {TOKEN}"}
        assert fetched(server, "/health") == (200, "ready\n")
        assert 'multisite_site_state{site="blog"' in fetched(server, "/metrics", **let_in)[1]
        eventually(lambda: streams(server), PATIENCE, "a stream, once a thread can be spared for it")
        eventually(lambda: "/health" in front.logged(server, "status"))


def fetched(server: Server, path: str, **fields: str) -> tuple[int, str]:
    """Return status and text of a status page, as a client of a front end gets it."""
    wire = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        wire.request("GET", path, headers={"Host": f"{STATUS}:{server.port}", **fields})
        answer = wire.getresponse()
        return answer.status, answer.read().decode()
    finally:
        wire.close()


def streams(server: Server) -> bool:
    """Tell whether the first event arrives before the end of the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as wire:
        fields = f"Host: {STATUS}:{server.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        wire.sendall(f"GET /events HTTP/1.1\r\n{fields}\r\n".encode())
        seen = b""
        while b"retry:" not in seen:
            block = wire.recv(65536)
            assert block, seen
            seen += block
        wire.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            seen += wire.recv(65536)
    return b"\r\n0\r\n\r\n" not in seen and b"content-length:" not in seen.lower()


CLAIMED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-SSL": "on",
    "X-Real-IP": "6.6.6.6",
    "X-Client-IP": "6.6.6.6",
    "X-Script-Name": "/evil",
    "SCRIPT_NAME": "/evil",
    "PATH_INFO": "/evil",
    "Forwarded": "for=6.6.6.6",
    "X-Canonical-Host": "cold.test",
}


def exactly(server: Server, host: str, target: str, **headers: str) -> dict[str, str]:
    """What a site is told of a request with these headers, sent as they are."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": host, **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status == 200, body
        found: dict[str, str] = json.loads(body)
        return found


@pytest.fixture(scope="module")
def believing() -> Iterator[Behind]:
    """A home that takes the host from another field, and its server."""
    path = Path(tempfile.mkdtemp(prefix="multisite-test-"))
    path.chmod(0o755)
    home = three_sites(path)
    home.conf(
        "[projects]\nread = sites-enabled/*.ini\n[service]\nhost_header = X-Canonical-Host\n"
        "[supervisor]\nallow_root = yes\n"
    )
    try:
        with gunicorn(home) as server:
            yield Behind(home, server)
    finally:
        remove(path)


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_what_a_client_claims_ends_at_the_front_end(kind: str, believing: Behind) -> None:
    """X-Forwarded-* are set, not added to, and nothing that a trusted peer could say comes through."""
    with FrontEnd(kind, believing.home).started(believing.server.port) as server:
        for host in ("shared.test", "warm.test"):
            seen = exactly(server, host, "/x", **CLAIMED)
            assert seen["HTTP_HOST"] == host
            assert seen["SCRIPT_NAME"] == ""
            assert seen["PATH_INFO"] == "/x"
            assert seen["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
            assert seen["HTTP_X_FORWARDED_PROTO"] == "http"
            assert seen["HTTP_X_FORWARDED_HOST"] == host
            leaked = {key: value for key, value in seen.items() if "6.6.6" in value or "evil" in value}
            assert not leaked
            assert seen.get("HTTP_X_FORWARDED_PORT", "") in ("", "80", str(server.port))


def test_an_absolute_target_is_for_the_site_whose_rules_it_passed(standing: Standing) -> None:
    """RFC 9112 section 3.2.2: both go by the name in the first line, or the front end refuses."""
    for host, other in (
        ("shared.test", "warm.test"),
        ("warm.test:81", "shared.test:82"),
        ("SHARED.test", "no.test"),
    ):
        for target in (f"http://{host}/x?y", f"http://{host}?y"):
            with socket.create_connection(("127.0.0.1", standing.server.port), PATIENCE) as wire:
                wire.sendall(f"GET {target} HTTP/1.1\r\nHost: {other}\r\nConnection: close\r\n\r\n".encode())
                raw = received(wire)
            if raw[9:12] == b"400":
                assert standing.kind in ("lighttpd", "haproxy")  # which take no request that names two
                continue
            seen = json.loads(raw[raw.index(b"{") : raw.rindex(b"}") + 1])
            for key in ("HTTP_HOST", "HTTP_X_FORWARDED_HOST"):
                assert seen[key].lower().partition(":")[0] == host.lower().partition(":")[0]


WORDS = ("default", "hostnames", "include", "volatile", "import", "-a.test", "a-.test", "_b_.test", "-")


def test_a_domain_may_be_a_word_of_the_front_end(over: FrontEnd, behind: Behind) -> None:
    options = ([] if over.kind in ("lighttpd", "haproxy") else [["--direct"]]) + [[]]
    for option in options:
        with over.started(behind.server.port, *option) as server:
            for word in WORDS:
                answer = server.ask(word)
                if answer.status == 400:
                    assert over.kind == "lighttpd" and set(word) & set("-_")  # which refuses these hosts itself
                    continue
                assert told(answer)["HTTP_HOST"] == word
            assert server.ask("unknown").status == 404


def test_paths_and_connections_arrive_as_they_should(standing: Standing) -> None:
    """The path as it was sent, encoded slashes too; and one request on each connection."""
    target = "/a%2Fb/c%3Bd;e/%C3%A9%20f?x=%2F&y"
    seen = exactly(standing.server, "shared.test", target)
    assert seen["RAW_URI"] == target
    assert seen.get("HTTP_CONNECTION", "close").lower() == "close"
    posted = standing.server.ask("shared.test", "/", method="POST", body=b"p" * 300_000)
    assert len(told(posted)["body"]) == 300_000


def test_a_restart_behind_is_survived(front: FrontEnd) -> None:
    """The front end goes on when gunicorn is gone, and serves again when it is back."""
    with gunicorn(front.home) as behind, front.started(behind.port) as server:
        assert server.ask("shared.test").status == 200
        port = behind.port
        behind.process.terminate()
        behind.process.wait(PATIENCE)
        assert server.ask("shared.test").status in (502, 503)
        static = server.ask("shared.test", "/static/hello.css").status
        assert static == (503 if front.kind == "haproxy" else 200)  # HAProxy serves no files
        again = gunicorn(front.home)
        again.argv[again.argv.index(f"127.0.0.1:{again.port}")] = f"127.0.0.1:{port}"
        again.port = port
        with again:
            eventually(lambda: server.ask("shared.test").status == 200, PATIENCE, "the front end tries again")
            for name in ("shared", "warm"):
                assert told(server.ask(f"{name}.test"))["HTTP_HOST"] == f"{name}.test"


def test_generic(front: FrontEnd) -> None:
    """One block for all domains: a site that is enabled later needs nothing of the front end."""
    logs = front.home.path / "log" / "sites" / "late.test"
    logs.mkdir(parents=True)
    with gunicorn(front.home) as behind, front.started(behind.port, "--generic") as server:
        assert told(server.ask("shared.test"))["HTTP_HOST"] == "shared.test"
        front.home.site("late", TELL, mode="spawned")
        assert told(server.ask("late.test", method="POST", body=b"first"))["body"] == "first"
        assert server.ask("unknown.test").status == 404
        common = front.home.path / "log" / "multisite.access.log"
        common = server.log_path if front.kind == "haproxy" else common
        line = '"method":"POST"' if front.kind == "caddy" else "POST / HTTP/1.1"
        eventually(lambda: line in common.read_text(), PATIENCE, "the line is written")
    if front.kind == "nginx":
        assert "POST / HTTP/1.1" in (logs / "access.log").read_text()
        assert [path.name for path in logs.parent.iterdir()] == ["late.test"]


def test_every_host_is_passed_on(over: FrontEnd, behind: Behind) -> None:
    """The generic block carries all domains, unknown and bad ones too."""
    with over.started(behind.server.port, "--generic") as server:
        assert_serves(server, behind.home)


@contextlib.contextmanager
def stopped(pids: set[int]) -> Iterator[None]:
    """These processes do nothing meanwhile."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("kind", ["nginx", "apache", "caddy"])
def test_direct(home: HomeDir, kind: str) -> None:
    """A warm site is asked at its own socket, with nobody in between; everything else goes to the dispatcher."""
    group = "socket_group = www-data\n" if os.geteuid() == 0 else ""  # Apache's workers are not root
    home.conf(f"[projects]\nread = sites-enabled/*.ini\n[supervisor]\nallow_root = yes\n{group}")
    front = FrontEnd(kind, home)
    with gunicorn(home) as behind, front.started(behind.port, "--direct") as server:
        cold = told(server.ask("cold.test", method="POST", body=b"posted"))
        assert (cold["REQUEST_METHOD"], cold["body"]) == ("POST", "posted")
        folder = home.runtime / "multisite" / "domains" / "cold.test"
        eventually(folder.is_dir, PATIENCE, "the site's socket is open")
        with stopped(behind.workers()):  # who answers now does it without the dispatcher
            direct = told(server.ask("cold.test", "/a%2Fb?c", method="POST", body=b"again"))
            assert (direct["body"], direct["RAW_URI"]) == ("again", "/a%2Fb?c")
            assert direct["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
            assert server.ask("cold.test", "/static/hello.css").text == "/* cold */"
        assert told(server.ask("shared.test"))["HTTP_HOST"] == "shared.test"
        assert server.ask("unknown.test").status == 404
        for host in (".", "..", "../x", "-", "a..b"):
            assert server.ask(host).status in (400, 404)


POLICIES = ("inside", "none", "owner", "all")


def test_files_are_the_same_whoever_serves_them(over: FrontEnd, behind: Behind) -> None:
    """Folders, mounts, single files, links, hidden names and check: with and without a front end."""
    with over.started(behind.server.port) as server:
        for policy in POLICIES:
            assert_files_are_the_same(behind.server, server, policy)


def write_files(home: HomeDir, policy: str) -> None:
    """A site on `policy.test` and `*.policy-wild.test`, and another below its /m."""
    where = home.site(policy, TELL, enable=False)
    for folder, name, text in (
        ("one", "a.css", "one a"),
        ("two", "a.css", "two a"),
        ("two", "b.css", "two b"),
        ("two", ".hidden", "secret"),
        ("two/sub", "index.html", "index"),
        ("public", "robots.txt", "robots"),
        ("public", "index.html", "home"),
        ("elsewhere", "own", "own"),
        ("sp ace", "x y.css", "blank"),
    ):
        (where / folder).mkdir(parents=True, exist_ok=True)
        (where / folder / name).write_text(text)
    (where / "icon").write_text("icon")
    (where / "two" / "inside").symlink_to("b.css")
    (where / "two" / "own").symlink_to(where / "elsewhere" / "own")
    (where / "two" / "foreign").symlink_to(where / "foreign")
    (where / "foreign").write_text("foreign")
    if os.geteuid() == 0:
        os.chown(where / "foreign", 12345, 12345)
    static = f"[static]\n/s = {where}/one, {where}/two\n/sp = {where}/sp ace\n/icon.ico = {where}/icon\n"
    keys = f"location = {where}\nstatic_links = {policy}\nstatic_expires = 5m\n"
    check = f"check = {where}/public\n"
    application = f"application = {policy}_app:application\n"
    home.ini(policy, f"[service]\ndomains = {policy}.test, *.{policy}-wild.test\n{application}{keys}{static}{check}")
    home.ini(f"{policy}-m", f"[service]\ndomains = {policy}.test\nmount = /m\n{application}{keys}{static}")


def assert_files_are_the_same(behind: Server, server: Server, policy: str) -> None:
    own = f"{policy}.test"
    for host, mounts in ((own, ("", "/m")), (f"x.{policy}-wild.test", ("",))):
        for path, text in [(mount + path, text) for mount in mounts for path, text in FILES] + CHECKED:
            without, answer = behind.ask(host, path), server.ask(host, path)
            assert (answer.status, answer.text) == (without.status, without.text), (host, path)
            assert text in (answer.text, None), (host, path)
            if answer.status == 200:
                assert answer.headers["cache-control"] == without.headers["cache-control"] == "max-age=300"
    secret = server.ask(own, "/s/foreign")
    assert (secret.text == "foreign") == (policy in ("owner", "all")), secret  # root's link, and root's word counts
    for path in ("/s/../../../etc/passwd", "/s/%2e%2e/%2e%2e/etc/passwd", "/s/..%2f..%2f..%2fetc/passwd"):
        assert "root:" not in server.ask(own, path).text
    for path in ("/robots.txt", "/s2", "/x%2Fy"):
        posted = told(server.ask(own, path, method="POST", body=b"to the application"))
        assert (posted["body"], posted["RAW_URI"]) == ("to the application", path)
    assert told(server.ask(own, "/m/x%2Fy?q"))["RAW_URI"] == "/m/x%2Fy?q"


FILES = [  # path and content; None: whatever multisite answers
    ("/s/a.css", "one a"),
    ("/s/b.css", "two b"),
    ("/s/c.css", None),
    ("/s/.hidden", None),
    ("/s/sub", None),
    ("/s/sub/", "index"),
    ("/s/inside", None),
    ("/s/own", None),
    ("/s/foreign", None),
    ("/s", None),
    ("/s/", None),
    ("/sp/x%20y.css", "blank"),
    ("/icon.ico", "icon"),
]
CHECKED = [("/robots.txt", "robots"), ("/", "home")]


ECHO = """
async def application(scope, receive, send):
    assert scope["type"] == "websocket", scope
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"] + " " + scope["path"]})
"""


@pytest.fixture
def echo(home: HomeDir) -> str:
    return echoing(home)


def echoing(home: HomeDir) -> str:
    """The host of an ASGI site, in a process of its own, that answers each message."""
    where = home.site("echo", ECHO, application="asgi:echo_asgi:application")
    (where / "echo_asgi.py").write_text(ECHO)
    return "echo.test"


def talk(server: Server, host: str) -> str:
    """The head of the answer to a handshake; where it is taken, two messages are sent and answered too."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        fields = {"Host": host, **FIELDS}
        head = ["GET /chat HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        connection.sendall("\r\n".join(head).encode())
        opened = WebSocket(connection)
        if opened.head.startswith("HTTP/1.1 101 "):
            assert ACCEPT in opened.head
            for word in ("one", "two"):
                opened.send(word)
                assert opened.receive() == (1, f"{word} /chat".encode())
        return opened.head


def test_websocket(standing: Standing) -> None:
    """It passes the front end and the dispatcher."""
    assert talk(standing.server, "echo.test").startswith("HTTP/1.1 101 ")


@pytest.mark.parametrize("kind", ["nginx", "caddy"])
def test_websocket_to_the_site_itself(home: HomeDir, echo: str, kind: str) -> None:
    """In the direct form, it goes from the front end to the site."""
    with gunicorn(home) as behind, FrontEnd(kind, home).started(behind.port, "--direct") as server:
        server.ask(echo)  # whatever it answers, it starts the site
        eventually((home.runtime / "multisite" / "domains" / echo).is_dir, PATIENCE, "the site's socket is open")
        assert talk(server, echo).startswith("HTTP/1.1 101 ")


@pytest.mark.parametrize("kind", list(ARGUMENTS))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(planned=many(least=4))
def test_no_value_becomes_a_directive(kind: str, planned: plan.Sites) -> None:
    """The server itself accepts whatever stands in a site's file, and has not heard of any directive in it."""
    debian_program(*PROGRAMS[kind])
    if kind == "apache" and not debian_install("libapache2-mod-xsendfile"):
        not_tested("Apache's mod_xsendfile: not installed (apt-get install libapache2-mod-xsendfile)")
    program, fault = syntax.check(kind, front_of(planned), partial(rendered, kind))
    assert program
    assert fault == ""


UNKNOWN = {
    "nginx": "multisite_evil on;",
    "apache": "multisite_evil on",
    "lighttpd": "multisite_evil on",
    "caddy": "http://evil.test {\n    multisite_evil on\n}",
    "haproxy": "    multisite_evil on",
}


@pytest.mark.parametrize("kind", list(ARGUMENTS))
def test_the_check_finds_faults(kind: str) -> None:
    """A directive that the server does not know is refused, or else the test above would show nothing."""
    debian_program(*PROGRAMS[kind])
    program, fault = syntax.check(kind, Front("test"), lambda front: f"{rendered(kind, front)}\n{UNKNOWN[kind]}\n")
    assert program and fault


def test_the_command_writes_what_the_server_accepts(home: HomeDir) -> None:
    """--check asks the server, --output replaces the file in one step, and only where something changed."""
    debian_program(*PROGRAMS["nginx"])
    target = home.path / "rules.conf"
    first = home.multisite("create-rules", "--nginx", "--check", "--output", str(target))
    assert "accepts the rules" in first and f"wrote {target}" in first
    again = home.multisite("create-rules", "--nginx", "--output", str(target))
    assert again == f"unchanged: {target}\n"
    refused = home.multisite("create-rules", "--nginx", "--check", "--max-body", "1G", "--logs", "/x", "nobody")
    assert refused.startswith("multisite: MS912 there is no site 'nobody'")


def test_lighttpd_runs_the_command_itself(home: HomeDir) -> None:
    """include_shell takes what the command prints, as it is."""
    program = debian_program(*PROGRAMS["lighttpd"])
    (home.path / "log").mkdir()
    with gunicorn(home) as behind:
        port = free_port()
        command = [sys.executable, "-m", "multisite", "create-rules", "--lighttpd"]
        command += ["--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{behind.port}"]
        command += ["--logs", str(home.path / "log")]
        rules = f'include_shell "{shlex.join(command)}"'
        text = LIGHTTPD.format(root=home.path, other=free_port(), rules=rules)
        argv = [program, "-D", "-f", write(home, text)]
        with Server(argv, port, home.path / "log" / "lighttpd.log", home.environ()) as server:
            assert told(server.ask("shared.test"))["HTTP_HOST"] == "shared.test"
