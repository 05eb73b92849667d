"""kill -9 of everything in turn while several sites are asked without pause: each costs what was inside it, no more.

How long a site is away is measured and printed at the end of the run; the promise is one second, the tests give a
loaded machine more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import is_running

from .harness import MEASURED, PATIENCE, HomeDir, Server, eventually, find_program, gunicorn, not_tested
from .load import Load
from .test_spawned import pid_of, supervisor_of

pytestmark = pytest.mark.servers

SPAWNED = ("a", "b", "c")
NAMES = (*SPAWNED, "shared")
WORKERS = [("sync", "--workers", "3"), ("gthread", "--workers", "2", "--threads", "8")]


def new_home(path: Path) -> HomeDir:
    made = HomeDir(path).create()
    for name in SPAWNED:
        made.site(name, mode="spawned")
    made.site("shared", mode="in-process")
    return made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> HomeDir:
    return new_home(tmp_path_factory.mktemp("kills"))


@pytest.fixture
def own(tmp_path: Path) -> HomeDir:
    """A home whose server the test kills."""
    return new_home(tmp_path)


@pytest.fixture(scope="module", params=WORKERS, ids=lambda options: options[0])
def running(home: HomeDir, request: pytest.FixtureRequest) -> Iterator[Server]:
    """One server for all that comes back after a kill."""
    with gunicorn(home, *request.param) as server:
        yield server
    eventually(lambda: not home.processes(), PATIENCE, "nothing is left")


@pytest.fixture
def server(running: Server) -> Server:
    """The server, whose sites have all been met by all workers."""
    for name in NAMES * 5:
        assert running.ask(f"{name}.test").text == f"site {name}"
    return running


@contextlib.contextmanager
def all_asked(server: Server) -> Iterator[dict[str, Load]]:
    """Each site under load of its own."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(Load(server.port, f"{name}.test", f"site {name}", threads=1)) for name in NAMES
        }


def kill(pid: int) -> float:
    """End a process; returns the moment after which nothing of it can be asked."""
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_running(pid), PATIENCE, f"{pid} is dead")
    return time.monotonic()


def away(server: Server, what: str, names: tuple[str, ...]) -> None:
    """Wait until all these sites answer rightly and note how long that took."""
    took = eventually(lambda: all(is_right(server, name) for name in names), PATIENCE, f"{names} answer after {what}")
    MEASURED.append(f"{what} killed, {server.argv[6]}: all sites answer after {took * 1000:.0f} ms")


def is_right(server: Server, name: str) -> bool:
    with contextlib.suppress(OSError):
        return server.ask(f"{name}.test").text == f"site {name}"
    return False


def unharmed(loads: dict[str, Load], *names: str) -> None:
    for name in names:
        assert loads[name].failures == [], name
        assert loads[name].asked > 5, f"{name} was not asked"


def in_flight_only(load: Load, until: float, most: int = 1) -> None:
    """What failed had been begun before the end of what was killed: at most one request of each client."""
    assert len(load.failures) <= most, load.failures
    assert all(begun <= until for begun in load.begun), (load.failures, load.begun, until)


def on_its_connections_only(load: Load, until: float) -> None:
    """What failed came on a connection that ended with the worker, even if its client learnt of that later."""
    assert len(load.failures) <= 1, load.failures
    assert all(opened <= until for opened in load.opened), (load.failures, load.opened, until)


def test_a_killed_backend_costs_its_own_requests_only(server: Server) -> None:
    """One site after another loses its process; its neighbours lose nothing, and it comes back at once."""
    for name in SPAWNED:
        others = [other for other in NAMES if other != name]
        old = pid_of(server.ask(f"{name}.test"))
        with all_asked(server) as loads:
            ended = kill(old)
            away(server, "a backend", (name,))
            eventually(lambda loads=loads: all(load.asked > 5 for load in loads.values()), PATIENCE, "load")
        unharmed(loads, *others)
        in_flight_only(loads[name], ended)
        assert pid_of(server.ask(f"{name}.test")) != old


def test_all_backends_killed_at_one_stroke_come_back_together(server: Server, home: HomeDir) -> None:
    """No budget for failing sites holds them up."""
    old = [pid_of(server.ask(f"{name}.test")) for name in SPAWNED]
    with all_asked(server) as loads:
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        ended = max(map(kill_again, old))
        away(server, "all backends", SPAWNED)
        eventually(lambda: loads["shared"].asked > 5, PATIENCE, "load")
    unharmed(loads, "shared")
    for name in SPAWNED:
        in_flight_only(loads[name], ended)


