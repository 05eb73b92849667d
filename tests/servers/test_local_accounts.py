"""Which accounts of the machine are believed about others on a loopback address, where sites have their own users."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multisite.dispatch import peer
from tests.supervisor.harness import as_user

from .harness import HomeDir, Server, gunicorn

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, so that clients are several users"),
]

TENANT = 65533
FRONT_END = pwd.getpwnam("www-data").pw_uid if any(each.pw_name == "www-data" for each in pwd.getpwall()) else 0
MEMBER = pwd.getpwnam("nobody")  # of no front end's name; in its own group
SITE = """
def application(environ, start_response):
    told = [environ.get("HTTP_X_FORWARDED_FOR", "-"), environ["wsgi.url_scheme"], environ.get("HTTP_X_NAMED", "-")]
    start_response("200 OK", [])
    return [" ".join(told).encode()]
"""
INTRODUCED = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [environ["REMOTE_ADDR"].encode()]
"""
INTRODUCTION = "203.0.113.9"
CLAIMED, DROPPED = "203.0.113.9 https", "- http"


@pytest.fixture(scope="module", params=["default", "written", "host_header"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Server]]:
    home = HomeDir(tmp_path_factory.mktemp("accounts")).create()
    service = {"written": "trusted_proxies = 127.0.0.1, ::1, unix", "host_header": "host_header = X-Named"}
    group = grp.getgrgid(MEMBER.pw_gid).gr_name
    home.conf(
        f"[projects]\nread = sites-enabled/*.ini\n[service]\n{service.get(request.param, '')}\n"
        f"[supervisor]\nallow_root = yes\nsocket_group = {group}\n"
    )
    home.site("inside", SITE, mode="in-process")
    home.site("handed", SITE, mode="spawned")
    with tempfile.TemporaryDirectory() as folder, bound(home, Path(folder)) as server:
        for host in ("handed.test", "inside.test"):  # the first has the supervisor started
            says(server.port, host)
        yield request.param, server


@contextlib.contextmanager
def bound(home: HomeDir, folder: Path, *options: str) -> Iterator[Server]:
    """Serve `home` at a port, and at unix sockets that differ in who may connect."""
    paths = {name: folder / name / "sock" for name in ("open", "mode", "folder")}
    for path in paths.values():
        path.parent.mkdir()
    with gunicorn(home, "gthread", *(f"--bind=unix:{path}" for path in paths.values()), *options) as server:
        folder.chmod(0o755)
        for path in paths.values():
            os.chown(path, 0, TENANT)
            path.chmod(0o777)
        paths["mode"].chmod(0o660)
        os.chown(paths["folder"].parent, 0, TENANT)
        paths["folder"].parent.chmod(0o750)
        yield server


def at(server: Server, name: str) -> str:
    """The path of one of its sockets."""
    return next(each for each in server.argv if each.endswith(f"/{name}/sock")).removeprefix("--bind=unix:")


def says(port: int | str, *hosts: str, more: str = "", line: str = "") -> list[str]:
    """What sites see of the same claims, on one connection each to a port, or to a path."""
    found = []
    for host in hosts:
        with socket.socket(socket.AF_UNIX if isinstance(port, str) else socket.AF_INET) as client:
            client.connect(port if isinstance(port, str) else ("127.0.0.1", port))
            claims = f"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n{more}"
            client.sendall(f"{line}GET / HTTP/1.1\r\nHost: {host}\r\n{claims}\r\n".encode())
            data = b"".join(iter(lambda: client.recv(65536), b""))
        found.append(data.partition(b"\r\n\r\n")[2].decode())
    return found


HOSTS = ["inside.test", "handed.test"] * 2


def seen(by: int, group: int, port: int | str) -> Any:
    return as_user(by, group, lambda: [CLAIMED in body for body in says(port, *HOSTS)])


def test_a_tenant_speaks_for_himself_alone(served: tuple[str, Server]) -> None:
    """Unless moya.conf itself names the addresses, the default though they are."""
    case, server = served
    assert seen(TENANT, TENANT, server.port) == [case == "written"] * len(HOSTS)


