"""[access]: who may use a site, in every way in which it is reached, and behind every front end."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.runner.websocket import FIELDS, WebSocket

from .everyway import reply
from .harness import PATIENCE, Answer, HomeDir, Server, eventually, free_port, gunicorn, remove
from .tell import TELL
from .test_frontends import ARGUMENTS, FrontEnd

pytestmark = pytest.mark.servers

SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="
ASGI = """
import json


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        return await send({"type": "websocket.accept"})
    told = {"HTTP_" + name.decode().upper().replace("-", "_"): value.decode() for name, value in scope["headers"]}
    body = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
COMMAND = """
import json, socket

listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    head = connection.recv(65536).decode("latin-1")
    fields = [line.partition(": ") for line in head.split("\\r\\n")[1:] if line]
    body = json.dumps({"HTTP_" + name.upper().replace("-", "_"): value for name, _, value in fields}).encode()
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % len(body) + body)
    connection.close()
"""
WSGI_SITES = ("shared", "handed", "relayed")
SITES = (*WSGI_SITES, "async", "command", "upstream")
ANN = "Basic " + base64.b64encode(b"ann:secret").decode()
WRONG = "Basic " + base64.b64encode(b"ann:wrong").decode()
INSIDE, OUTSIDE = "127.0.0.2", "127.0.0.3"  # neither is a trusted proxy


def every_site(path: Path, upstream: int) -> HomeDir:
    """One site for each way in which one is reached; each with a folder of files, and with a password."""
    home = HomeDir(path).create()
    (path / "users").write_text(f"ann:{SHA}\n")
    home.conf("[projects]\nread = sites-enabled/*.ini\n[supervisor]\nallow_root = yes\nexamine = no\nhand_over = yes\n")
    home.site("shared", TELL, mode="in-process")
    home.site("handed", TELL, mode="spawned")
    home.site("relayed", TELL, mode="spawned", processes="2")
    where = home.site("async", "", application="asgi:async_app:application")
    (where / "async_app.py").write_text(ASGI)
    home.site("command", COMMAND, application="command_app", command=f"{sys.executable} command_app.py")
    home.site("upstream", mode="proxy", upstreams=f"http://127.0.0.1:{upstream}", application="")
    for name in SITES:
        closed(home, name, f"htpasswd = {path}/users\n")
    return home


def closed(home: HomeDir, name: str, access: str) -> None:
    """Restrict a site, and give it files."""
    (home.path / "sites" / name / "files").mkdir(exist_ok=True)
    (home.path / "sites" / name / "files" / "hello.css").write_text(f"/* {name} */")
    text = (home.path / "sites-available" / f"{name}.ini").read_text()
    static = f"static_links = all\n[static]\n/static = {home.path}/sites/{name}/files\n"
    home.ini(name, f"{text}{static}[access]\n{access}")


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    """A server of somebody else's that tells what it was asked."""
    port, path = free_port(), Path(tempfile.mkdtemp(prefix="multisite-test-"))
    (path / "far.py").write_text(TELL)
    argv = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--chdir", str(path), "far:application"]
    try:
        with Server([*argv, "--no-control-socket"], port, path / "log" / "far.log", dict(os.environ)):
            yield port
    finally:
        remove(path)


@pytest.fixture(scope="module")
def home(upstream: int) -> Iterator[HomeDir]:
    path = Path(tempfile.mkdtemp(prefix="multisite-test-"))
    path.chmod(0o755)
    try:
        yield every_site(path, upstream)
    finally:
        remove(path)


@pytest.fixture(scope="module", params=["sync", "gthread"])
def server(request: pytest.FixtureRequest, home: HomeDir) -> Iterator[Server]:
    with gunicorn(home, request.param) as running:
        yield running


def ask(port: int, host: str, path: str = "/", authorization: str = "", source: str = INSIDE, **more: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE, source_address=(source, 0))
    fields = {"Host": host, **({"Authorization": authorization} if authorization else {})}
    with contextlib.closing(connection):
        connection.request("GET", path, headers=fields | {name.replace("_", "-"): text for name, text in more.items()})
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())


