"""Upstreams that are down or hang: page, log, `list`, `status` and `explain` name one incident, until it is over."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import HomeDir, Server, eventually, free_port, gunicorn

pytestmark = pytest.mark.servers

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwell"


@pytest.fixture(scope="module", params=["gthread", "sync"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[HomeDir, Server]]:
    path = tmp_path_factory.mktemp("troubles") / "home"
    path.mkdir()
    home = HomeDir(path).create()
    home.site("here")
    with gunicorn(home, request.param, "--workers", "2") as server:
        yield home, server


def far(home: HomeDir, name: str, *upstreams: str) -> None:
    told = f"mode = proxy\nupstreams = {', '.join(upstreams)}\nrequest_timeout = 1s\n"
    home.ini(name, f"[service]\ndomains = {name}.test\n{told}")


@contextlib.contextmanager
def upstream(address: tuple[str, int] | str, quiet: threading.Event | None = None) -> Iterator[None]:
    """Who answers at an address, unless they are quiet."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(address)
    listening.listen()
    held = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                if quiet and quiet.is_set():
                    held.append(connection)
                    continue
                with connection:
                    if connection.recv(65536):
                        connection.sendall(ANSWER)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in (listening, *held):
            one.close()


def row(home: HomeDir, command: str, name: str) -> dict[str, Any]:
    return dict(json.loads(home.typed("--json", command, name).stdout)["sites"][0])


def incident_of(text: str) -> str:
    found = re.search(r"[Ii]ncident ([0-9a-f]{8})", text)
    assert found, text
    return found[1]


def assert_told(home: HomeDir, server: Server, name: str, incident: str, *words: str) -> None:
    for command in ("list", "status"):
        failure = row(home, command, name)["failure"]
        assert failure["incident"] == incident
        assert all(word in failure["failure"] + failure["remedy"] for word in words), failure
        assert all(word in " ".join(home.multisite(command, name).split()) for word in words[:1])
    explained = home.multisite("explain", f"{name}.test")
    assert all(word in explained for word in (incident, *words)), explained
    assert json.loads(home.typed("--json", "explain", f"{name}.test").stdout)["failure"]["incident"] == incident
    lines = [line for line in server.log().splitlines() if incident in line]
    assert len(lines) == 1 and all(word in lines[0] for word in words), lines


def assert_well(home: HomeDir, name: str) -> None:
    for command in ("list", "status"):
        site = row(home, command, name)
        assert (site["failure"], site["state"]) == (None, "proxy")
    assert home.typed("status", name).exit_code == home.typed("explain", f"{name}.test").exit_code == 0
    assert "incident" not in home.multisite("explain", f"{name}.test")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_an_upstream_that_is_down_is_one_incident_until_it_is_up(
    served: tuple[HomeDir, Server], tmp_path: Path, kind: str
) -> None:
    home, server = served
    address: tuple[str, int] | str = ("127.0.0.1", free_port()) if kind == "tcp" else str(tmp_path / "far")
    text = f"unix:{address}" if isinstance(address, str) else f"http://127.0.0.1:{address[1]}"
    far(home, kind, text)
    assert "it cannot be reached" in home.multisite("explain", f"{kind}.test"), "before anybody has asked"
    incidents = set()
    for _ in range(6):
        answer = server.ask(f"{kind}.test")
        assert answer.status == 502
        incidents.add(incident_of(answer.text))
    assert len(incidents) == 1, "what lasts is one event, in all workers"
    reason = "Connection refused" if kind == "tcp" else "No such file"
    assert_told(home, server, kind, incidents.pop(), reason, "start the server", "upstreams")
    for command in ("list", "status"):
        assert row(home, command, kind)["state"] == "broken", "all of its visitors get an error page"
        assert home.typed(command, kind).exit_code == 3
    with upstream(address):
        assert_well(home, kind)  # before anybody has asked
        assert server.ask(f"{kind}.test").text == "well"
        assert_well(home, kind)


def test_one_of_several_upstreams_is_told_and_costs_nobody_anything(served: tuple[HomeDir, Server]) -> None:
    home, server = served
    up, down = free_port(), free_port()
    far(home, "two", f"http://127.0.0.1:{down}", f"http://127.0.0.1:{up}")
    with upstream(("127.0.0.1", up)):
        assert all(server.ask("two.test").text == "well" for _ in range(8))
        site = row(home, "status", "two")
        assert (site["state"], site["failure"]["failure"].count(str(down))) == ("proxy", 1)
        assert_told(home, server, "two", site["failure"]["incident"], "Connection refused", str(down))
        with upstream(("127.0.0.1", down)):
            assert_well(home, "two")


def test_an_upstream_that_hangs_is_told_until_it_answers(served: tuple[HomeDir, Server]) -> None:
    home, server = served
    port, quiet = free_port(), threading.Event()
    far(home, "slow", f"http://127.0.0.1:{port}")
    quiet.set()
    with upstream(("127.0.0.1", port), quiet):
        answer = server.ask("slow.test")
        assert answer.status == 504
        assert_told(home, server, "slow", incident_of(answer.text), "request_timeout = 1s")
        assert row(home, "list", "slow")["state"] == "proxy"
        quiet.clear()
        assert server.ask("slow.test").text == "well"
        # A worker counts an answer when it has been sent, and its client may ask before that.
        eventually(lambda: row(home, "list", "slow")["failure"] is None)
        assert_well(home, "slow")
