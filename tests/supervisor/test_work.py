"""Background work of a site: it is not idleness, within bounds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.supervisor.process import kernel
from multisite.supervisor.site.work import LEAST, SHARE, WINDOW, Work, idle_since, window
from tests.processes import is_running

from .harness import SERVER, SupervisedHome, supervised, wait_until
from .test_told import typed

HOUR = 3600.0
#: (last use, last seen at work, is at work, busy_timeout, now) → idle since
IDLE = [
    ((10.0, 0.0, False, HOUR, 20.0), 10.0),
    ((10.0, 15.0, False, HOUR, 20.0), 15.0),
    ((10.0, 20.0, True, HOUR, 20.0), None),
    ((10.0, 20.0, True, 5.0, 20.0), 10.0),  # for longer than it may
    ((10.0, 14.0, False, 5.0, 20.0), 10.0),
    ((10.0, 20.0, True, 0.0, 10.0), 10.0),  # only requests count
]


@pytest.mark.parametrize(("seen", "since"), IDLE)
def test_since_when_a_site_is_idle(seen: tuple[float, float, bool, float, float], since: float | None) -> None:
    assert idle_since(*seen) == since


def test_a_site_is_measured_less_often_the_longer_it_is_idle_until_it_matters() -> None:
    assert window(1.0, 300.0) == WINDOW
    assert window(200.0, 300.0) == 25.0
    assert window(301.0, 300.0) == WINDOW
    assert window(1.0, 1.0) == 0.25
    assert window(10_000.0, 0.0) == 30.0


def test_the_use_of_the_processor_between_requests_is_work() -> None:
    """What was used while a request was there says nothing."""
    work, used = Work(), [0.0]

    def look(now: float, last_use: float, says_so: bool = False) -> bool:
        work.look(now, last_use, says_so, 300.0, lambda: used[0], lambda: 1.0)
        return work.is_working

    assert not look(100.0, 99.9)
    used[0] += 5.0
    assert not look(103.0, 101.0)  # for the request at 101
    used[0] += 3.1 * SHARE
    assert look(106.0, 101.0)
    assert work.worked_at == 106.0
    assert look(107.0, 101.0)  # by the last measurement
    assert not look(107.0, 106.5)  # a request
    used[0] += 2.9 * SHARE
    assert not look(110.0, 106.5)
    assert not look(113.0, 106.5)
    assert look(113.1, 106.5, says_so=True)
    assert not look(113.2, 106.5)


@pytest.mark.parametrize(("had", "least"), [(1.0, SHARE), (0.5, SHARE / 2), (0.01, SHARE * LEAST)])
def test_on_a_busy_machine_less_is_work(had: float, least: float) -> None:
    """A process that has to share the processor uses less, however much it has to do."""
    for part, is_work in ((0.9, False), (1.1, True)):
        work, used = Work(), [0.0]
        for now in (100.0, 110.0):
            work.look(now, 90.0, False, 300.0, lambda used=used: used[0], lambda: had)  # type: ignore[misc]
            used[0] += 10.0 * least * part
        assert work.is_working is is_work


def test_a_process_has_at_most_one_processor_and_less_of_it_the_more_want_it() -> None:
    assert 0.0 < kernel.processor_share() <= 1.0


def test_what_is_logged_of_it_is_logged_once() -> None:
    work = Work()
    work.is_working = True
    told = [work.news(0.0, 10.0, 20.0, float(now)) for now in range(25)]
    assert [now for now, news in enumerate(told) if news] == [10, 20]
    assert "busy_timeout" in told[20]


def test_the_processor_time_of_children_counts() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os.write(writer, b"%d" % os.getpid())
            while True:
                pass
        os.wait()
    try:
        grandchild = int(os.read(reader, 20))
        wait_until(lambda: kernel.cpu_of_all(child) > 0.05)
        assert kernel.cpu(child) < 0.05
        os.kill(grandchild, 9)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


# --- real processes ---------------------------------------------------------------------------------------------------

SAY = """
import os, socket

def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.connect(os.environ["NOTIFY_SOCKET"])
        wire.send(text.encode())
"""
WORK = """
import subprocess, sys, threading, time

def work(path):
    if path == "/busy":
        say("BUSY=1")
    if path == "/done":
        say("BUSY=0")
    if path == "/use":
        threading.Thread(target=use, daemon=True).start()
    if path == "/child":
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
    if path == "/lie":
        say("READY=0\\nSTOPPING=1\\nLEAVES=1\\nRECYCLES=1\\nHUNG=1")

def use():
    while True:
        sum(range(10000))
"""
APP = """
def application(environ, start_response):
    work(environ["PATH_INFO"])
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
ASGI = """
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    work(scope["path"])
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
COMMAND = SAY + WORK + SERVER.replace("        status = 200\n", "        status = 200\n        work(self.path)\n")
PORT = COMMAND.replace("socket.socket(fileno=3)", 'socket.create_server(("127.0.0.1", int(sys.argv[1])))')
KINDS = ("wsgi", "asgi", "command", "port")
TIMES = {"idle_timeout": "1s", "mode": "spawned"}
# A supervisor that gets little of the processor itself still measures a site several times before that is idle.
MEASURED = {"idle_timeout": "3s"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SupervisedHome]:
    with supervised(tmp_path_factory.mktemp("work")) as home:
        yield home


def site(home: SupervisedHome, kind: str, name: str, **keys: str) -> str:
    keys = {**TIMES, **keys}
    if kind == "wsgi":
        home.app(name, SAY + WORK + APP, **keys)
    elif kind == "asgi":
        home.app(name, SAY + WORK + ASGI, application="asgi:app:application", **keys)
    elif kind == "command":
        home.site(name, COMMAND, **keys)
    else:
        home.site(name, PORT, command=f"{sys.executable} srv.py %PORT", **keys)
    return name


def outlives(home: SupervisedHome, name: str, **keys: str) -> int:
    """The pid of a process that lives on after another site's of the same times has been stopped."""
    (pid,) = home.state(name)["pids"]
    other = site(home, "command", f"{name}-other", **keys)
    home.get(other)
    home.wait_for(other, "stopped")
    assert home.state(name)["pids"] == [pid]
    return int(pid)


