"""`multisite logs` beside a running gunicorn: whatever a site says, wherever it runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import PATIENCE, HomeDir, Server, eventually, gunicorn

pytestmark = pytest.mark.servers

TALKS = """
import logging, sys

def application(environ, start_response):
    words = environ["PATH_INFO"][1:]
    if words == "fail":
        raise ValueError("what the site did wrong")
    logging.getLogger("shop.orders").warning("logged %s", words)
    print("to wsgi.errors:", words, file=environ["wsgi.errors"], flush=True)
    print("printed", words, file=sys.stderr, flush=True)
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> HomeDir:
    """Sites in the workers and with processes of their own, one of each with a log, and one without."""
    home = HomeDir(tmp_path_factory.mktemp("logs")).create()
    modes = {"inside": "in-process", "outside": "spawned", "quiet": "in-process", "loud": "spawned"}
    for name, mode in modes.items():
        home.site(name, TALKS, mode=mode)
        if name in ("inside", "outside"):
            ini = home.path / "sites-available" / f"{name}.ini"
            ini.write_text(f"{ini.read_text()}[logging]\nerror = {home.path}/%(name)s.log\n")
    return home


@pytest.fixture(scope="module")
def server(home: HomeDir) -> Iterator[Server]:
    """Two workers, which write to the same files."""
    with gunicorn(home, "gthread", "--workers", "2") as server:
        yield server


def follow(home: HomeDir, name: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "multisite", "logs", "-f", name]
    return subprocess.Popen(argv, env=home.environ(), stdout=subprocess.PIPE, text=True)


def until(following: subprocess.Popen[str], wanted: str) -> list[str]:
    """The lines up to one that ends so."""
    assert following.stdout
    lines = []
    for line in following.stdout:
        lines.append(line.rstrip("\n"))
        if lines[-1].endswith(wanted):
            return lines
    raise AssertionError(f"{wanted!r} did not come: {lines}")


def test_an_in_process_site_is_followed_across_a_rename(home: HomeDir, server: Server) -> None:
    """Its records, what it writes to wsgi.errors, and tracebacks under their incident; none of its neighbours'."""
    log = home.path / "inside.log"
    with follow(home, "inside") as following:
        try:
            assert server.ask("inside.test", "/one").status == 200
            assert server.ask("quiet.test", "/elsewhere").status == 200
            first = until(following, "to wsgi.errors: one")
            assert first[0].endswith(" WARNING logged one"), first
            log.rename(f"{log}.1")
            assert server.ask("inside.test", "/fail").status == 500
            failed = until(following, "ValueError: what the site did wrong")
            assert "incident" in failed[0], failed
            assert "Traceback" in failed[1]
            assert server.ask("inside.test", "/two").status == 200
            assert until(following, "to wsgi.errors: two")[0].endswith(" WARNING logged two")
        finally:
            following.terminate()
    assert "elsewhere" not in log.read_text() + Path(f"{log}.1").read_text()
    assert "two" in home.multisite("logs", "inside")
    assert "printed one" in server.log()


def test_a_spawned_site_is_followed_in_the_same_way(home: HomeDir, server: Server) -> None:
    """All that its process printed is there, and it begins with what was said before."""
    assert server.ask("outside.test", "/one").status == 200
    eventually(lambda: "printed one" in home.multisite("logs", "outside"), PATIENCE, "the first line")
    with follow(home, "outside") as following:
        try:
            until(following, "printed one")
            assert server.ask("outside.test", "/two").status == 200
            assert any(line.endswith("to wsgi.errors: two") for line in until(following, "printed two"))
        finally:
            following.terminate()


@pytest.mark.parametrize("name", ["quiet", "loud"])
def test_a_site_without_a_log_of_its_own_has_its_lines_kept(home: HomeDir, server: Server, name: str) -> None:
    """What it prints, logs and writes to wsgi.errors, once each, and its tracebacks; in the service's log besides."""
    assert server.ask(f"{name}.test", "/one").status == 200
    assert server.ask(f"{name}.test", "/fail").status == 500
    eventually(lambda: "what the site did wrong" in home.multisite("logs", name), PATIENCE, "the traceback")
    printed = home.multisite("logs", name).splitlines()
    for wanted in ("logged one", "to wsgi.errors: one", "printed one"):
        assert len([line for line in printed if line.endswith(wanted)]) == 1, printed
    failed = [line[20:] for line in printed if "what the site did wrong" in line or "Traceback" in line]
    assert failed[0] == "ERROR Traceback (most recent call last):"
    assert failed[-1] == "ERROR ValueError: what the site did wrong"
    assert "logged one" in server.log()


def test_all_sites_are_followed_by_their_names(home: HomeDir, server: Server) -> None:
    argv = [sys.executable, "-m", "multisite", "logs", "-f", "-n", "0"]
    with subprocess.Popen(argv, env=home.environ(), stdout=subprocess.PIPE, text=True) as following:
        try:
            said = False

            def comes() -> bool:
                nonlocal said
                assert server.ask("quiet.test", "/here").status == 200
                assert server.ask("loud.test", "/there").status == 200
                return following.poll() is None

            assert comes()
            assert following.stdout
            lines = [following.stdout.readline() for _ in range(2)]
            assert all(line[20:].startswith(("quiet   | ", "loud    | ")) for line in lines), lines
        finally:
            following.terminate()
