"""The waiting page: what a browser gets while a slow site starts, and that nobody else gets it."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator

import pytest

from .everyway import Reply, Way
from .harness import PATIENCE, HomeDir, Server, eventually, gunicorn

pytestmark = pytest.mark.servers

SLOW = """
import os
import time

while not os.path.exists("go"):
    time.sleep(0.02)


def application(environ, start_response):
    with open("asked", "a") as file:
        file.write(environ["REQUEST_METHOD"] + environ["PATH_INFO"] + "\\n")
    body = environ["QUERY_STRING"].encode() + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
OTHERS = {
    "curl": ("GET", "Accept: */*"),
    "nothing": ("GET",),
    "json": ("GET", "Accept: application/json"),
    "refuses-html": ("GET", "Accept: text/html;q=0, */*"),
    "fetch": ("GET", BROWSER, "Sec-Fetch-Dest: empty", "Sec-Fetch-Mode: cors"),
    "script": ("GET", BROWSER, "X-Requested-With: XMLHttpRequest"),
    "head": ("HEAD", BROWSER),
    "post": ("POST", BROWSER, "Content-Length: 4"),
}
KINDS = {"gthread": ("--threads", "4"), "sync": ()}


class Waiting:
    """A site that is up when somebody lets it."""

    def __init__(self, home: HomeDir, server: Server, name: str) -> None:
        self.home, self.name, self.server = home, name, server
        self.place = home.path / "sites" / name

    def let(self) -> None:
        (self.place / "go").touch()

    def ask(self, target: str = "/", method: str = "GET", *fields: str, body: bytes = b"", last: bool = True) -> Reply:
        return Way("", f"{self.name}.test", self.server.port, says_close=last).ask(target, method, *fields, body=body)

    @property
    def asked(self) -> list[str]:
        path = self.place / "asked"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def state(self) -> str:
        (site,) = json.loads(self.home.multisite("--json", "status", self.name))["sites"]
        return str(site["state"])


@pytest.fixture(scope="module", params=sorted(KINDS))
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[HomeDir, Server]]:
    """A server for all tests, each of which has sites of its own."""
    home = HomeDir(tmp_path_factory.mktemp(request.param)).create()
    with gunicorn(home, request.param, "--workers", "1", *KINDS[request.param]) as server:
        yield home, server


NUMBERS = itertools.count(1)


def waiting(served: tuple[HomeDir, Server], **keys: str) -> Waiting:
    home, server = served
    name = f"slow{next(NUMBERS)}"
    keys = {"mode": "spawned", "waiting_page": "0.2s", **keys}
    home.site(name, SLOW, **keys)
    return Waiting(home, server, name)


@pytest.mark.parametrize("last", [True, False])
def test_a_browser_gets_a_page_that_comes_again_and_its_request_is_never_run(
    served: tuple[HomeDir, Server], last: bool
) -> None:
    site = waiting(served)
    for _ in range(3):
        page = site.ask("/x?a=1&b=2", "GET", BROWSER, last=last)
        assert (page.status, page.all("Retry-After"), page.all("Refresh")) == (503, ["2"], ["2"])
        assert b'<meta http-equiv="refresh" content="2">' in page.body  # the same address, query and all
        assert page.all("Cache-Control") == ["no-store"]
        assert page.all("Content-Type") == ["text/html; charset=utf-8"]
    eventually(lambda: site.state == "starting", PATIENCE, "it starts")
    site.let()
    eventually(lambda: site.state == "running", PATIENCE, "it is up")
    assert site.asked == []
    found: list[Reply] = []

    def is_there() -> bool:  # on a busy machine the wait may be over before anybody has learned that it is up
        found.append(site.ask("/x?a=1&b=2", "GET", BROWSER, last=last))
        return found[-1].status == 200

    eventually(is_there, PATIENCE, "the site answers")
    assert found[-1].body == b"a=1&b=2"
    assert site.asked == ["GET/x"]


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_all_others_wait_as_they_would_without_it(served: tuple[HomeDir, Server], name: str) -> None:
    site = waiting(served)
    method, *fields = OTHERS[name]
    body = b"text" if method == "POST" else b""
    found: list[Reply] = []
    thread = threading.Thread(target=lambda: found.append(site.ask("/", method, *fields, body=body)))
    thread.start()
    assert site.ask("/", "GET", BROWSER).status == 503  # and its neighbour holds no thread meanwhile
    site.let()
    thread.join(PATIENCE)
    assert (found[0].status, found[0].body) == (200, body)
    assert site.asked == [f"{method}/"]


def test_a_browser_that_comes_while_a_quick_site_starts_gets_the_site(served: tuple[HomeDir, Server]) -> None:
    site = waiting(served, waiting_page="60s")
    found: list[Reply] = []
    thread = threading.Thread(target=lambda: found.append(site.ask("/x", "GET", BROWSER)))
    thread.start()
    eventually(lambda: site.state == "starting", PATIENCE, "it starts for a request that has not reached it")
    site.let()
    thread.join(PATIENCE)
    assert (found[0].status, site.asked) == (200, ["GET/x"])


def test_a_site_that_cannot_start_says_so_rather_than_to_wait(served: tuple[HomeDir, Server]) -> None:
    home, server = served
    home.site("bad", "raise SystemExit('broken')", mode="spawned", waiting_page="60s")
    page = Way("", "bad.test", server.port).ask("/", "GET", BROWSER)
    assert (page.status, page.all("Refresh")) == (503, [])
    assert b"Incident" in page.body


def test_no_front_end_goes_past_the_page(served: tuple[HomeDir, Server]) -> None:
    site = waiting(served)
    site.let()
    assert site.ask().status == 200
    assert not (site.home.runtime / "multisite" / "domains" / f"{site.name}.test").exists()
    site.home.site("plain", mode="spawned")
    assert Way("", "plain.test", site.server.port).ask().status == 200
    assert (site.home.runtime / "multisite" / "domains" / "plain.test").exists()
