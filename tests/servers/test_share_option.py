"""Who may live in the workers: sites that say so, and whose promises the workers keep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mixture import listed, verdicts

from .harness import PATIENCE, HomeDir, Server, eventually, gunicorn

pytestmark = pytest.mark.servers

CONF = """[projects]
read = sites-enabled/*.ini
[supervisor]
allow_root = yes
promote_after = 30
share_import_time = 60s
"""
GUESTS = """
import os, sqlite3

def application(environ, start_response):
    with sqlite3.connect("guests.db") as database:
        database.execute("create table if not exists guest (name)")
        if environ["PATH_INFO"] == "/add":
            database.execute("insert into guest values ('x')")
        count = database.execute("select count(*) from guest").fetchone()[0]
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return [b"%d guests" % count]
"""
WHO = """
import os

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return [b"%d%d" % (environ["wsgi.multithread"], environ["wsgi.multiprocess"])]
"""
#: options of each site beside mode = in-process
PROMISES = {
    "none": {},
    "one-thread": {"threads": "1"},
    "two-threads": {"threads": "2"},
    "three-threads": {"threads": "3"},
    "one-process": {"processes": "1"},
    "two-processes": {"processes": "2"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> HomeDir:
    found = HomeDir(tmp_path_factory.mktemp("home")).create()
    found.conf(CONF)
    for name, keys in PROMISES.items():
        found.site(name, WHO, application="app:application", mode="in-process", **keys)
    found.site("guests", GUESTS, application="app:application")
    found.site("dirty", "import os\nos.umask(0o27)" + WHO, application="app:application")
    return found


@pytest.fixture(scope="module")
def threaded(home: HomeDir) -> Iterator[Server]:
    """Two workers of two threads."""
    with gunicorn(home, "gthread", "--workers", "2", "--threads", "2") as server:
        yield server


def asked(server: Server, name: str, path: str = "/") -> tuple[str, bool]:
    """What a site answers, and whether a worker did so."""
    answer = server.ask(f"{name}.test", path)
    assert answer.status == 200
    return answer.text, int(answer.headers["x-worker"]) in server.workers()


def test_a_site_that_says_nothing_never_finds_another_world(home: HomeDir, threaded: Server) -> None:
    """A guest book in its own folder is asked often, is told what sharing would save, and keeps its guests."""
    for _ in range(3):
        asked(threaded, "guests", "/add")

    def saving() -> object:
        for _ in range(40):
            assert asked(threaded, "guests") == ("3 guests", False)
        return next(site for site in listed(home) if site["name"] == "guests")["saving"]

    eventually(lambda: saving() is not None, PATIENCE, "it is known what sharing would save")
    measured = saving()
    assert isinstance(measured, dict)
    assert measured["memory"] >= 0 and 0 <= measured["seconds"] < 1
    where, why = verdicts(home)["guests"]
    assert where == "spawned"
    assert why.startswith("it would fit into the workers") and why.endswith("; share = yes allows it")
    assert why in home.multisite("explain", "guests.test")
    assert json.loads(home.multisite("--json", "explain", "guests.test"))["saving"] == measured
    assert f"note: guests {why.removeprefix('it ')}" in home.multisite("check")
    notes = json.loads(home.multisite("--json", "check"))["notes"]
    assert [(note["name"], note["memory"], note["seconds"]) for note in notes] == [("guests", *measured.values())]
    assert "share = yes allows it" in home.multisite("list")


def test_what_would_not_fit_says_so(home: HomeDir, threaded: Server) -> None:
    """The findings of the examination are told of a site that is not to move, too."""
    told = "its file does not say share = yes, and would not fit into the workers: it changed the umask"
    eventually(lambda: not asked(threaded, "dirty")[1] and verdicts(home)["dirty"][1].startswith(told), PATIENCE, told)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none", ""),
        ("one-thread", "its file says threads = 1, and a worker calls it up to 2 times at once"),
        ("two-threads", ""),
        ("three-threads", "its file says threads = 3, and a worker calls it up to 2 times at once"),
        ("one-process", "its file says processes = 1, and the service has several workers"),
        ("two-processes", "it wants 2 processes"),
    ],
)
def test_promises_under_several_workers_with_threads(home: HomeDir, threaded: Server, name: str, reason: str) -> None:
    """The workers keep what a file says, or the site has processes that do, and `explain` says why."""
    holds(home, threaded, name, reason)


def holds(home: HomeDir, server: Server, name: str, reason: str) -> None:
    text, in_worker = asked(server, name)
    assert in_worker is not bool(reason)
    where, why = verdicts(home)[name]
    assert (where == "spawned", why) == (bool(reason), reason or "its file says mode = in-process")
    if reason:
        keys = PROMISES[name]
        assert text == f"{int(keys.get('threads', '1') != '1')}{int(keys.get('processes', '1') != '1')}"


def test_promises_under_one_worker_with_one_thread(home: HomeDir, threaded: Server) -> None:
    """The same files, and another server: what was refused there is kept here."""
    kept = {"none", "one-thread", "one-process"}
    with gunicorn(home, "sync", "--workers", "1") as server:
        for name in PROMISES:
            _, in_worker = asked(server, name)
            assert in_worker is (name in kept), name
        for name in kept:
            assert verdicts(home)[name] == ("in-process", "its file says mode = in-process")
        assert verdicts(home)["two-threads"][1] == "its file says threads = 2, and a worker calls it once at a time"


def test_share_is_taken_back(tmp_path: Path) -> None:
    """A site in the workers whose file no longer says share = yes is served by a process, at once and without a gap."""
    home = HomeDir(tmp_path).create()
    home.conf(CONF)
    home.site("blog", WHO, application="app:application", share="yes")
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "2") as server:
        eventually(lambda: asked(server, "blog")[1], PATIENCE, "it is in the workers")
        home.site("blog", WHO, application="app:application")
        eventually(lambda: not asked(server, "blog")[1], PATIENCE, "it has left")
        for _ in range(60):
            assert not asked(server, "blog")[1]
