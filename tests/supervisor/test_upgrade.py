"""The supervisor becomes the program on disk, in the same process, and nobody notices."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import multisite
import multisite.supervisor
from multisite.control.client import SupervisorError
from multisite.control.rundir import RuntimeDir
from multisite.supervisor.process import kernel
from multisite.supervisor.reexec import FORMAT
from tests.processes import is_running

from .harness import SERVER, SupervisedHome, ask, wait_until

HELLO = """
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'hello']
"""
SLOW = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\n"
WITHIN = 90.0  # seconds for the new program to answer, on a machine that has other things to do


def upgrade(home: SupervisedHome) -> dict[str, Any]:
    return home.client.ask({"do": "upgrade"}, within=WITHIN)


def pid_of(body: str) -> int:
    return int(body.split(maxsplit=1)[0])


class Load:
    """Asks for a site again and again from several threads, until it is stopped."""

    def __init__(self, home: SupervisedHome, sites: tuple[str, ...], threads: int = 4) -> None:
        self.answers: list[str] = []
        self.failures: list[BaseException] = []
        self._home, self._sites, self._ended = home, sites, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(threads)]

    def _ask(self, number: int) -> None:
        while not self._ended.is_set():
            try:
                name = self._sites[number % len(self._sites)]
                self.answers.append(ask(self._home.client.ensure(name), seconds=60))
            except Exception as error:
                self.failures.append(error)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self) -> None:
        before = len(self.answers)
        wait_until(lambda: len(self.answers) > before + 20 or self.failures, 60)


def test_the_process_and_its_sites_stay_and_no_request_is_lost_under_load(home: SupervisedHome) -> None:
    for name in ("a", "b"):
        home.site(name)
    before = {name: home.get(name) for name in ("a", "b")}
    supervisor = home.pid
    with Load(home, ("a", "b")) as load:
        for _ in range(3):
            load.goes_on()
            assert upgrade(home)["version"] == multisite.__version__
        load.goes_on()
    assert load.failures == []
    assert set(load.answers) == set(before.values())
    assert home.pid == supervisor
    assert b"--adopt" in Path(f"/proc/{supervisor}/cmdline").read_bytes()
    assert Path(f"/proc/{supervisor}/comm").read_text() == "multisite-super\n"


def test_what_was_known_of_the_sites_is_known_afterwards(home: SupervisedHome) -> None:
    """State, times, failures, logs and figures; and what is closed stays closed."""
    home.site("runs", SERVER.replace("if self.path ==", "print(self.path, flush=True)\n        if self.path =="))
    home.app("wsgi", HELLO)
    home.site("bad", "print('no flask here')\nraise SystemExit(3)")
    home.get("runs", "/one")
    for _ in range(3):
        home.get("wsgi")
    with pytest.raises(OSError):
        home.get("bad")
    home.failed("bad")
    home.wait_for("runs", "running")
    wait_until(lambda: home.state("wsgi")["requests"] == 3)
    uptime = home.status()["supervisor"]["uptime"]
    before = home.status()["sites"]
    upgrade(home)
    after = home.status()["sites"]
    same = ("pids", "socket", "requests", "starts", "journey", "failure")
    for name in ("runs", "wsgi"):
        assert {key: after[name][key] for key in same} == {key: before[name][key] for key in same}
    assert after["bad"]["failure"]["output"] == ["no flask here"]
    assert home.status()["supervisor"]["uptime"] > uptime
    home.get("runs", "/two")
    assert home.client.ask({"do": "logs", "site": "runs"})["lines"] == ["serving", "/one", "/two"]
    home.get("wsgi")
    wait_until(lambda: home.state("wsgi")["requests"] == 4)


def test_a_start_that_is_under_way_goes_on(home: SupervisedHome) -> None:
    """Silent servers and those that say READY=1 alike; who waits for them is answered."""
    folders = [home.site("silent", SLOW + SERVER)]
    folders.append(home.app("tells", SLOW + HELLO))
    names, answers = ("silent", "tells"), []
    paths = [home.ensure(name) for name in names]
    threads = [threading.Thread(target=lambda path=path: answers.append(ask(path, seconds=60))) for path in paths]
    for thread in threads:
        thread.start()
    pids = [home.wait_for(name, "starting")["pids"] for name in names]
    upgrade(home)
    for folder in folders:
        (folder / "go").touch()
    for thread in threads:
        thread.join()
    assert len(answers) == 2
    assert [home.wait_for(name, "running")["pids"] for name in names] == pids


def test_a_cold_site_is_started_by_who_waits_at_its_socket(home: SupervisedHome) -> None:
    home.site("cold")
    path = home.ensure("cold")
    upgrade(home)
    assert pid_of(ask(path))


def test_what_ends_afterwards_is_noticed(home: SupervisedHome) -> None:
    home.site("blog", idle_timeout="3")
    home.site("crash")
    first = [home.get(name) for name in ("blog", "crash")]
    home.wait_for("blog", "running")
    upgrade(home)
    os.kill(pid_of(first[1]), signal.SIGKILL)
    assert home.get("crash") != first[1]
    home.wait_for("blog", "stopped")
    assert not is_running(pid_of(first[0]))
    assert not [pid for pid in kernel.pids() if kernel.parent(pid) == home.pid and not is_running(pid)]


def test_a_file_that_changes_meanwhile_is_heeded(home: SupervisedHome) -> None:
    home.site("blog")
    first = home.get("blog")
    upgrade(home)
    assert home.get("blog") == first
    home.site("blog", more="[env]\nGREETING = moin\n")
    wait_until(lambda: home.get("blog").endswith("moin"))


def test_who_follows_a_log_goes_on_following(home: SupervisedHome) -> None:
    home.site("blog", SERVER.replace("if self.path ==", "print(self.path, flush=True)\n        if self.path =="))
    home.get("blog", "/one")
    answers = home.client.follow({"do": "logs", "site": "blog", "follow": True})
    assert next(answers)["lines"] == ["serving", "/one"]
    upgrade(home)
    home.get("blog", "/two")
    assert next(answers)["lines"] == ["/two"]
    answers.close()  # type: ignore[attr-defined]
    assert home.get("blog")


def test_sigusr2_does_it_too_and_reaches_it_through_the_guard(home: SupervisedHome) -> None:
    home.site("blog")
    first = home.get("blog")
    os.kill(kernel.parent(home.pid), signal.SIGUSR2)
    wait_until(lambda: b"--adopt" in Path(f"/proc/{home.pid}/cmdline").read_bytes(), WITHIN)
    assert home.get("blog") == first


def test_killed_afterwards_it_leaves_nothing_and_the_next_one_starts(home: SupervisedHome) -> None:
    home.site("blog")
    first = pid_of(home.get("blog"))
    upgrade(home)
    os.kill(home.pid, signal.SIGKILL)
    wait_until(lambda: not is_running(first))
    assert home.get("blog")


# A package that is upgraded, well or badly


@pytest.fixture
def package(home: SupervisedHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, which the supervisor runs."""
    installed = tmp_path / "installed"
    shutil.copytree(
        Path(multisite.__file__).parent, installed / "multisite", ignore=shutil.ignore_patterns("__pycache__")
    )
    home.site("blog")
    lock = RuntimeDir(home.home)
    lock.make()
    env = {**os.environ, "PYTHONPATH": str(installed)}
    argv = [sys.executable, "-m", "multisite.supervisor", "--home", str(home.path), "--lock-fd"]
    held = lock.lock()
    assert held is not None
    subprocess.run([*argv, str(held)], env=env, cwd="/", pass_fds=(held,), check=True)
    os.close(held)
    wait_until(lambda: os.path.exists(home.rundir.control))
    return installed / "multisite"


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def test_the_new_version_runs_with_the_old_processes(home: SupervisedHome, package: Path) -> None:
    first = home.get("blog")
    edit(package / "__init__.py", lambda text: text.replace(multisite.__version__, "99.1"))
    assert upgrade(home)["version"] == "99.1"
    assert home.status()["supervisor"]["version"] == "99.1"
    assert home.get("blog") == first


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("supervisor/sites.py", lambda text: text + "\ndef (", "SyntaxError"),
        ("supervisor/main.py", lambda text: "import no_such_module_anywhere\n", "no_such_module_anywhere"),
        (
            "supervisor/reexec.py",
            lambda text: text.replace(f"FORMAT = {FORMAT}", "FORMAT = 99"),
            "restart the service",
        ),
    ],
    ids=["syntax", "dependency", "format"],
)
def test_a_new_program_that_does_not_start_leaves_the_old_one_in_service(
    home: SupervisedHome, package: Path, file: str, change: Callable[[str], str], reason: str
) -> None:
    first = home.get("blog")
    edit(package / file, change)
    with pytest.raises(SupervisorError, match=f"the old one stays: .*{reason}"):
        upgrade(home)
    assert home.get("blog") == first
    assert b"--adopt" not in Path(f"/proc/{home.pid}/cmdline").read_bytes()


