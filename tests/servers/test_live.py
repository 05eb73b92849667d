"""Sites come, change and go under gunicorn with two workers, while a neighbour is asked without pause."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from .harness import HELLO, PATIENCE, HomeDir, Server, eventually, gunicorn, two_sites
from .load import Load

pytestmark = pytest.mark.servers

CHANGES = 20
ENOUGH = 12  # requests at least, each on a fresh connection


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> HomeDir:
    return two_sites(tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="module")
def server(home: HomeDir) -> Iterator[Server]:
    with gunicorn(home, "gthread", "--workers", "2", "--threads", "4") as running:
        eventually(lambda: len(running.workers()) == 2)
        yield running


@pytest.fixture
def neighbour(server: Server) -> Iterator[Load]:
    """Site a under load; the test fails if one of its requests did."""
    workers = server.workers()
    with Load(server.port, "a.test", "site a", threads=3) as load:
        yield load
        eventually(lambda: load.asked > 10 or load.failures)
    assert load.failures == []
    assert server.workers() == workers, "a worker died or was replaced"


def everywhere(server: Server, host: str, status: int, text: str | None = None) -> bool:
    """Whether a row of fresh connections, of which a right answer names its worker, all get this from every worker."""
    unmet, met = server.workers() if status == 200 else set(), 0

    def answers_right() -> bool:
        nonlocal met
        answer = server.ask(host)
        met += 1
        unmet.discard(int(answer.headers.get("x-worker", 0)))
        return answer.status == status and (text is None or answer.text == text)

    until = time.monotonic() + PATIENCE
    while answers_right():
        if met > ENOUGH and not unmet:
            return True
        assert time.monotonic() < until, f"workers {unmet} never answered"
    return False


def test_a_new_site_is_right_at_its_first_request(server: Server, home: HomeDir, neighbour: Load) -> None:
    """Twenty sites, one after another: the first request of each is already right."""
    for number in range(CHANGES):
        home.site(f"new{number}")
        answer = server.ask(f"new{number}.test")
        assert (answer.status, answer.text) == (200, f"site new{number}")


def test_an_edit_is_live_within_a_second(server: Server, home: HomeDir, neighbour: Load) -> None:
    """Site files that now name another application are followed by every worker; five change at a time."""
    sites = {name: home.site(name) for name in ("edit0", "edit1", "edit2", "edit3", "edit4")}
    for name in sites:
        assert server.ask(f"{name}.test").text == f"site {name}"
    for number in range(CHANGES // len(sites)):
        for name, where in sites.items():
            (where / f"{name}_{number}.py").write_text(HELLO.replace("{text}", f"version {number} of {name}"))
            text = f"domains = {name}.test\nlocation = {where}\napplication = {name}_{number}:application\n"
            home.ini(name, f"[service]\n{text}")
        for name in sites:
            eventually(
                lambda host=f"{name}.test", text=f"version {number} of {name}": everywhere(server, host, 200, text),  # type: ignore[misc]
                PATIENCE,
                f"version {number} of {name} is served",
            )


def test_an_edit_moves_a_domain(server: Server, home: HomeDir, neighbour: Load) -> None:
    """The new name answers as soon as another look at all files is due to unknown hosts, the old one is 404 soon."""
    where = home.site("moved", domains="old.test")
    assert server.ask("old.test").status == 200
    home.ini("moved", f"[service]\ndomains = fresh.test\nlocation = {where}\napplication = moved_app:application\n")
    eventually(lambda: server.ask("fresh.test").text == "site moved", PATIENCE, "the new domain is served")
    eventually(lambda: everywhere(server, "old.test", 404), PATIENCE, "the old domain is 404")


def test_a_removed_site_is_404_soon(server: Server, home: HomeDir, neighbour: Load) -> None:
    """Twenty removals; each host is unknown to both workers within a second or so."""
    for number in range(CHANGES):
        home.site(f"gone{number}")
        assert server.ask(f"gone{number}.test").status == 200
    for number in range(CHANGES):
        home.disable(f"gone{number}")
    for number in range(CHANGES):
        eventually(
            lambda host=f"gone{number}.test": everywhere(server, host, 404),  # type: ignore[misc]
            PATIENCE,
            f"gone{number}.test is 404",
        )


@pytest.mark.parametrize(
    "damage",
    [b"[service\n", b"\x00\x01\xff\xfe" * 100, b"[service]\ndomains = \xe9\n", b"[service]\nnonsense = 1\n", b""],
    ids=["not INI", "binary", "latin-1", "unknown key", "empty"],
)
def test_a_broken_edit_keeps_the_last_good_version(
    server: Server, home: HomeDir, neighbour: Load, damage: bytes, request: pytest.FixtureRequest
) -> None:
    """The site goes on as before, the log names the file once it was noticed, and the repair is followed."""
    name = f"fragile{request.node.callspec.indices['damage']}"
    where = home.site(name)
    assert everywhere(server, f"{name}.test", 200, f"site {name}")
    home.ini(name, damage)
    eventually(lambda: server.ask(f"{name}.test") and f"{name}.ini" in server.log(), PATIENCE, "the log says so")
    assert everywhere(server, f"{name}.test", 200, f"site {name}")
    (where / f"{name}_repaired.py").write_text(HELLO.replace("{text}", "repaired"))
    home.ini(name, f"[service]\ndomains = {name}.test\nlocation = {where}\napplication = {name}_repaired:application\n")
    eventually(lambda: everywhere(server, f"{name}.test", 200, "repaired"), PATIENCE, "the repair is served")


def test_touching_restart_txt_reloads_the_code(server: Server, home: HomeDir, neighbour: Load) -> None:
    """New code is served by both workers after `tmp/restart.txt` was touched, the old one until then."""
    where = home.site("touched")
    assert everywhere(server, "touched.test", 200, "site touched")
    (where / "touched_app.py").write_text(HELLO.replace("{text}", "reloaded and longer"))
    (where / "tmp").mkdir()
    (where / "tmp" / "restart.txt").touch()
    eventually(lambda: everywhere(server, "touched.test", 200, "reloaded and longer"), PATIENCE, "the new code")


def test_new_code_of_the_same_size_is_not_mistaken_for_the_old(server: Server, home: HomeDir, neighbour: Load) -> None:
    """Python's compiled files tell versions apart by size and whole seconds; a quick edit must not fall for that."""
    where = home.site("quick")
    (where / "tmp").mkdir()
    assert server.ask("quick.test").text == "site quick"
    for number in range(3):
        (where / "quick_app.py").write_text(HELLO.replace("{text}", f"take {number:05}"))
        (where / "tmp" / "restart.txt").touch()
        eventually(
            lambda text=f"take {number:05}": everywhere(server, "quick.test", 200, text),  # type: ignore[misc]
            PATIENCE,
            f"take {number}",
        )


def test_a_reload_that_fails_keeps_the_old_application(server: Server, home: HomeDir, neighbour: Load) -> None:
    """A syntax error in the new code is in the log; visitors get the old answer."""
    where = home.site("stale")
    assert everywhere(server, "stale.test", 200, "site stale")
    (where / "stale_app.py").write_text("this is no python\n")
    (where / "tmp").mkdir()
    (where / "tmp" / "restart.txt").touch()
    eventually(lambda: server.ask("stale.test") and "SyntaxError" in server.log(), PATIENCE, "the log says so")
    assert everywhere(server, "stale.test", 200, "site stale")


def test_hup_brings_every_site_back(server: Server, home: HomeDir) -> None:
    """gunicorn's own reload replaces the workers, and the new ones serve the same sites."""
    import signal

    before = server.workers()
    os.kill(server.process.pid, signal.SIGHUP)
    eventually(lambda: server.workers() and not server.workers() & before, PATIENCE, "new workers")
    assert everywhere(server, "a.test", 200, "site a")
    assert everywhere(server, "b.test", 200, "site b")
