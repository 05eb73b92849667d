"""A stop that somebody asked for holds until the next request, whatever waited for the site before."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from multisite.config.read import make_site, read_home, read_site
from multisite.errors import MultisiteError, pages
from multisite.proxy.spawned import SpawnedSite
from tests.runner.harness import ENVIRON as VARIABLES
from tests.runner.harness import envelope, receive_all

from .harness import SERVER, WITHIN, SupervisedHome, wait_until

START = """
import os, time
open('begun', 'a').close()
while not os.path.exists('go'):
    time.sleep(0.01)
"""
DEAF = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open('begun', 'a').close()
while not os.path.exists('go'):
    if os.path.exists('end'):
        os.unlink('end')
        sys.exit()
    time.sleep(0.01)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
"""
APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
# Tells that it has taken a request, which it answers when it may; the probe of who is ready waits meanwhile.
ONE_BY_ONE = """
import os, socket, time
listener = socket.socket(fileno=3)
listener.setblocking(True)
while True:
    client, _ = listener.accept()
    if client.recv(65536):
        open('taken', 'a').close()
        while not os.path.exists('go'):
            time.sleep(0.01)
        client.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    client.close()
"""

# Answers the first who says anything, when it may, and accepts nobody after that.
ONE_ONLY = """
import os, signal, socket, time
listener = socket.socket(fileno=3)
listener.setblocking(True)
data = b""
while not data:
    client, _ = listener.accept()
    data = client.recv(65536)
while not os.path.exists('go'):
    time.sleep(0.01)
client.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
client.close()
signal.pause()
"""
SLOW = """
import os, time
def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        open("taken", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def connected(path: str) -> socket.socket:
    """Somebody who comes straight to a site's socket."""
    wire = socket.socket(socket.AF_UNIX)
    wire.settimeout(WITHIN)
    wire.connect(path)
    return wire


class Visitor(threading.Thread):
    """Somebody who asks a worker for a site."""

    def __init__(self, home: SupervisedHome, name: str, body: bytes = b"") -> None:
        super().__init__(daemon=True)
        now = read_home(str(home.path))
        file = read_site(str(home.path / "sites-enabled" / f"{name}.ini"), now.path)
        self._app = SpawnedSite(make_site(file, now), now)
        self._app.begin = self._begin  # type: ignore[method-assign]
        self._sent = threading.Event()
        self._environ: dict[str, Any] = {"REMOTE_ADDR": "192.0.2.1", "wsgi.input": io.BytesIO(body)}
        if body:
            self._environ |= {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body))}
        setup_testing_defaults(self._environ)
        self._answer: list[Any] = []
        self.start()

    def waits(self) -> Visitor:
        """Wait until the request has been sent."""
        assert self._sent.wait(30)
        return self

    def _begin(self, *what: Any) -> Any:
        exchange = SpawnedSite.begin(self._app, *what)
        self._sent.set()
        return exchange

    def run(self) -> None:
        try:
            self._ask(self._app)
        except MultisiteError as error:  # which the dispatcher makes a page of
            self._ask(pages.for_error(error))

    def _ask(self, app: Any) -> None:
        told: list[Any] = []
        answer = app(self._environ, lambda status, headers, *_: told.extend((status, dict(headers))))
        body = b"".join(answer)
        if hasattr(answer, "close"):
            answer.close()
        self._answer = [*told, body]

    def answer(self) -> tuple[str, dict[str, str], bytes]:
        """Return status, headers and body."""
        self.join(30)
        status, headers, body = self._answer
        return status, headers, body


def kinds(home: SupervisedHome, kind: str) -> Path:
    """Write a site whose start takes as long as there is no file ``go``."""
    if kind == "ours":
        return home.app("blog", START + APP, start_timeout="60")
    return home.site("blog", START + SERVER, start_timeout="60")


def assert_rests(home: SupervisedHome) -> None:
    """No start follows: a request that could cause one would have been seen before the second question."""
    home.wait_for("blog", "stopped", 30)
    told = [home.state("blog") for _ in range(3)]
    assert [(state["state"], state["starts"]) for state in told] == [("stopped", 1)] * 3


@pytest.mark.parametrize("kind", ["ours", "command"])
def test_who_waits_for_a_start_that_somebody_stops_is_told(home: SupervisedHome, kind: str) -> None:
    """The stop holds; the next request starts the site."""
    folder = kinds(home, kind)
    home.ensure("blog")
    visitors = [Visitor(home, "blog").waits(), Visitor(home, "blog", b"x" * 3_000_000).waits()]
    wait_until((folder / "begun").exists, 30)
    assert home.client.ask({"do": "stop", "site": "blog"})["done"] == "stopping"
    for visitor in visitors:
        status, headers, body = visitor.answer()
        assert (status[:4], headers["Retry-After"]) == ("503 ", "10")
        assert b"</html>" in body
    assert_rests(home)
    (folder / "go").touch()
    assert Visitor(home, "blog").answer()[0].startswith("200 ")


def test_who_has_gone_does_not_start_a_site_that_was_stopped(home: SupervisedHome) -> None:
    """Nor does our own connection, which was to show when the server is ready."""
    folder = kinds(home, "command")
    with socket.socket(socket.AF_UNIX) as impatient:
        impatient.connect(home.ensure("blog"))
        impatient.sendall(b"GET / HTTP/1.0\r\n\r\n")
        wait_until((folder / "begun").exists, 30)
    home.client.ask({"do": "stop", "site": "blog"})
    assert_rests(home)
    (folder / "go").touch()
    assert home.get("blog")


