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
    """A site in the workers and one with a process of its own, each with a log; and one in the workers without."""
    home = HomeDir(tmp_path_factory.mktemp("logs")).create()
    for name, mode in (("inside", "in-process"), ("outside", "spawned"), ("quiet", "in-process")):
        home.site(name, TALKS, mode=mode)
        if name != "quiet":
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


def test_who_has_no_log_is_told_how_to_have_one(home: HomeDir, server: Server) -> None:
    """The lines of such a site are among those of the service."""
    assert server.ask("quiet.test", "/one").status == 200
    for arguments in (("logs", "quiet"), ("logs", "-f", "quiet")):
        told = home.multisite(*arguments)
        assert "quiet has no log of its own" in told
        assert f"below [logging] in {home.path}/sites-enabled/quiet.ini" in told
        assert told.count("\n") == 1
    assert "logged one" in server.log()
