"""kill -9 of everything in turn, under gunicorn: one supervisor, nobody left behind, and the next request answered."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from multisite.control.serverprocess import command_line
from multisite.supervisor.process import kernel
from multisite.supervisor.records.journal import Journal
from tests.processes import is_running

from .harness import SERVER, WITHIN, SupervisedHome, wait_until

# A worker that asks for a site's socket once and then relays, as the service does.
FRONT = """
import os, socket
from multisite.config.read import read_home
from multisite.control.client import Client

client = Client(read_home(os.environ["MOYA_SERVICE_HOME"]))
paths = {}

def relay(name, target):
    for attempt in range(50):
        path = paths.get(name) or paths.setdefault(name, client.ensure(name))
        try:
            with socket.socket(socket.AF_UNIX) as connected:
                connected.settimeout(20)
                connected.connect(path)
                connected.sendall(f"GET {target} HTTP/1.0\\r\\n\\r\\n".encode())
                data = b"".join(iter(lambda: connected.recv(65536), b""))
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
            data = b""
        if data:
            return data.partition(b"\\r\\n\\r\\n")[2]
        paths.pop(name, None)
    raise RuntimeError("no answer")

def application(environ, start_response):
    body = relay(environ["HTTP_HOST"].partition(".")[0], environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


# A site that leaves a helper in a separate session.
DAEMONISES = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open("helper.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename("helper.new", "helper")
        os.closerange(0, 10)
        time.sleep(600)
    os._exit(0)
os.wait()
"""
DAEMONISES += SERVER


class Gunicorn:
    """A gunicorn master over the front application."""

    def __init__(self, home: SupervisedHome, *arguments: str) -> None:
        self.path = home.path / "gunicorn.sock"
        (home.path / "front.py").write_text(FRONT)
        env = {**os.environ, "MOYA_SERVICE_HOME": str(home.path), "PYTHONPATH": str(Path(__file__).parents[2])}
        argv = [sys.executable, "-m", "gunicorn", "front:application", "--bind", f"unix:{self.path}", "--chdir"]
        argv += [str(home.path), "--no-control-socket", "--pid", "pidfile", "--timeout", "60", *arguments]
        self.process = subprocess.Popen(argv, env=env)
        wait_until(lambda: self.workers() and self.path.exists())

    @property
    def pid(self) -> int:
        return self.process.pid

    def workers(self, master: int = 0) -> list[int]:
        return [pid for pid in kernel.pids() if kernel.parent(pid) == (master or self.pid) and is_running(pid)]

    def get(self, site: str, target: str = "/") -> str:
        connection = http.client.HTTPConnection("x", timeout=WITHIN)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(WITHIN)
        connection.sock.connect(str(self.path))
        connection.request("GET", target, headers={"Host": f"{site}.test", "Connection": "close"})
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        assert answer.status == 200, body
        return body

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for pid in kernel.pids():  # orphaned workers look for their master now and then only
            if os.fsencode(str(self.path)) in command_line(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def served(home: SupervisedHome, *arguments: str) -> Iterator[Gunicorn]:
    gunicorn = Gunicorn(home, *arguments)
    try:
        yield gunicorn
    finally:
        gunicorn.close()


def guard_of(supervisor: int) -> int:
    """The supervisor's parent; never one of the numbers that stand for more than one process."""
    guard = kernel.parent(supervisor)
    assert guard > 1
    return guard


def supervisor_of(home: SupervisedHome) -> int:
    home.supervisors.add(home.pid)
    return home.pid


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def pid_in(body: str) -> int:
    return int(body.split(maxsplit=1)[0])


def test_t1_a_stampede_on_cold_sites_makes_one_supervisor_and_one_process_each(home: SupervisedHome) -> None:
    names = ["a", "b", "c", "d"]
    for name in names:
        home.site(name)
    with served(home, "--workers", "3", "--worker-class", "gthread", "--threads", "8") as gunicorn:
        answers: list[tuple[str, str]] = []

        def ask_one(name: str) -> None:
            answers.append((name, gunicorn.get(name)))

        threads = [threading.Thread(target=ask_one, args=(names[number % 4],)) for number in range(48)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 48
        assert len(set(answers)) == 4
        supervisor_of(home)
        assert home.status()["supervisor"]["servers"] == [gunicorn.pid]


def test_t2_recycled_workers_leave_supervisor_and_sites_alone(home: SupervisedHome) -> None:
    home.site("a")
    with served(home, "--workers", "2", "--max-requests", "10") as gunicorn:
        first = gunicorn.get("a")
        supervisor, workers = supervisor_of(home), set(gunicorn.workers())
        answers = {gunicorn.get("a") for _ in range(60)}
        while workers & set(gunicorn.workers()):
            answers.add(gunicorn.get("a"))
        assert answers == {first}
        assert home.pid == supervisor


def test_t3_a_killed_supervisor_takes_its_sites_along_and_the_next_request_makes_another(
    home: SupervisedHome,
) -> None:
    home.site("a")
    with served(home) as gunicorn:
        site = pid_in(gunicorn.get("a"))
        supervisor = supervisor_of(home)
        os.kill(supervisor, signal.SIGKILL)
        wait_until(lambda: not is_running(site))
        assert pid_in(gunicorn.get("a")) != site
        assert supervisor_of(home) != supervisor


def test_t4_a_killed_master_leaves_nothing(home: SupervisedHome) -> None:
    home.site("a", DAEMONISES)
    with served(home) as gunicorn:
        site = pid_in(gunicorn.get("a"))
        helper = int(wait_until(lambda: read(home.path / "sites" / "a" / "helper")))
        supervisor = supervisor_of(home)
        os.kill(gunicorn.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, (site, helper, supervisor))))
        wait_until(lambda: not home.left())


def test_t5_a_killed_site_comes_back(home: SupervisedHome) -> None:
    home.site("a")
    with served(home) as gunicorn:
        site = pid_in(gunicorn.get("a"))
        supervisor_of(home)
        os.kill(site, signal.SIGKILL)
        assert pid_in(gunicorn.get("a")) != site


def test_t6_a_killed_supervisor_leaves_no_daemonised_helper(home: SupervisedHome) -> None:
    """Its guard is given the orphan and ends it."""
    home.site("a", DAEMONISES)
    with served(home) as gunicorn:
        gunicorn.get("a")
        helper = int(wait_until(lambda: read(home.path / "sites" / "a" / "helper")))
        os.kill(supervisor_of(home), signal.SIGKILL)
        wait_until(lambda: not is_running(helper))


def test_t7_a_reloaded_gunicorn_keeps_supervisor_and_sites(home: SupervisedHome) -> None:
    home.site("a")
    with served(home) as gunicorn:
        first = gunicorn.get("a")
        supervisor, workers = supervisor_of(home), set(gunicorn.workers())
        gunicorn.process.send_signal(signal.SIGHUP)
        wait_until(lambda: (now := set(gunicorn.workers())) and not now & workers)
        assert gunicorn.get("a") == first
        assert home.pid == supervisor


def test_t8_a_killed_guard_changes_nothing(home: SupervisedHome) -> None:
    home.site("a")
    with served(home) as gunicorn:
        first = gunicorn.get("a")
        supervisor = supervisor_of(home)
        guard = guard_of(supervisor)
        os.kill(guard, signal.SIGKILL)
        wait_until(lambda: not is_running(guard))
        assert gunicorn.get("a") == first
        assert home.pid == supervisor


def test_t9_an_upgraded_master_keeps_supervisor_and_sites_and_takes_them_along_in_the_end(
    home: SupervisedHome,
) -> None:
    """gunicorn's USR2: a new master beside the old one, which then quits; nobody asks for a site meanwhile."""
    home.site("a")
    with served(home) as gunicorn:
        first = gunicorn.get("a")
        supervisor = supervisor_of(home)
        gunicorn.process.send_signal(signal.SIGUSR2)
        pidfile = home.path / "pidfile.2"
        master = int(wait_until(lambda: pidfile.exists() and pidfile.read_text()))
        try:
            wait_until(lambda: gunicorn.workers(master))
            gunicorn.process.send_signal(signal.SIGQUIT)
            gunicorn.process.wait(WITHIN)
            assert gunicorn.get("a") == first
            assert home.pid == supervisor
        finally:
            os.kill(master, signal.SIGTERM)
        wait_until(lambda: not is_running(supervisor))
        wait_until(lambda: not home.left())


def test_after_a_kill_sockets_logs_and_counts_are_right(home: SupervisedHome) -> None:
    """Nothing of sites that are gone is left; counts and log continue where they were; nothing is in flight."""
    hello = "def application(environ, start_response):\n    print(environ['PATH_INFO'], flush=True)\n"
    hello += "    start_response('200 OK', [])\n    return [b'hello']\n"
    log = home.path / "blog.log"
    home.app("blog", hello, more=f"[logging]\nerror = {log}\n", processes="2")
    home.site("gone")
    home.get("gone")
    for number in range(5):
        home.get("blog", f"/{number}")
        wait_until(lambda line=f"/{number}\n": read(log).endswith(line))
    wait_until(lambda: (kept := Journal(home.home).read().get("blog")) and kept.requests == 5)
    (home.path / "sites-enabled" / "gone.ini").unlink()
    supervisor = supervisor_of(home)
    os.kill(supervisor, signal.SIGKILL)
    assert home.get("blog", "/last") == "hello"
    wait_until(lambda: home.state("blog")["requests"] == 6)
    wait_until(lambda: "/last" in read(log))
    assert log.read_text().split() == ["/0", "/1", "/2", "/3", "/4", "/last"]
    run = Path(home.rundir.path)
    assert [path.name for path in (run / "sites").iterdir()] == ["blog.sock"]
    assert [path.name for path in (run / "domains").iterdir()] == ["blog.test"]
    assert home.state("blog")["in_flight"] == 0


def test_what_an_earlier_supervisor_left_is_cleared_away(home: SupervisedHome) -> None:
    """Guard and supervisor killed at one stroke: the helper lives, until the next supervisor finds it."""
    home.site("a", DAEMONISES)
    home.get("a")
    helper = int(wait_until(lambda: read(home.path / "sites" / "a" / "helper")))
    supervisor = supervisor_of(home)
    guard = guard_of(supervisor)
    os.kill(guard, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    os.kill(guard, signal.SIGKILL)
    wait_until(lambda: not is_running(guard) and not is_running(supervisor))
    assert is_running(helper)
    home.get("a")
    wait_until(lambda: not is_running(helper))
