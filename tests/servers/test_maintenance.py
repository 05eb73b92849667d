"""Maintenance, in every way in which a site is reached: nobody behind the page is asked, whatever restarts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .everyway import ASGI, WSGI, Way, every_way
from .harness import PATIENCE, HomeDir, Server, eventually, gunicorn

pytestmark = pytest.mark.servers

WSGI_APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return [b"here"]
"""
ASGI_APP = """
async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"here"})
"""
PAGE = "<!doctype html><title>Back at noon</title>"
THROUGH_WORKERS = [name for name in (*WSGI, *ASGI) if not name.endswith("own-socket")]


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Way]]:
    with every_way(tmp_path_factory.mktemp("ways"), WSGI_APP, ASGI_APP) as found:
        yield found


@pytest.mark.parametrize("name", THROUGH_WORKERS)
def test_a_page_answers_until_maintenance_is_over(ways: dict[str, Way], name: str) -> None:
    way = ways[name]
    home, site = way.home, way.host.removesuffix(".test")
    assert home
    assert way.ask().body == b"here"
    home.multisite("maintenance", site, "on")
    for method in ("GET", "POST", "DELETE"):
        answer = way.ask("/x?y=1", method, "Content-Length: 0")
        assert (answer.status, answer.all("Retry-After")) == (503, ["60"])
        assert b"maintenance" in answer.body
    assert (way.ask("/", "HEAD").status, way.ask("/", "HEAD").body) == (503, b"")
    assert home.multisite("maintenance", site, "off") == f"{site}: maintenance is over\n"
    assert way.ask().body == b"here"


@pytest.mark.parametrize("name", ["own-socket", "asgi-own-socket"])
def test_a_front_end_that_goes_straight_to_the_site_is_led_past_the_page(ways: dict[str, Way], name: str) -> None:
    """The folder that it looks for is gone, and so is the socket; both are back afterwards."""
    way = ways[name]
    home, site = way.home, way.host.removesuffix(".test")
    assert home
    folder = home.runtime / "multisite" / "domains" / way.host
    ways[f"{'asgi-' if site == 'async' else ''}relayed-sync"].ask()
    assert way.ask().body == b"here"
    home.multisite("maintenance", site, "on")
    eventually(lambda: not folder.exists() and not Path(way.path).exists(), PATIENCE, "the door is shut")
    home.multisite("maintenance", site, "off")
    ways[f"{'asgi-' if site == 'async' else ''}relayed-sync"].ask()
    assert way.ask().body == b"here"
    assert (folder / "http.sock").exists()


@pytest.fixture
def home(tmp_path: Path) -> HomeDir:
    """Two sites with processes of their own and static files, one in the workers, one that is nothing but files."""
    home = HomeDir(tmp_path).create()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "logo.svg").write_text("<svg/>")
    files = f"[static]\n/static = {tmp_path}/files\n"
    for name, mode in (("out", "spawned"), ("warm", "spawned"), ("in", "in-process")):
        warm = "warm = always\n" if name == "warm" else ""
        where = home.site(name, mode=mode)
        text = f"[service]\ndomains = {name}.test\nlocation = {where}\nmode = {mode}\napplication = {name}_app\n"
        home.ini(name, text + warm + files)
    home.ini("files", f"[service]\ndomains = files.test\n[static]\n/ = {tmp_path}/files\n")
    return home


def start(home: HomeDir) -> Server:
    return gunicorn(home, "gthread", "--workers", "2", "--threads", "2")


def described(home: HomeDir, name: str, command: str = "list") -> dict[str, object]:
    (site,) = [one for one in json.loads(home.multisite("--json", command))["sites"] if one["name"] == name]
    return dict(site)