def test_a_request_that_a_silent_server_has_taken_is_answered_before_it_ends(home: SupervisedHome) -> None:
    """Whether or not that has been noticed yet."""
    folder = home.site("blog", ONE_BY_ONE)
    home.ensure("blog")
    visitor = Visitor(home, "blog")
    wait_until((folder / "taken").exists, 30)
    home.client.ask({"do": "stop", "site": "blog"})
    assert home.state("blog")["state"] == "draining"
    (folder / "go").touch()
    assert visitor.answer()[2] == b"ok"
    wait_until(lambda: not home.state("blog")["pids"])


def test_who_comes_after_the_stop_is_served(home: SupervisedHome) -> None:
    """Also while the old process has not ended yet."""
    folder = home.site("blog", f"{DEAF}{SERVER}", start_timeout="60", stop_timeout="60")
    home.ensure("blog")
    before = Visitor(home, "blog").waits()
    wait_until((folder / "begun").exists, 30)
    pids = home.client.ask({"do": "stop", "site": "blog"})["pids"]
    after = Visitor(home, "blog").waits()
    assert before.answer()[0].startswith("503 ")
    assert home.state("blog")["pids"] == pids
    (folder / "end").touch()
    wait_until(lambda: not (folder / "end").exists(), 30)
    (folder / "go").touch()
    assert after.answer()[0].startswith("200 ")


def test_what_is_stopped_for_newer_code_keeps_who_waits(home: SupervisedHome) -> None:
    """`serve --reload` wants another process, and not that nobody is served."""
    folder = kinds(home, "command")
    home.ensure("blog")
    visitor = Visitor(home, "blog").waits()
    wait_until((folder / "begun").exists, 30)
    home.client.ask({"do": "stop", "site": "blog", "why": "newer code"})
    (folder / "go").touch()
    assert visitor.answer()[0].startswith("200 ")


@pytest.mark.parametrize("who", ["our own", "one of before", "one of after"])
def test_who_has_gone_does_not_start_a_site_whose_last_process_has_left(home: SupervisedHome, who: str) -> None:
    """It has taken one request, and the connections behind it are closed: there is nobody to start the site for."""
    folder = home.site("blog", ONE_ONLY, start_timeout="60")
    path = home.ensure("blog")
    with connected(path) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        home.wait_for("blog", "running")  # and our own connection still waits to be accepted
        if who == "one of before":
            connected(path).close()
        home.client.ask({"do": "stop", "site": "blog"})
        if who == "one of after":
            connected(path).close()
        (folder / "go").touch()
        assert client.recv(100).endswith(b"ok")
    assert_rests(home)
    with connected(path) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(100).endswith(b"ok")


@pytest.mark.parametrize("when", ["before", "after"])
def test_who_still_waits_when_the_last_process_has_left_is_served(home: SupervisedHome, when: str) -> None:
    """Whether others have gone or not."""
    folder = home.site("blog", ONE_ONLY, start_timeout="60")
    path = home.ensure("blog")
    with connected(path) as first, contextlib.ExitStack() as stack:
        first.sendall(b"GET / HTTP/1.0\r\n\r\n")
        home.wait_for("blog", "running")
        if when == "before":
            second = stack.enter_context(connected(path))
        home.client.ask({"do": "stop", "site": "blog"})
        connected(path).close()
        if when == "after":
            second = stack.enter_context(connected(path))
        second.sendall(b"GET / HTTP/1.0\r\n\r\n")
        (folder / "go").touch()
        assert first.recv(100).endswith(b"ok")
        first.close()
        assert second.recv(100).endswith(b"ok")


@pytest.mark.parametrize("brings", [False, True], ids=["nobody", "a client"])
def test_who_has_gone_may_have_left_a_client(home: SupervisedHome, brings: bool) -> None:
    """Behind the last process of a site of ours: a request that was handed over is answered, and starts the site."""
    folder = home.app("blog", SLOW)
    path = home.ensure("blog")
    ours, theirs = socket.socketpair()
    with connected(path) as client, ours, theirs:
        client.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
        wait_until((folder / "taken").exists)
        home.client.ask({"do": "stop", "site": "blog"})
        with connected(path) as gone:
            if brings:
                socket.send_fds(gone, [b"\x02" + envelope(VARIABLES)[1:]], [theirs.fileno()])
        theirs.close()
        (folder / "go").touch()
        assert receive_all(client).endswith(b"ok")
        if not brings:
            assert_rests(home)
            return
        ours.settimeout(WITHIN)
        assert receive_all(ours).endswith(b"ok")


def test_start_runs_a_process_before_the_first_request(home: SupervisedHome) -> None:
    """It is that of a command or of ours; the second time nothing is done."""
    from click.testing import CliRunner

    from multisite.cli import main

    def start(*words: str) -> str:
        done = CliRunner().invoke(main, ["start", "--home", str(home.path), *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    home.app("ours", APP)
    home.site("theirs")
    assert start("ours") == "ours: no supervisor is running; the site starts at its first request\n"
    home.ensure("ours")
    assert start("all") == "ours: starting\ntheirs: starting\n"
    pids = {name: home.wait_for(name, "running")["pids"] for name in ("ours", "theirs")}
    assert start("theirs", "ours") == "theirs: it is already running\nours: it is already running\n"
    assert {name: home.state(name)["pids"] for name in pids} == pids
