"""One event has one incident: the page, the log, `explain` and `status` name the same, and `stats` counts it."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import Client, HomeDir, Server, eventually, gunicorn

pytestmark = pytest.mark.servers

APP = """
import ctypes, os, signal, time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/exit":
        os._exit(9)
    if path == "/kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if path == "/hang":
        time.sleep(600)
    if path == "/hold":
        while True:
            ctypes.PyDLL(None).sleep(600)  # holds the interpreter, as a regular expression that never ends does
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"well"]
"""
LIMIT = "request_timeout = 1s"
WAYS = {"/exit": (502, "exited with code 9"), "/kill": (502, "SIGKILL"), "/hang": (504, LIMIT), "/hold": (504, LIMIT)}
INCIDENT = re.compile(r"incident [0-9a-f]{8}:")


@pytest.fixture(scope="module", params=["gthread", "sync"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[HomeDir, Server]]:
    path = tmp_path_factory.mktemp("incidents") / "home"
    path.mkdir()
    home = HomeDir(path).create()
    home.conf((home.path / "moya.conf").read_text() + "hand_over = no\n")
    for way in WAYS:
        for name in (f"first-{way[1:]}", f"later-{way[1:]}"):
            home.site(name, APP, mode="spawned", request_timeout="1s", application="app:application")
    with gunicorn(home, request.param) as server:
        yield home, server


def row(home: HomeDir, command: str, name: str) -> dict[str, Any]:
    rows = json.loads(home.typed("--json", command).stdout)["sites"]
    return dict(next(one for one in rows if one["name"] == name))


@pytest.mark.parametrize("when", ["first", "later"])
@pytest.mark.parametrize("way", WAYS)
def test_one_event_is_one_incident_for_everybody(served: tuple[HomeDir, Server], way: str, when: str) -> None:
    home, server = served
    name, (code, reason) = f"{when}-{way[1:]}", WAYS[way]
    if when == "later":
        assert server.ask(f"{name}.test").text == "well"
    answer = server.ask(f"{name}.test", way)
    assert answer.status == code, answer.text
    found = re.search(r"[Ii]ncident ([0-9a-f]{8})", answer.text)
    assert found, answer.text
    # Code that holds the interpreter keeps the process from ending itself at once.
    eventually(lambda: not row(home, "status", name)["pids"], what="the process has ended")
    for command in ("list", "status"):
        site = row(home, command, name)
        assert (site["failure"]["incident"], site["state"]) in {(found[1], "stopped"), (found[1], "backoff")}, site
        assert reason in site["failure"]["failure"]
    eventually(lambda: row(home, "status", name)["errors"] == 1, what="its end is counted")  # after its answer
    assert f"incident {found[1]}" in home.multisite("explain", f"{name}.test")
    lines = [line for line in server.log().splitlines() if name in line and INCIDENT.search(line)]
    assert lines and all(found[1] in line for line in lines), lines
    assert any(reason in line for line in lines), lines
    told = json.loads(home.typed("--json", "incident", found[1]).stdout)
    assert (told["name"], told["request"]) == (name, {"method": "GET", "host": f"{name}.test", "path": way})
    assert reason in told["cause"] + "".join(one["text"] for one in told["since"])


RAISES = """
def application(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        raise ValueError("of hand\\n\\x1b[2J")
    start_response("200 OK", [])
    return [b"well"]
"""
RAISES_ASGI = """
async def application(scope, receive, send):
    if scope["path"] == "/fail":
        raise ValueError("of hand\\n\\x1b[2J")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"well"})
"""


@pytest.mark.parametrize("hand_over", ["no", "yes"])
@pytest.mark.parametrize("code", [RAISES, RAISES_ASGI], ids=["wsgi", "asgi"])
def test_an_application_that_raises_in_its_process_has_an_incident(tmp_path: Path, code: str, hand_over: str) -> None:
    """Relayed and handed over: the page, the log and the command name the same."""
    home = HomeDir(tmp_path).create()
    home.conf((tmp_path / "moya.conf").read_text() + f"hand_over = {hand_over}\n")
    home.site("raises", code, mode="spawned", application="raises:application")
    with gunicorn(home, "sync") as server:
        assert server.ask("raises.test").text == "well"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Client, "is_last", True)
            answer = server.ask("raises.test", "/fail?secret=1")
        assert answer.status == 500 and "of hand" not in answer.text
        found = re.search(r"Incident ([0-9a-f]{8})", answer.text)
        assert found, answer.text
        eventually(lambda: home.typed("incident", found[1]).exit_code == 0, what="the incident is kept")
        told = json.loads(home.typed("--json", "incident", found[1]).stdout)
        assert (told["name"], told["request"]) == (
            "raises",
            {"method": "GET", "host": "raises.test", "path": "/fail"},
        )
        assert told["cause"].startswith("the application failed: ValueError: of hand")
        assert any("raises.py" in line for line in told["traceback"]), told
        assert f"MS616 incident {found[1]}:" in home.multisite("logs", "raises")


PARTS = """
def application(environ, start_response):
    if environ["PATH_INFO"] == "/begun":
        start_response("200 OK", [("Content-Length", "8")])
        yield b"well"
    if environ["PATH_INFO"] != "/":
        raise ValueError("of hand")
    start_response("200 OK", [("Content-Length", "4")])
    yield b"well"
"""


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_an_answer_that_raises_while_it_is_made_in_a_worker_has_an_incident(tmp_path: Path, worker_class: str) -> None:
    """What has begun is cut, and the incident is kept all the same."""
    home = HomeDir(tmp_path).create()
    home.site("parts", PARTS)
    with gunicorn(home, worker_class) as server:
        assert server.ask("parts.test").text == "well"
        answer = server.ask("parts.test", "/fail")
        found = re.search(r"Incident ([0-9a-f]{8})", answer.text)
        assert answer.status == 500 and found, answer.text
        with pytest.raises(http.client.IncompleteRead):
            server.ask("parts.test", "/begun")
        told = json.loads(home.typed("--json", "incident").stdout)["incidents"]
        assert [one["request"]["path"] for one in told] == ["/begun", "/fail"]
        assert told[1]["incident"] == found[1]
        assert row(home, "status", "parts")["errors"] == 2


def test_an_answer_that_is_none_from_a_process_that_stays_has_an_incident_of_its_own(
    served: tuple[HomeDir, Server], tmp_path: Path
) -> None:
    home, server = served
    code = """
    import socket
    with socket.socket(fileno=3) as listening:
        while True:
            connection, _ = listening.accept()
            connection.recv(65536)
            connection.close()
    """
    where = home.site("rude", code, application="rude:application")
    home.ini("rude", f"[service]\ndomains = rude.test\nlocation = {where}\ncommand = python3 rude.py\n")
    answer = server.ask("rude.test")
    assert answer.status == 502
    found = re.search(r"[Ii]ncident ([0-9a-f]{8})", answer.text)
    assert found and f"incident {found[1]}" in server.log()
    assert row(home, "status", "rude")["failure"]["incident"] == found[1]
    assert found[1] in home.multisite("explain", "rude.test")
