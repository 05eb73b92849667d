"""In the workers each site has its own working directory and umask, whoever is called before and beside it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import PATIENCE, HomeDir, Server, eventually, gunicorn

pytestmark = pytest.mark.servers

APP = '''
import json, os, subprocess, sys, threading, time
from pathlib import Path

SAW = {"import": os.getcwd()}
LISTED = """
import os
for name in os.listdir("/proc/self/fd"):
    if os.path.islink("/proc/self/fd/" + name):
        print(os.readlink("/proc/self/fd/" + name))
"""

def umask():
    for line in open("/proc/thread-self/status"):
        if line.startswith("Umask:"):
            return line.split()[1]

def here():
    return [os.getcwd(), Path("name.txt").read_text(), umask()]

class Body:
    def __init__(self, seen):
        self.seen, self.parts = seen, iter((b"[", b"]"))
    def __iter__(self):
        return self
    def __next__(self):
        self.seen.setdefault("body", here())
        return next(self.parts)
    def close(self):
        self.seen["close"] = here()

def told(start_response, found):
    text = json.dumps(found).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
    return [text]

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/here":
        return told(start_response, here())
    if path == "/saw":
        return told(start_response, SAW)
    if path == "/body":
        start_response("200 OK", [("Content-Length", "2")])
        return Body(SAW)
    if path == "/leave":
        before = here()
        os.chdir("/")
        os.umask(0o003)
        return told(start_response, before)
    if path == "/leave-by-descriptor":
        descriptor = os.open("/usr", os.O_RDONLY)
        os.fchdir(descriptor)
        os.close(descriptor)
        return told(start_response, os.getcwd())
    if path == "/child":
        return told(start_response, subprocess.check_output(["pwd"], text=True).strip())
    if path == "/thread":
        def run():
            while not SAW.get("asked"):
                time.sleep(0.01)
            SAW["thread"] = here()
        threading.Thread(target=run, daemon=True).start()
        return told(start_response, "started")
    if path == "/asked":
        SAW["asked"] = True
        return told(start_response, "asked")
    if path == "/wander":
        def wander():
            while not SAW.get("home"):
                os.chdir("/usr")
                time.sleep(0.001)
        threading.Thread(target=wander, daemon=True).start()
        return told(start_response, "gone")
    if path == "/file":
        start_response("200 OK", [("Content-Length", "1")])
        return environ["wsgi.file_wrapper"](open("name.txt", "rb"))
    if path == "/write":
        with open("written", "w"):
            pass
        return told(start_response, oct(os.stat("written").st_mode & 0o777))
    if path == "/descriptors":
        found = [os.readlink("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd") if
                 os.path.islink("/proc/self/fd/" + name)]
        return told(start_response, found)
    if path == "/inherited":
        code = LISTED
        return told(start_response, subprocess.check_output([sys.executable, "-c", code], close_fds=False, text=True))
    raise ValueError(path)
'''
HOOKS = """
def post_request(worker, req, environ, resp):
    with open("hook.log", "a") as file:
        file.write(req.path + "\\n")

def worker_exit(server, worker):
    with open("exit.log", "a") as file:
        file.write("end\\n")