def pids(home: HomeDir, name: str) -> set[int]:
    return set(home.processes(backends=True, of=name))


@pytest.mark.parametrize("close", [{}, {"Connection": "close"}])
@pytest.mark.parametrize("name", SITES)
def test_only_who_has_a_password_is_answered(server: Server, home: HomeDir, name: str, close: dict[str, str]) -> None:
    """Whoever is refused wakes nothing, files included; the site learns the user, and not the password."""
    home.multisite("stop", name)
    eventually(lambda: not pids(home, name))
    for path in ("/", "/static/hello.css", "/static/none"):
        for authorization in ("", WRONG, "Bearer x"):
            answer = ask(server.port, f"{name}.test", path, authorization, X_Remote_User="ann", **close)
            assert answer.status == 401, (path, authorization)
            assert answer.headers["www-authenticate"] == f'Basic realm="{name}", charset="UTF-8"'
            assert "Sign in" in answer.text
    assert not pids(home, name)
    assert ask(server.port, f"{name}.test", "/static/hello.css", ANN).text == f"/* {name} */"
    assert not pids(home, name)
    for _ in range(2):  # the second is handed over, where that is done
        answer = ask(server.port, f"{name}.test", "/", ANN, X_Remote_User="root", **close)
        told = json.loads(answer.text)
        assert told["HTTP_X_REMOTE_USER"] == "ann"
        assert "HTTP_AUTHORIZATION" not in told
        if name in WSGI_SITES:
            assert (told["REMOTE_USER"], told["AUTH_TYPE"]) == ("ann", "Basic")


@pytest.mark.parametrize("name", ["async", "handed"])
def test_a_websocket_needs_the_password_too(server: Server, name: str) -> None:
    lines = ["GET / HTTP/1.1", f"Host: {name}.test", *(f"{key}: {value}" for key, value in FIELDS.items())]
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as wire:
        wire.sendall("\r\n".join([*lines, "", ""]).encode())
        assert reply(wire).status == 401
    if name == "async":
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as wire:
            wire.sendall("\r\n".join([*lines, f"Authorization: {ANN}", "", ""]).encode())
            assert " 101 " in WebSocket(wire).head


def test_no_link_leads_past_the_check(server: Server, home: HomeDir) -> None:
    """To the socket of a site in its domains; it goes when the section comes, and comes when it goes."""
    home.site("later", TELL, mode="spawned")
    link = home.runtime / "multisite" / "domains" / "later.test" / "http.sock"
    assert server.ask("later.test").status == 200
    eventually(link.is_symlink)
    closed(home, "later", f"htpasswd = {home.path}/users\n")
    eventually(lambda: ask(server.port, "later.test").status == 401)
    eventually(lambda: not link.parent.exists())
    for name in SITES:
        assert not (link.parent.parent / f"{name}.test").exists()
    home.disable("later")


def test_a_file_that_cannot_be_read_lets_nobody_in(server: Server, home: HomeDir) -> None:
    """And each command names it."""
    home.site("mislaid", TELL, mode="in-process")
    users = home.path / "mislaid.users"
    users.write_text(f"ann:{SHA}\n")
    closed(home, "mislaid", f"htpasswd = {users}\n")
    assert ask(server.port, "mislaid.test", "/", ANN).status == 200
    users.unlink()
    for authorization in ("", ANN):
        answer = ask(server.port, "mislaid.test", "/", authorization)
        assert (answer.status, str(users) in answer.text) == (503, False)
        assert answer.headers["retry-after"]
    for command in (["check"], ["explain", "mislaid.test"]):
        done = home.typed(*command)
        assert done.exit_code == 1, command
        assert f"[access] htpasswd = {users}: does not exist" in done.stdout + done.stderr, command
    assert "mislaid" in server.log()
    assert str(users) in server.log()
    users.write_text(f"ann:{SHA}\nbob:plain\n")
    assert ask(server.port, "mislaid.test", "/", ANN).status == 200
    assert f"htpasswd -B {users} bob" in home.typed("check").stdout
    home.disable("mislaid")