def test_it_wakes_nothing_serves_files_and_outlives_every_restart(home: HomeDir, tmp_path: Path) -> None:
    home.multisite("maintenance", "all", "on")
    for _ in range(2):
        with start(home) as server:
            for name in ("out", "warm", "in"):
                for _ in range(5):
                    assert server.ask(f"{name}.test").status == 503
                assert server.ask(f"{name}.test", "/static/logo.svg").text == "<svg/>"
            assert server.ask("files.test", "/logo.svg").status == 503  # there is nothing else to close
            assert not home.processes(backends=True)
    with start(home) as server:
        assert server.ask("out.test").status == 503
        for name in ("out", "warm", "in", "files"):
            assert described(home, name)["service"] == described(home, name, "status")["service"] == "maintenance"
            assert described(home, name)["state"] in ("stopped", "in-process")
            assert json.loads(home.multisite("--json", "explain", f"{name}.test"))["service"] == "maintenance"
        assert "maintenance" in home.multisite("list")
        assert "multisite maintenance out off ends it" in home.multisite("explain", "out")
        home.multisite("maintenance", "o*", "off")
        assert server.ask("out.test").text == "site out"
        assert server.ask("in.test").status == 503
        assert described(home, "out")["service"] is None


def test_an_administrator_has_a_page_of_his_own(home: HomeDir, tmp_path: Path) -> None:
    page = tmp_path / "back.html"
    page.write_text(PAGE)
    with start(home) as server:
        home.multisite("maintenance", "out", "on", "--page", str(page))
        page.unlink()
        answer = server.ask("out.test", accept="application/json")
        assert (answer.status, answer.text, answer.headers["retry-after"]) == (503, PAGE, "60")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "content-security-policy" not in answer.headers
        home.multisite("maintenance", "out", "on")
        assert PAGE not in server.ask("out.test").text


def test_a_page_that_cannot_be_shown_is_refused(home: HomeDir, tmp_path: Path) -> None:
    binary, empty = tmp_path / "binary.html", tmp_path / "empty.html"
    binary.write_bytes(b"\xff\xfe\x00")
    empty.write_text("\n")
    for path, why in ((binary, "UTF-8"), (empty, "empty"), (tmp_path / "none.html", "no such file")):
        refused = home.typed("maintenance", "out", "on", "--page", str(path))
        assert refused.exit_code == 1
        assert str(path) in refused.stderr
        assert why in refused.stderr
    assert described(home, "out")["service"] is None


def test_what_is_typed_wrongly_changes_nothing(home: HomeDir) -> None:
    for words, status in ((("out",), 2), (("out", "of"), 2), (("on",), 2), (("outt", "on"), 1)):
        assert home.typed("maintenance", *words).exit_code == status
    assert home.typed("maintenance", "out", "off", "--page", "x.html").exit_code == 2
    assert home.multisite("maintenance", "out", "off") == "out: it was not in maintenance\n"
    assert not (home.path / "outages.json").exists()


def test_it_follows_the_name_of_a_site_and_ends_with_its_file(home: HomeDir) -> None:
    home.multisite("maintenance", "out", "on")
    home.multisite("rename", "out", "away")
    assert described(home, "away")["service"] == "maintenance"
    home.disable("away")
    assert home.multisite("maintenance", "away", "off") == "away: maintenance is over\n"
    home.enable("away")
    home.multisite("maintenance", "away", "on")
    home.multisite("remove", "--yes", "away")
    assert json.loads((home.path / "outages.json").read_text()) == {}


def test_what_runs_finishes_what_it_has_begun(home: HomeDir) -> None:
    """Its processes are not stopped, and serve again as they are."""
    with start(home) as server:
        server.ask("out.test")
        before = home.processes(backends=True, of="out")
        home.multisite("maintenance", "out", "on")
        socket = home.runtime / "multisite" / "sites" / "out.sock"
        eventually(lambda: not socket.exists(), PATIENCE, "the door is shut")
        home.multisite("maintenance", "out", "off")
        assert server.ask("out.test").text == "site out"
        assert home.processes(backends=True, of="out") == before
