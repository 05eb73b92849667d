"""Sites with mode = auto: examined in processes, moved into the workers when busy, and out again; no request fails."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mixture import KINDS, fill, listed, verdicts

from .harness import PATIENCE, HomeDir, Server, eventually, gunicorn

pytestmark = pytest.mark.servers

CONF = """[projects]
read = sites-enabled/*.ini
[defaults]
share = yes
[supervisor]
allow_root = yes
promote_after = 20
share_import_time = 30s
"""

ANSWER = """
import os
{top}

def application(environ, start_response):
    {view}
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return ["{name} {version}".encode()]
"""


@pytest.fixture
def home(tmp_path: Path) -> HomeDir:
    found = HomeDir(tmp_path).create()
    found.conf(CONF)
    return found


def site(home: HomeDir, name: str, top: str = "", view: str = "pass", version: int = 1, **keys: str) -> None:
    home.site(
        name, ANSWER.format(name=name, top=top, view=view, version=version), application="app:application", **keys
    )


def asked(server: Server, name: str, version: int = 1) -> int:
    """Ask a site, which answers well; returns who has answered."""
    answer = server.ask(f"{name}.test")
    assert (answer.status, answer.text) == (200, f"{name} {version}")
    return int(answer.headers["x-worker"])


def comes_in(server: Server, name: str, version: int = 1) -> None:
    """Keep it busy until a worker answers for it."""
    eventually(lambda: asked(server, name, version) in server.workers(), PATIENCE, f"{name} is in the workers")


def runs(home: HomeDir, name: str) -> str:
    """What `explain` says of where it runs."""
    lines = home.multisite("explain", f"{name}.test").splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("runs:"))


def stays_out(server: Server, name: str, times: int = 60) -> None:
    """However busy it is, its process answers."""
    for _ in range(times):
        assert asked(server, name) not in server.workers()


def test_a_busy_clean_site_moves_in_and_says_why(home: HomeDir) -> None:
    """Its first requests are answered by a process, the later ones by the workers; the process ends."""
    site(home, "blog")
    with gunicorn(home, "gthread", "--workers", "2", "--threads", "2") as server:
        assert "has not been examined" in runs(home, "blog")
        assert asked(server, "blog") not in server.workers()
        eventually(lambda: "it moves into the workers when it has 20 requests" in runs(home, "blog"), PATIENCE)
        comes_in(server, "blog")
        said = runs(home, "blog")
        assert said.startswith("in-process: since ") and "ms to import) and had" in said
        eventually(lambda: asked(server, "blog") in server.workers() and not home.processes(backends=True), PATIENCE)


def test_new_code_is_examined_before_anybody_gets_it(home: HomeDir) -> None:
    """Workers keep serving the old code until the new one's process is ready; it moves in again when it is clean."""
    site(home, "blog")
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "2") as server:
        comes_in(server, "blog")
        site(home, "blog", version=2)
        touch(home, "blog")
        seen = list(versions(server, until="blog 2"))
        assert set(seen) == {"blog 1", "blog 2"}
        comes_in(server, "blog", 2)
        site(home, "blog", top="raise RuntimeError('half a deploy')", version=3)
        touch(home, "blog")
        eventually(lambda: "half a deploy" in server.log(), PATIENCE)
        assert asked(server, "blog", 2) in server.workers()
        site(home, "blog", top="os.chdir('/')", version=4)
        touch(home, "blog")
        assert set(versions(server, until="blog 4")) <= {"blog 2", "blog 4"}
        eventually(lambda: "changed the working directory" in runs(home, "blog"), PATIENCE)  # told after the answer
        for _ in range(40):
            assert asked(server, "blog", 4) not in server.workers()


def touch(home: HomeDir, name: str) -> None:
    """Ask for a reload."""
    folder = home.path / "sites" / name / "tmp"
    folder.mkdir(exist_ok=True)
    trigger = folder / "restart.txt"
    before = trigger.stat().st_mtime if trigger.exists() else 0.0
    trigger.touch()
    os.utime(trigger, (max(before + 1, trigger.stat().st_mtime),) * 2)


def versions(server: Server, until: str) -> Iterator[str]:
    """Ask until that is the answer; every answer is good."""
    for _ in range(20_000):
        answer = server.ask("blog.test")
        assert answer.status == 200
        yield answer.text
        if answer.text == until:
            return
        time.sleep(0.01)  # or the next process would have no processor to start with
    raise AssertionError(f"never {until}")


def test_a_cold_site_leaves(home: HomeDir) -> None:
    """After its idle_timeout, whoever else is asked; its next request finds a process."""
    site(home, "blog", idle_timeout="2s")
    site(home, "other", idle_timeout="2s")
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "2") as server:
        comes_in(server, "blog")
        eventually(lambda: server.ask("unknown.test") and "left the workers" in server.log(), PATIENCE)
        assert asked(server, "blog") not in server.workers()


def test_a_slow_site_leaves_and_its_process_is_there_before(home: HomeDir) -> None:
    """It was quick when it was examined; slow requests would hold threads that its neighbours need."""
    home.conf(CONF + "share_request_time = 50ms\n")
    slow = home.path / "slow"
    site(home, "blog", view=f"os.path.exists({str(slow)!r}) and __import__('time').sleep(0.2)")
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "2") as server:
        comes_in(server, "blog")
        slow.touch()
        eventually(lambda: asked(server, "blog") not in server.workers(), PATIENCE)
        assert "share_request_time" in runs(home, "blog")
        slow.unlink()
        stays_out(server, "blog")


def test_a_clash_of_names_keeps_a_site_out(home: HomeDir) -> None:
    """Two sites with a helper.py of their own: the first that is busy moves in, and the other says whose name it is."""
    for name in ("first", "second"):
        site(home, name, top="import helper", view=f"assert helper.NAME == '{name}'")
        (home.path / "sites" / name / "helper.py").write_text(f"NAME = '{name}'\n")
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "2") as server:
        comes_in(server, "first")
        stays_out(server, "second")
        eventually(lambda: "clashes with the 'helper' of site 'first'" in runs(home, "second"), PATIENCE)


def test_many_sites_of_all_kinds(home: HomeDir) -> None:
    """A thousand interleaved requests to fit and unfit sites: each is answered right, explained, and counted once."""
    fill(home)
    rounds = 0
    with gunicorn(home, "gthread", "--workers", "2", "--threads", "2") as server:

        def ask_all(times: int = 1) -> None:
            nonlocal rounds
            for name in [*KINDS] * times:
                answer = server.ask(f"{name}.test")
                assert (answer.status, answer.text) == (200, KINDS[name].right), name
            rounds += times

        def are_explained() -> bool:
            ask_all()
            return all(KINDS[name].is_explained(*verdict) for name, verdict in verdicts(home).items())

        ask_all(50)
        eventually(are_explained, PATIENCE, "every site is where it should be")
        eventually(lambda: {one["requests"] for one in listed(home)} == {rounds}, PATIENCE, "all requests are counted")
        inside = {name for name, (where, _) in verdicts(home).items() if where == "in-process"}
        assert {"one", "two", "flask"} < inside
        assert [len(inside & pair) for pair in ({"helped-one", "helped-two"}, {"blog", "shop"})] == [1, 1]
        for name in KINDS:
            by_worker = int(server.ask(f"{name}.test").headers["x-worker"]) in server.workers()
            assert name in inside or not by_worker


def test_without_processes_the_workers_import_it_at_once(home: HomeDir) -> None:
    """Where no supervisor can be had, a site is served as if nobody had thought of examining it, and that is told."""
    (home.path / "file").touch()
    home.conf(f"{CONF}[service]\nruntime_dir = {home.path}/file/run\n")
    site(home, "blog")
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "2") as server:
        assert asked(server, "blog") in server.workers()
        assert "no process is available for it" in runs(home, "blog")