def kill_again(pid: int) -> float:
    eventually(lambda: not is_running(pid), PATIENCE, f"{pid} is dead")
    return time.monotonic()


def test_a_killed_worker_costs_what_was_inside_it(server: Server) -> None:
    """Its connections break, at most one for each client; no backend and no supervisor ends with it."""
    before = {name: pid_of(server.ask(f"{name}.test")) for name in SPAWNED}
    victim = min(server.workers())
    with all_asked(server) as loads:
        ended = kill(victim)
        away(server, "a worker", NAMES)
        eventually(lambda: len(server.workers() - {victim}) >= 2, PATIENCE, "another worker")
        eventually(lambda: all(load.asked > 20 for load in loads.values()), PATIENCE, "load")
    for load in loads.values():
        on_its_connections_only(load, ended)
        assert all("site" not in failure and not failure[0].isdigit() for failure in load.failures), load.failures
    assert {name: pid_of(server.ask(f"{name}.test")) for name in SPAWNED} == before


@pytest.mark.parametrize("victim", ["supervisor", "guard"])
def test_a_killed_supervisor_costs_what_was_in_flight(server: Server, home: HomeDir, victim: str) -> None:
    """In-process sites notice nothing; the others are back at once, with one process each. Its guard is no loss."""
    supervisor = supervisor_of(home)
    old = [pid_of(server.ask(f"{name}.test")) for name in SPAWNED]
    parent = int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent > 1
    with all_asked(server) as loads:
        ended = kill(parent if victim == "guard" else supervisor)
        if victim == "supervisor":
            ended = max(map(kill_again, old))
        away(server, f"the {victim}", NAMES)
        eventually(lambda: all(load.asked > 5 for load in loads.values()), PATIENCE, "load")
    unharmed(loads, "shared")
    for name in SPAWNED:
        in_flight_only(loads[name], ended, most=int(victim == "supervisor"))
    assert (supervisor_of(home) == supervisor) == (victim == "guard")
    eventually(lambda: len(home.processes(backends=True)) == len(SPAWNED), PATIENCE, "one process for each site")


def test_a_killed_master_takes_all_along_and_blocks_no_next_start(own: HomeDir) -> None:
    """kill -9 of gunicorn's master under load: nothing is left of the home, and the next server starts as if new."""
    home = own
    # Orphaned gthread workers serve their keep-alive clients as long as this says.
    options = ("--workers", "2", "--threads", "8", "--graceful-timeout", "2")
    with gunicorn(home, "gthread", *options) as server:
        for name in NAMES:
            assert server.ask(f"{name}.test").text == f"site {name}"
        with all_asked(server) as loads:
            kill(server.process.pid)
            server.process.wait()
            eventually(lambda: not home.processes(), PATIENCE, "nothing of the home runs")
        assert all(load.asked > 0 for load in loads.values())
    starts_anew(home)


def test_a_machine_that_went_down_blocks_no_next_start(own: HomeDir) -> None:
    """Everything is killed at one stroke, guard included, so that nobody clears anything away."""
    home = own
    unshare = find_program("unshare") or not_tested("everything killed at one stroke: unshare (util-linux)")
    isolated = [unshare, "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        not_tested("everything killed at one stroke: unshare --pid is not permitted")
    server = gunicorn(home, "sync", "--workers", "2")
    server.argv = [*isolated, *server.argv]
    with server:
        for name in NAMES:
            assert server.ask(f"{name}.test").text == f"site {name}"
        kill(server.process.pid)
        server.process.wait()
        eventually(lambda: not home.processes(), PATIENCE, "nothing of the home runs")
        assert list((home.runtime / "multisite").rglob("*.sock")), "nobody cleared away"
    starts_anew(home)


def starts_anew(home: HomeDir) -> None:
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "4") as server:
        begun = time.monotonic()
        for name in NAMES:
            answer = server.ask(f"{name}.test")
            assert (answer.status, answer.text) == (200, f"site {name}")
        MEASURED.append(f"a new server after that: all sites answer after {(time.monotonic() - begun) * 1000:.0f} ms")
        assert is_running(supervisor_of(home))
