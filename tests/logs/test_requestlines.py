"""A line for each request, as `multisite serve` prints it: one, whoever answers, and none that steers a terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.config.serving.development import Development, from_environ
from multisite.dispatch.watched import watched
from multisite.logs.requestlines import LONGEST, line
from multisite.service import Service
from tests.homes import TestHome, ask

LINE = re.compile(r"\d\d:\d\d:\d\d (\S+) (\S+) (\S+) (\d{3}) (?:\d+\.\d ms|\d+\.\d\d s) (.+)")
APP = """
def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise RuntimeError("no")
    if path == "/early":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return parts(b"he")
    if path == "/overwrite":
        environ["HTTP_HOST"] = 5
    start_response("201 Created", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return parts(b"he", b"llo") if path == "/parts" else [b"hello"]

def parts(*given):
    yield from given
"""


@pytest.mark.parametrize(
    ("status", "colour"),
    [(200, "\x1b[32m"), (308, "\x1b[36m"), (404, "\x1b[33m"), (499, "\x1b[33m"), (503, "\x1b[31m")],
)
def test_the_status_is_coloured_on_a_terminal(status: int, colour: str) -> None:
    asked = ("GET", "a.test:8000", "/x?y=1", status, 0.00312, "blog")
    assert line(*asked, coloured=False) == f"GET a.test:8000 /x?y=1 {status} 3.1 ms blog"
    assert line(*asked, coloured=True) == f"GET a.test:8000 /x?y=1 {colour}{status}\x1b[0m 3.1 ms blog"


def test_a_long_time_is_in_seconds() -> None:
    assert line("GET", "a.test", "/", 200, 61.234, "blog", coloured=False).endswith(" 200 61.23 s blog")


@given(st.text(), st.text(), st.text())
def test_nothing_that_a_client_sends_steers_the_terminal(method: str, host: str, uri: str) -> None:
    text = line(method, host, uri, 200, 0.1, "blog", coloured=False)
    assert text.isascii() and text.isprintable()
    assert len(text.split(" ")) == 7


@pytest.mark.parametrize(
    "text", ["/\x1b[2J\x1b]0;x\x07", "/a\nGET b.test / 200", "/\x9b31m", "/ü\u202e", "/\udc80", "/a b"]
)
def test_escapes_do_nothing(text: str) -> None:
    shown = line("GET", text, text, 200, 0.1, "blog", coloured=False)
    assert shown.isascii() and shown.isprintable() and len(shown.split(" ")) == 7


def test_a_path_is_cut() -> None:
    assert len(line("GET", "a.test", "/" + "x" * 60000, 200, 0.1, "blog", coloured=False)) < LONGEST + 60


def test_what_is_no_text_harms_nobody() -> None:
    assert line("GET", None, "", 200, 0.1, "-", coloured=False) == "GET - - 200 100.0 ms -"


class Watched(TestHome):
    """A home whose requests print lines."""

    def __init__(self, path: Path, **development: bool) -> None:
        super().__init__(path)
        self.service._development = Development(lines=True, **development)
        self.app = watched(self.service.__call__)


@pytest.fixture
def home(tmp_path: Path) -> Watched:
    home = Watched(tmp_path)
    home.code("a", app=APP)
    (tmp_path / "sites/a/files").mkdir()
    (tmp_path / "sites/a/files/x.txt").write_text("file")
    text = f"domains = a.test, www.a.test\nlocation = {tmp_path}/sites/a\napplication = app:application\n"
    static = f"[static]\n/files = {tmp_path}/sites/a/files\n[logging]\naccess = {tmp_path}/access.log\n"
    home.ini("a", f"[service]\n{text}redirect_to_canonical = yes\n{static}")
    home.ini("bad", "[service]\ndomains = bad.test\nthraeds = 4\n")
    home.ini("far", "[service]\ndomains = far.test\nmode = proxy\nupstreams = http://127.0.0.1:1\n")
    return home


@pytest.mark.parametrize(
    ("host", "path", "status", "site"),
    [
        ("a.test", "/", "201", "a"),
        ("a.test", "/parts", "201", "a"),
        ("a.test", "/raise", "500", "a"),
        ("a.test", "/early", "200", "a, cut"),
        ("a.test", "/files/x.txt", "200", "a"),
        ("a.test", "/files/y.txt", "404", "a"),
        ("www.a.test", "/", "301", "-"),
        ("bad.test", "/", "500", "bad"),
        ("nobody.test", "/", "404", "-"),
        ("a..test", "/", "400", "-"),
    ],
)
def test_each_request_has_one_line(
    home: Watched, capfd: pytest.CaptureFixture[str], host: str, path: str, status: str, site: str
) -> None:
    for _ in range(2):  # by the long way, and by the short one
        capfd.readouterr()
        assert str(ask(home.app, host, path).status) == status
        found = [match for text in capfd.readouterr().err.splitlines() if (match := LINE.fullmatch(text))]
        assert [match.groups() for match in found] == [("GET", host, path, status, site)]


def test_what_an_app_writes_into_its_environ_harms_nobody(home: Watched, capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(home.app, "a.test", "/overwrite").status == 201
    assert " GET - /overwrite 201 " in capfd.readouterr().err


def test_the_access_log_gets_its_line_too(home: Watched, tmp_path: Path) -> None:
    from multisite.logs import logfiles

    ask(home.app, "a.test", "/parts")
    logfiles.flush()
    assert (tmp_path / "access.log").read_text().count('"GET /parts ') == 1


def test_without_lines_there_are_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home = TestHome(tmp_path)
    home.hello("a")
    assert home.get("a.test").status == 200
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("local", [False, True])
def test_a_strange_host_gets_the_sites_in_development(tmp_path: Path, local: bool) -> None:
    home = Watched(tmp_path, local=local)
    home.hello("blog", domains="blog.localhost, www.blog.example")
    home.hello("far", domains="far.example")  # whose address leads to another machine
    home.hello("tip", domains="*.tip.localhost, tip.localhost", mount="/api")
    at = {"REMOTE_ADDR": "127.0.0.1", "SERVER_PORT": "9000"}
    page = ask(home.app, "nobody.localhost:8000", **at)
    assert page.status == 404
    links = re.findall(r'<a href="([^"]*)">', page.text)
    assert links == (["http://blog.localhost:8000/", "http://tip.localhost:8000/api/"] if local else [])
    for strange in ({"REMOTE_ADDR": "10.0.0.1"}, {"HTTP_X_FORWARDED_FOR": "127.0.0.1"}):
        assert "blog.localhost" not in ask(home.app, "nobody.localhost:8000", **{**at, **strange}).text
    assert "blog.localhost:9000" in ask(home.app, "nobody.localhost", **at).text or not local
    as_json = ask(home.app, "nobody.localhost", HTTP_ACCEPT="application/json", **at).text
    assert ('"sites": [{"name": "blog", "url": "http://blog.localhost:9000/"}' in as_json) is local
    assert ("blog: http://" in ask(home.app, "nobody.localhost", HTTP_ACCEPT="text/plain", **at).text) is local


def test_what_is_on_comes_back_out_of_the_environment() -> None:
    for how in (Development(), Development(lines=True), Development(True, True, "key", lines=True, local=True)):
        assert from_environ(how.environ) == how


def test_a_service_is_not_watched_unless_it_is_asked_for() -> None:
    from multisite import service

    assert getattr(service.application, "__func__", None) is Service.__call__
