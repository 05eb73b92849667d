"""What the code of a site, or anybody else on the machine, may do to the supervisor of all sites."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.config.model import Site
from multisite.config.read import make_site, read_site
from multisite.control.rundir import RuntimeDir
from multisite.errors import BackendUnavailable
from multisite.supervisor.process import kernel, orphans, sitelog
from multisite.supervisor.process.kernel import connections
from multisite.supervisor.process.sitelog import LastLines, Output, SiteLog
from multisite.supervisor.site import refuse
from multisite.supervisor.site.triggers import Triggers, mending
from tests.processes import is_running

from .harness import SupervisedHome, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to become somebody else")
SLEEPS = [shutil.which("sleep") or "sleep", "600"]
DEEP = 1500  # folders within each other: more than Python's recursion allows


@pytest.mark.parametrize("line", ["0 0 0 zz 0 0 0 {path}", "f" * 16 + ": 1 2 3 4 01 0 {path}", "{path}"])
def test_a_name_of_a_socket_that_looks_like_a_line_of_the_table_is_passed_over(tmp_path: Path, line: str) -> None:
    """Anybody may bind a socket whose abstract name has line ends in it; the kernel shows it as it is."""
    name = "\0\n" + line.format(path="/run/x/a.sock") + "\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.bind(name)
        assert connections("/run/x") == {}


class Kept(SiteLog):
    """Keeps the lines that would go to the log."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.kept: list[str] = []

    def _append(self, lines: list[str], levels: list[int]) -> None:
        self.kept += lines


def test_a_flood_of_empty_lines_counts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line costs more than its bytes: a pipe full of line ends is left full, and few of them reach the log."""
    monkeypatch.setattr(sitelog, "READ_PER_SECOND", 1 << 20)
    log = Kept(site)
    reading, writing = os.pipe()
    flooded = Output(reading, log, LastLines())
    os.write(writing, b"\n" * 40_000)
    os.close(writing)
    assert flooded.read(1.0)
    flooded.close()
    assert flooded.waits_until == 2.0
    assert len(log.kept) == sitelog.LOGGED_PER_SECOND // sitelog.LINE


def test_a_path_in_a_traceback_that_no_file_can_have_is_no_file(site: Site, home: SupervisedHome) -> None:
    """A site prints what it likes; what it names is looked at as long as its new version fails."""
    assert not [path for path in mending(site, [f'  File "{site.location}/a\0b.py", line 1']) if "\0" in path]
    assert not Triggers().pulled(site, home.home, 0.0, [f"{site.location}/a\0b.py"])


@pytest.fixture
def site(home: SupervisedHome) -> Site:
    home.app("blog", "")
    return make_site(read_site(str(home.path / "sites-enabled/blog.ini"), str(home.path)), home.home)


@pytest.mark.parametrize(
    "said", [b"[" * 60_000, b'{"do": "ping", "home": "\\u0000"}', b'{"do": "ensure", "site": "\\u0000"}']
)
def test_what_nobody_of_ours_would_ask_is_answered_with_an_error(home: SupervisedHome, said: bytes) -> None:
    """With `socket_group` there are others who may ask."""
    home.site("blog")
    home.ensure("blog")
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(home.rundir.control)
        asking.sendall(said + b"\n")
        assert b'"error"' in asking.recv(65536)
    assert home.status()["sites"]


@pytest.fixture
def rundir(home: SupervisedHome) -> Iterator[RuntimeDir]:
    made = RuntimeDir(home.home)
    made.make()
    yield made
    subprocess.run(["rm", "-rf", made.path], check=True)


def test_what_a_site_nests_deeply_keeps_nobody_from_starting(rundir: RuntimeDir, tmp_path: Path) -> None:
    """Its folder stays; the others go, and no link is followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    os.mkdir(rundir.private("bad"))
    here = os.open(rundir.private("bad"), os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    os.symlink(outside, rundir.private("link"))
    os.mkdir(rundir.private("good"))
    os.symlink(outside, os.path.join(rundir.private("good"), "link"))
    rundir.clear()
    assert set(os.listdir(rundir.private(""))) <= {"bad"}
    assert (outside / "precious").exists()


def test_whoever_keeps_us_waiting_for_the_next_in_the_queue_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of the site may have accept(2) wait although somebody was there a moment ago."""
    monkeypatch.setattr(refuse, "LONGEST", 0.1)
    monkeypatch.setattr(refuse, "_turn_away_one", lambda *_: signal.pause())
    before = signal.getsignal(signal.SIGALRM)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind("")
        listener.listen(1)
        waiting.connect(listener.getsockname())
        assert refuse.turn_away(listener.fileno(), 9, BackendUnavailable("no", 1)) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is before


@as_root
def test_what_hides_its_mark_goes_with_the_last_process_of_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper without our mark, or with a neighbour's, is left alone only beside a process of the same user."""
    stranger = pwd.getpwnam("www-data").pw_uid
    site = subprocess.Popen(SLEEPS, user="nobody")
    bare = subprocess.Popen(SLEEPS, user="nobody", env={})
    forged = subprocess.Popen(SLEEPS, user=stranger, env={"MULTISITE_BACKEND": "x:blog:1"})
    monkeypatch.setattr(kernel, "pids", lambda: [bare.pid, forged.pid])
    try:
        assert orphans.strays("x", {"x:blog:1": site.pid}, [site.pid]) == 1
        wait_until(lambda: not is_running(forged.pid))
        assert is_running(bare.pid)
        orphans.strays("x", {}, [], [site.pid])  # a preloader is no reason to keep it
        wait_until(lambda: not is_running(bare.pid))
    finally:
        for one in (site, bare, forged):
            one.kill()
            one.wait()