"""
SITES = ("a", "b", "c")
WORKERS = {"sync": ("sync",), "gthread": ("gthread", "--threads", "4")}


def filled(path: Path) -> HomeDir:
    home = HomeDir(path).create()
    for name in SITES:
        keys = {"umask": "0027"} if name == "c" else {}
        where = home.site(name, APP, mode="in-process", **keys)
        (where / "name.txt").write_text(name)
    return home


def place(home: HomeDir, name: str) -> list[str]:
    return [str(home.path / "sites" / name), name, "0027" if name == "c" else "0022"]


def got(server: Server, site: str, path: str) -> Any:
    answer = server.ask(f"{site}.test", path)
    assert answer.status == 200, answer.text
    return json.loads(answer.body) if answer.body else None


def closed(server: Server, site: str) -> Any:
    """What the site saw; the server closes an answer after its client has it."""
    eventually(lambda: "close" in got(server, site, "/saw"))
    return got(server, site, "/saw")


@pytest.fixture(scope="module", params=sorted(WORKERS))
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, HomeDir]]:
    before = os.umask(0o022)
    home = filled(tmp_path_factory.mktemp("home"))
    try:
        with gunicorn(home, *WORKERS[request.param], "--workers", "1") as server:
            yield server, home
    finally:
        os.umask(before)


def test_the_location_is_where_each_call_is(served: tuple[Server, HomeDir]) -> None:
    server, home = served
    for site in SITES * 4 + tuple(name for name in SITES for _ in range(3)):
        assert got(server, site, "/here") == place(home, site)
    for site in SITES:
        got(server, site, "/body")
        saw = closed(server, site)
        assert saw["import"] == place(home, site)[0]
        assert saw["body"] == saw["close"] == place(home, site)
        assert server.ask(f"{site}.test", "/file").text == site
        assert got(server, site, "/child") == place(home, site)[0]
    assert got(server, "c", "/write") == "0o640"
    assert got(server, "a", "/write") == "0o644"


def test_so_it_is_when_all_are_called_at_once(served: tuple[Server, HomeDir]) -> None:
    server, home = served
    wrong: list[Any] = []

    def ask(site: str) -> None:
        for _ in range(60):
            found = got(server, site, "/here")
            if found != place(home, site):
                wrong.append((site, found))

    threads = [threading.Thread(target=ask, args=(site,)) for site in SITES * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong


def test_who_leaves_is_put_back(served: tuple[Server, HomeDir]) -> None:
    server, home = served
    for path in ("/leave", "/leave-by-descriptor"):
        for site, following in (("a", "a"), ("b", "a"), ("c", "b"), ("c", "c")):
            assert got(server, site, path) in (place(home, site), "/usr")
            for _ in range(8):
                assert got(server, following, "/here") == place(home, following)


def test_a_thread_of_a_site_stays_with_its_site(served: tuple[Server, HomeDir]) -> None:
    server, home = served
    for site in SITES:
        got(server, site, "/thread")
    for _ in range(3):
        for site in SITES:
            got(server, site, "/here")
    for site in SITES:
        got(server, site, "/asked")
        eventually(lambda site=site: "thread" in got(server, site, "/saw"))  # type: ignore[misc]
        assert got(server, site, "/saw")["thread"][:2] == place(home, site)[:2]


def test_a_thread_of_a_site_that_goes_elsewhere_takes_no_neighbour_along(served: tuple[Server, HomeDir]) -> None:
    server, home = served
    got(server, "a", "/wander")
    for _ in range(40):
        for site in ("b", "c"):
            assert got(server, site, "/here") == place(home, site)


def test_no_descriptor_is_left_or_inherited(served: tuple[Server, HomeDir]) -> None:
    server, home = served
    for _ in range(10):
        for site in SITES:
            got(server, site, "/leave")
    held = [each for each in got(server, "a", "/descriptors") if "/sites/" in each]
    assert len(held) <= 4 * len(SITES), held
    assert str(home.path / "sites" / "b") not in got(server, "a", "/inherited")


def test_another_directory_in_its_place_is_found(served: tuple[Server, HomeDir]) -> None:
    server, home = served
    location, old = home.path / "sites" / "b", home.path / "sites" / "old"
    location.rename(old)
    location.mkdir()
    (location / "name.txt").write_text("new")
    eventually(lambda: got(server, "b", "/here")[1] == "new")
    (location / "name.txt").unlink()
    location.rmdir()
    old.rename(location)
    eventually(lambda: server.ask("b.test", "/here").status == 200 and got(server, "b", "/here") == place(home, "b"))


def test_a_location_that_is_a_link_is_followed_when_it_is_switched(served: tuple[Server, HomeDir]) -> None:
    server, home = served
    for release in ("one", "two"):
        where = home.path / "releases" / release
        where.mkdir(parents=True)
        (where / "linked_app.py").write_text(APP)
        (where / "name.txt").write_text(release)
    current = home.path / "releases" / "current"
    current.symlink_to("one")
    home.site("linked", APP, mode="in-process", location=str(current))
    assert got(server, "linked", "/here")[1] == "one"
    newer = home.path / "releases" / "newer"
    newer.symlink_to("two")
    newer.replace(current)
    eventually(lambda: got(server, "linked", "/here")[1] == "two")


@pytest.mark.parametrize("kind", sorted(WORKERS))
def test_what_the_administrators_hooks_open_is_where_the_server_is(kind: str, tmp_path: Path) -> None:
    home = filled(tmp_path)
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(HOOKS)
    with gunicorn(home, *WORKERS[kind], "--workers", "1", "--config", str(config)) as server:
        for _ in range(3):
            for site in SITES:
                assert got(server, site, "/here")[:2] == place(home, site)[:2]
                assert server.ask(f"{site}.test", "/file").text == site
                got(server, site, "/body")
                assert closed(server, site)["close"][:2] == place(home, site)[:2]
    assert (tmp_path / "log" / "hook.log").read_text().count("/here") == 9
    assert (tmp_path / "log" / "exit.log").read_text() == "end\n"


def test_where_it_cannot_be_a_site_is_told_once(tmp_path: Path) -> None:
    home = filled(tmp_path)
    with gunicorn(home, "gevent", "--workers", "1") as server:
        for _ in range(3):
            assert server.ask("a.test", "/here").status == 500
        assert server.log().count("uses the relative path name.txt") == 1
        for command in ("check", "explain"):
            told = home.multisite("--home", str(home.path), command, *["a.test"] * (command == "explain"))
            assert "warning" in told and "uses the relative path name.txt" in told, told
        assert got(server, "c", "/here")[:2] == place(home, "c")[:2]  # a umask of its own takes a process of its own