@pytest.mark.parametrize("kind", KINDS)
def test_who_says_that_it_is_busy_is_not_idle(home: SupervisedHome, kind: str) -> None:
    """Until it says that it is done, in any language."""
    name = site(home, kind, f"says-{kind}")
    home.get(name, "/busy")
    pid = outlives(home, name)
    home.get(name, "/")
    assert outlives(home, name) == pid
    home.get(name, "/done")
    home.wait_for(name, "stopped")


@pytest.mark.parametrize(
    ("kind", "path"), [("wsgi", "/use"), ("command", "/use"), ("port", "/use"), ("wsgi", "/child")]
)
def test_who_uses_the_processor_is_not_idle(home: SupervisedHome, kind: str, path: str) -> None:
    """Itself, or one of its children."""
    name = site(home, kind, f"uses-{kind}{path.replace('/', '-')}", **MEASURED)
    home.get(name, path)
    outlives(home, name, **MEASURED)
    home.client.ask({"do": "stop", "site": name})
    home.wait_for(name, "stopped")


@pytest.mark.parametrize("path", ["/busy", "/use"])
def test_busy_timeout_is_the_bound(home: SupervisedHome, path: str) -> None:
    """Of either kind of work, counted from the last request; 0: only requests count."""
    bounded = site(home, "wsgi", f"bounded{path.replace('/', '-')}", busy_timeout="10s", **MEASURED)
    home.get(bounded, path)
    outlives(home, bounded, **MEASURED)
    home.wait_for(bounded, "stopped")
    never = site(home, "wsgi", f"never{path.replace('/', '-')}", busy_timeout="0")
    home.get(never, path)
    home.wait_for(never, "stopped")


def test_a_site_that_our_runner_runs_says_nothing_else(home: SupervisedHome) -> None:
    name = site(home, "wsgi", "liar", idle_timeout="1h", max_requests="1000")
    pid = home.get(name, "/lie")
    for _ in range(3):  # what it has said has been heard when the last of these answers
        home.state(name)
    assert home.get(name, "/") == pid
    assert home.state(name)["state"] == "running"


def test_who_is_at_work_is_not_evicted(tmp_path: Path) -> None:
    """The other one is, although it has been used later; if all are at work, the new one waits its turn."""
    with supervised(tmp_path, "max_backends = 2") as home:
        for name in ("first", "second", "third"):
            site(home, "command", name, idle_timeout="1h")
        pid = int(home.get("first", "/busy").split()[0])
        wait_until(lambda: home.state("first")["state"] == "running")
        home.get("second")
        home.get("third")
        assert is_running(pid)
        assert home.state("second")["state"] in ("stopped", "draining", "stopping")


def test_a_process_that_ends_is_busy_no_more(home: SupervisedHome) -> None:
    name = site(home, "command", "dies")
    home.get(name, "/busy")
    with pytest.raises(OSError):
        home.get(name, "/die")
    home.get(name, "/")
    home.wait_for(name, "stopped")


def test_a_successor_of_the_supervisor_knows(home: SupervisedHome) -> None:
    """That a process is busy, and what it says from then on."""
    name = site(home, "wsgi", "kept")
    pid = home.get(name, "/busy")
    home.client.ask({"do": "upgrade"})
    wait_until(lambda: home.state(name))
    assert outlives(home, name) == int(pid)
    home.get(name, "/done")
    home.wait_for(name, "stopped")


def test_explain_says_that_a_site_is_at_work(home: SupervisedHome) -> None:
    name = site(home, "wsgi", "explained", idle_timeout="1h")
    home.get(name, "/busy")
    wait_until(lambda: home.state(name)["working"])
    assert "it is working without a request" in typed(home, "explain", f"{name}.test")
    home.get(name, "/done")
    wait_until(lambda: not home.state(name)["working"])
    assert "at work" not in typed(home, "explain", f"{name}.test")
    home.get(name, "/busy")
    home.client.ask({"do": "stop", "site": name})
    home.wait_for(name, "stopped")
    assert not home.state(name)["working"]


def test_socket_is_the_sites_own(home: SupervisedHome) -> None:
    """Nobody else's, and gone with the process."""
    name = site(home, "wsgi", "owner")
    home.get(name, "/busy")
    (pid,) = home.state(name)["pids"]
    path = kernel.environment(pid)[b"NOTIFY_SOCKET"].decode()
    assert os.stat(path).st_uid == os.stat(f"/proc/{pid}").st_uid
    home.get(name, "/done")
    home.wait_for(name, "stopped")
    wait_until(lambda: not os.path.exists(path))
