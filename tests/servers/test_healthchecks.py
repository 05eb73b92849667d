"""Active checks: a backend that says that it is ill gets no requests although it accepts connections."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import HomeDir, Server, eventually, gunicorn

pytestmark = pytest.mark.servers

CONF = """[projects]
read = sites-enabled/*.ini
[supervisor]
allow_root = yes
[router]
{router}
check_path = /health?deep=yes
check_every = 100ms
"""

SITE = "[service]\nname = web\ndomains = web.test\nmode = proxy\nupstreams = {upstreams}\n"


class Doctor:
    """A backend whose answers to checks are what the test says; it counts them, and other requests."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.says = b"HTTP/1.1 204 No Content\r\n\r\n"
        self.seen: Counter[str] = Counter()
        self.hosts: set[str] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Doctor:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                wire, _ = self._listener.accept()
            except OSError:
                return
            with wire:
                wire.settimeout(30)
                request = b""
                while b"\r\n\r\n" not in request and (data := wire.recv(65536)):
                    request += data
                self._answer(wire, request.decode())

    def _answer(self, wire: socket.socket, request: str) -> None:
        path = request.split(" ")[1] if request else ""
        self.seen["check" if path == "/health?deep=yes" else "request"] += 1
        if path == "/health?deep=yes":
            self.hosts.add(request.partition("Host: ")[2].partition("\r")[0])
            wire.sendall(self.says)
        else:
            body = self.name.encode()
            wire.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def is_asked(self) -> None:
        """Wait until a check that begins now has been answered, and another one."""
        before = self.seen["check"]
        eventually(lambda: self.seen["check"] >= before + 3, what=f"{self.name} is checked")


@pytest.fixture
def doctors() -> Iterator[list[Doctor]]:
    with Doctor("one") as one, Doctor("two") as two:
        yield [one, two]


def answers(server: Server, host: str, times: int = 20) -> set[str]:
    return {server.ask(host).text for _ in range(times)}


@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
@pytest.mark.parametrize("kind", ["site", "to"])
def test_an_ill_backend_gets_no_requests_until_it_is_well(
    tmp_path: Path, doctors: list[Doctor], kind: str, worker_class: str
) -> None:
    one, two = doctors
    home = HomeDir(tmp_path).create()
    upstreams = f"{one.address}, {two.address}"
    home.conf(CONF.format(router=f"to = {upstreams}" if kind == "to" else ""))
    if kind == "site":
        home.ini("web", SITE.format(upstreams=upstreams))
    with gunicorn(home, worker_class) as server:
        if kind == "site":
            assert not one.seen, "nothing is asked before the first request"
        eventually(lambda: answers(server, "web.test") == {"one", "two"})
        for ill in (b"HTTP/1.1 503 Ill\r\nContent-Length: 0\r\n\r\n", b"", b"nonsense\r\n\r\n"):
            one.says = ill
            one.is_asked()
            before = one.seen["request"]
            assert answers(server, "web.test") == {"two"}
            assert one.seen["request"] == before
            assert "is left out" in server.log()
            one.says = b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"
            one.is_asked()
            assert answers(server, "web.test") == {"one", "two"}
        assert one.hosts == {"web.test" if kind == "site" else one.address.removeprefix("http://")}
        one.says = two.says = b"HTTP/1.1 500 Ill\r\n\r\n"
        one.is_asked()
        two.is_asked()
        assert server.ask("web.test").status in (502, 503)


def test_a_backend_that_is_away_costs_no_request_anything(tmp_path: Path, doctors: list[Doctor]) -> None:
    """It is back as soon as a check succeeds, rather than when its grace is over."""
    one, two = doctors
    home = HomeDir(tmp_path).create()
    home.conf(CONF.format(router=f"to = {one.address}, {two.address}\ngrace = 1h"))
    port = int(one.address.rpartition(":")[2])
    with gunicorn(home, "gthread") as server:
        eventually(lambda: answers(server, "web.test") == {"one", "two"})
        one._listener.shutdown(socket.SHUT_RDWR)
        one._thread.join()
        one._listener.close()
        eventually(lambda: "is left out" in server.log())
        assert answers(server, "web.test") == {"two"}
        one._listener = socket.create_server(("127.0.0.1", port))
        one._thread = threading.Thread(target=one._serve)
        one._thread.start()
        eventually(lambda: answers(server, "web.test") == {"one", "two"})
        assert "dead" not in home.multisite("router")


def test_a_changed_path_is_asked_for(tmp_path: Path, doctors: list[Doctor]) -> None:
    """By sites that are in use already, too."""
    one, two = doctors
    home = HomeDir(tmp_path).create()
    conf = CONF.format(router="")
    home.conf(conf.replace("check_path", "# check_path"))
    home.ini(
        "web", f"[service]\nname = web\ndomains = web.test\nmode = proxy\nupstreams = {one.address}, {two.address}\n"
    )
    with gunicorn(home, "gthread") as server:
        assert answers(server, "web.test") == {"one", "two"}
        assert not one.seen["check"]
        one.says = b"HTTP/1.1 503 Ill\r\n\r\n"
        home.conf(conf)
        eventually(lambda: server.ask("web.test").status and one.seen["check"])
        one.is_asked()
        assert answers(server, "web.test") == {"two"}


def test_one_that_never_answers_holds_no_other_up(tmp_path: Path, doctors: list[Doctor]) -> None:
    one, two = doctors
    silent = socket.create_server(("127.0.0.1", 0))
    home = HomeDir(tmp_path).create()
    to = f"http://127.0.0.1:{silent.getsockname()[1]}, {one.address}, {two.address}"
    home.conf(CONF.format(router=f"to = {to}\ntimeout = 1s"))
    with silent, gunicorn(home, "gthread") as server:
        server.ask("web.test")
        one.is_asked()
        assert "no answer within" not in server.log()
        eventually(lambda: "no answer within" in server.log())
        assert answers(server, "web.test") == {"one", "two"}