@pytest.mark.parametrize("user", [0, FRONT_END, MEMBER.pw_uid], ids=["root", "www-data", "member"])
def test_a_front_end_is_believed(served: tuple[str, Server], user: int) -> None:
    """Be it by its name, or as a member of socket_group."""
    group = pwd.getpwuid(user).pw_gid
    assert seen(user, group, served[1].port) == [True] * len(HOSTS)


@pytest.mark.parametrize("kind", ["open", "mode", "folder"])
def test_who_has_come_to_a_unix_socket_is_asked_for_where_everybody_could(
    served: tuple[str, Server], kind: str
) -> None:
    """Where the mode of the socket, or of a folder above it, names a group, its members are front ends."""
    case, server = served
    assert seen(TENANT, TENANT, at(server, kind)) == [kind != "open" or case == "written"] * len(HOSTS)
    assert seen(FRONT_END, TENANT, at(server, kind)) == [True] * len(HOSTS)


def test_a_line_of_the_proxy_protocol_counts_from_whoever_is_believed(tmp_path: Path) -> None:
    """On a unix socket that is open to all that is a front end, and no tenant."""
    home = HomeDir(tmp_path).create()
    home.conf("[projects]\nread = sites-enabled/*.ini\n[supervisor]\nallow_root = yes\n")
    home.site("inside", INTRODUCED, mode="in-process")
    home.site("handed", INTRODUCED, mode="spawned")
    hosts = HOSTS[::-1]  # the first has the supervisor started
    with tempfile.TemporaryDirectory() as folder, bound(home, Path(folder), "--proxy-protocol=auto") as server:
        path = at(server, "open")
        assert introduced(path, hosts) == [True] * len(hosts)
        assert as_user(FRONT_END, FRONT_END, lambda: introduced(path, hosts)) == [True] * len(hosts)
        assert as_user(TENANT, TENANT, lambda: introduced(path, hosts)) == [False] * len(hosts)


def introduced(path: str, hosts: list[str]) -> list[bool]:
    """Whether sites take him who introduces a client for that client."""
    return [INTRODUCTION in body for body in says(path, *hosts, line=f"PROXY TCP4 {INTRODUCTION} 127.0.0.1 1 2\r\n")]


def test_a_tenant_names_no_host(served: tuple[str, Server]) -> None:
    case, server = served
    if case != "host_header":
        pytest.skip("there is no such header")
    named = "X-Named: inside.test\r\n"
    port = server.port
    assert DROPPED not in says(port, "nobody.test", more=named)[0] and CLAIMED in says(port, "x.test", more=named)[0]
    assert CLAIMED not in as_user(TENANT, TENANT, lambda: says(port, "nobody.test", more=named))[0]
    assert as_user(TENANT, TENANT, lambda: says(port, "inside.test", more=named)[0].count("- http -")) == 1


@pytest.mark.parametrize(("listens", "connects"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")])
@pytest.mark.parametrize("refused", [False, True], ids=["asked", "tables"])
def test_whose_a_socket_is(listens: str, connects: str, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one question, or in the tables; once it is closed it is nobody's, and so not root's."""
    if refused:
        monkeypatch.setattr(peer, "_asked", refuse)
    family = socket.AF_INET6 if ":" in listens else socket.AF_INET
    try:
        server = socket.create_server((listens, 0), family=family, dualstack_ipv6=listens == "::")
    except OSError:
        pytest.skip("no IPv6")
    with server, socket.socket(socket.AF_INET6 if ":" in connects else socket.AF_INET) as client:
        os.fchown(client.fileno(), TENANT, -1)
        client.connect((connects, server.getsockname()[1]))
        with server.accept()[0] as accepted:
            assert peer.owner(accepted) == TENANT
            client.close()
            assert peer.owner(accepted) is None


def refuse(_: Any) -> None:
    raise PermissionError


def test_where_root_has_no_supervisor_no_user_is_asked_for(tmp_path: Path) -> None:
    assert not peer.is_of_root(str(tmp_path / "control.sock"))