def test_a_new_program_that_cannot_take_the_sites_over_ends_them_and_begins_anew(
    home: SupervisedHome, package: Path
) -> None:
    """It starts, so it has been executed before that shows: a clean recovery in the same process."""
    first = pid_of(home.get("blog"))
    supervisor = home.pid
    supervised = package / "supervisor/site/supervised.py"
    edit(supervised, lambda text: text.replace("def take_over(self", "def take_over(self, nothing"))
    home.client.ask({"do": "ping"})
    with pytest.raises(Exception, match=r"exited|waited|refused"):
        upgrade(home)
    wait_until(lambda: not is_running(first))
    assert pid_of(home.get("blog")) != first
    assert home.pid == supervisor


def test_a_supervisor_needs_none_of_its_files_any_more(home: SupervisedHome, package: Path) -> None:
    """A module that it loaded when they have been replaced could be of another version."""
    folder = home.site("slow", SLOW + SERVER, start_timeout="60")
    home.site("bad", "raise SystemExit(3)")
    path = home.ensure("slow")
    supervisor = home.pid
    shutil.rmtree(package)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.settimeout(WITHIN)
        waiting.connect(path)
        waiting.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        home.wait_for("slow", "starting")
        home.client.ask({"do": "stop", "site": "slow"})
        assert b" 503 " in waiting.recv(65536).split(b"\r\n")[0]
    (folder / "go").touch()
    assert home.get("slow")
    with pytest.raises(OSError):
        home.get("bad")
    first = pid_of(home.get("blog"))
    home.client.ask({"do": "reload"})
    home.client.ask({"do": "restart", "site": "blog"})
    wait_until(lambda: not is_running(first))
    assert pid_of(home.get("blog")) != first
    for name in ("blog", "slow"):
        home.client.ask({"do": "stop", "site": name})
        home.wait_for(name, "stopped")
    assert home.failed("bad")["failure"]["output"] == []
    assert home.pid == supervisor