def test_who_waits_in_a_pause_has_been_asked_for_the_password(server: Server, home: HomeDir) -> None:
    """Once: the others are refused at once, and wait for nothing."""
    assert home.typed("pause", "handed").exit_code == 0
    eventually(lambda: "paused" in home.multisite("list"))
    try:
        assert ask(server.port, "handed.test").status == 401
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, server.port, "handed.test", "/", ANN)
            eventually(lambda: ask(server.port, "handed.test", "/", WRONG).status == 401)
            assert home.typed("resume", "handed").exit_code == 0
            assert json.loads(answer.result().text)["REMOTE_USER"] == "ann"
    finally:
        home.typed("resume", "handed")


def test_the_access_log_has_the_refused_and_the_user(server: Server, home: HomeDir) -> None:
    home.site("logged", TELL, mode="in-process")
    log = home.path / f"logged-{server.port}.log"
    closed(home, "logged", f"htpasswd = {home.path}/users\n[logging]\naccess = {log}\n")
    assert [ask(server.port, "logged.test", "/x", each).status for each in ("", ANN)] == [401, 200]
    eventually(lambda: log.exists() and log.read_text().count("GET /x") == 2)
    refused, served = log.read_text().splitlines()
    assert '" 401 ' in refused
    assert " ann [" in served
    home.disable("logged")


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[HomeDir, Server]]:
    """A home with sites that answer one address, for all front ends."""
    path = Path(tempfile.mkdtemp(prefix="multisite-test-"))
    path.chmod(0o755)
    home = HomeDir(path).create()
    (path / "users").write_text(f"ann:{SHA}\n")
    for name, mode in (("shared", "in-process"), ("warm", "spawned"), ("open", "spawned")):
        home.site(name, TELL, mode=mode)
    for name in ("shared", "warm"):
        closed(home, name, f"allow = {INSIDE}, 192.0.2.0/24\nhtpasswd = {path}/users\n")
    try:
        with gunicorn(home) as server:
            yield home, server
    finally:
        remove(path)


WAYS = [(kind, options) for kind in ARGUMENTS for options in ((), ("--generic",))]
WAYS += [(kind, ("--direct",)) for kind in ("nginx", "apache", "caddy")]
WAYS += [(kind, ("--direct", "--generic")) for kind in ("nginx", "apache", "caddy")]


@pytest.mark.parametrize(("kind", "options"), WAYS)
def test_front_ends(guarded: tuple[HomeDir, Server], kind: str, options: tuple[str, ...]) -> None:
    """What a client says of its address is nothing; files are guarded as the application is."""
    home, behind = guarded
    for name in ("warm", "open"):
        ask(behind.port, f"{name}.test", "/", ANN, source=INSIDE)  # so that there is a socket to go to
    with FrontEnd(kind, home).started(behind.port, *options) as server:
        for name in ("shared", "warm"):
            for path in ("/", "/static/hello.css", "/static/none", "//static/hello.css", "/x/../static/hello.css"):
                for authorization in ("", ANN):
                    answer = ask(server.port, f"{name}.test", path, authorization, OUTSIDE, X_Forwarded_For=INSIDE)
                    assert answer.status == 403, (name, path)
                assert ask(server.port, f"{name}.test", path).status == 401, (name, path)
                assert ask(server.port, f"{name}.test", path, WRONG).status == 401, (name, path)
            told = json.loads(ask(server.port, f"{name}.test", "/x", ANN).text)
            assert (told["REMOTE_USER"], told["PATH_INFO"]) == ("ann", "/x")
            assert "HTTP_AUTHORIZATION" not in told
            assert ask(server.port, f"{name}.test", "/static/hello.css", ANN).text == f"/* {name} */"
        assert ask(server.port, "open.test", "/", source=OUTSIDE).status == 200