def test_a_supervisor_imports_everything_when_it_starts() -> None:
    """`__main__` alone chooses what is to be run."""
    folder = Path(multisite.supervisor.__file__).parent
    late = [
        (path.name, ast.unparse(node))
        for path in sorted(folder.rglob("*.py"))
        if path.name != "__main__.py"
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("multisite")
    ]
    assert late == []


def test_the_command_says_what_happened(home: SupervisedHome) -> None:
    argv = [sys.executable, "-m", "multisite", "--home", str(home.path), "reload", "--supervisor"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "no supervisor is running" in told
    home.site("blog")
    home.get("blog")
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert told == f"the new program is running, version {multisite.__version__}\n"


# What is waited for, learned and bounded


def change(folder: Path, text: str = HELLO) -> None:
    (folder / "tmp").mkdir(exist_ok=True)
    (folder / "app.py").write_text(text)
    (folder / "tmp" / "restart.txt").write_text("now")
    os.utime(folder / "tmp" / "restart.txt", (2e9, 2e9))


def look(home: SupervisedHome) -> None:
    """Have the supervisor look at the files of its sites."""
    home.client.ask({"do": "reload"})
    home.status()  # which is answered in a later turn


def test_a_reload_that_waits_for_git_is_taken_afterwards(home: SupervisedHome) -> None:
    folder = home.app("blog", HELLO)
    assert home.get("blog") == "hello"
    (folder / ".git").mkdir()
    (folder / ".git" / "index.lock").touch()
    change(folder, HELLO.replace("hello", "again"))
    look(home)
    upgrade(home)
    assert home.get("blog") == "hello"
    (folder / ".git" / "index.lock").unlink()
    wait_until(lambda: home.get("blog") == "again")


def test_a_site_that_was_put_to_rest_is_not_woken(home: SupervisedHome) -> None:
    """Its file says that it always runs; somebody has stopped it."""
    home.app("blog", HELLO, warm="always")
    assert home.get("blog") == "hello"
    home.client.ask({"do": "stop", "site": "blog"})
    home.wait_for("blog", "stopped")
    starts = home.state("blog")["starts"]
    upgrade(home)
    look(home)
    look(home)
    assert home.state("blog")["starts"] == starts
    assert home.get("blog") == "hello"


TALKS = """
import os

def application(environ, start_response):
    for _ in range(20):
        os.write(5, environ["PATH_INFO"][1:].encode() + b"=x")
    os.write(5, b"MODULES=decimal")
    start_response("200 OK", [])
    return [b"hello"]
"""


def test_what_a_running_process_says_is_heard_afterwards_within_its_bounds(home: SupervisedHome) -> None:
    """It teaches the preloader of its pair, four times in all and not four times after each upgrade."""
    home.app("blog", TALKS)
    for _ in range(3):
        assert home.get("blog", "/X") == "hello"
    upgrade(home)
    assert home.get("blog", "/X") == "hello"
    for name in ("first", "second"):
        home.app(name, HELLO)
        home.get(name)
    preloaders = wait_until(lambda: [one for one in home.status()["preloaders"] if one["state"] == "ready"])
    assert len(preloaders) == 1
    upgrade(home)  # what starts of a pair are known is known: the next one is enough
    home.app("third", HELLO)
    assert home.get("third") == "hello"
    wait_until(lambda: [one for one in home.status()["preloaders"] if one["state"] == "ready"])
