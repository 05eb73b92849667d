"""A read-only runtime directory, a full disk, no more descriptors: told clearly, and whoever can be served is."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from .harness import PATIENCE, Answer, HomeDir, Server, eventually, find_program, gunicorn, not_tested

pytestmark = pytest.mark.servers

SITES = 25


@pytest.fixture
def home(tmp_path: Path) -> HomeDir:
    home = HomeDir(tmp_path).create()
    home.site("shared", mode="in-process")
    for number in range(SITES):
        home.site(f"n{number}", mode="spawned")
    return home


def on_a_disk(home: HomeDir, options: str, fill: str = "true") -> Server:
    """A server whose runtime directory is on a file system of its own."""
    unshare = find_program("unshare") or not_tested("a runtime directory that cannot be written: unshare (util-linux)")
    if os.geteuid() != 0 or subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode:
        not_tested("a runtime directory that cannot be written: only root may mount")
    server = gunicorn(home, "gthread", "--workers", "1", "--threads", "8")
    mount = f'mount -t tmpfs -o {options} none {home.runtime} && {{ {fill}; }} 2>/dev/null; exec "$@"'
    server.argv = [unshare, "-m", "sh", "-c", mount, "sh", *server.argv]
    return server


def ask_all(server: Server) -> tuple[list[str], list[Answer]]:
    """Ask each site once: who is served, and what the others are told."""
    answers = {f"n{number}": server.ask(f"n{number}.test", accept="application/json") for number in range(SITES)}
    served = [name for name, answer in answers.items() if (answer.status, answer.text) == (200, f"site {name}")]
    return served, [answer for name, answer in answers.items() if name not in served]


def refused(server: Server, answer: Answer, reason: str) -> None:
    """503 with Retry-After, and one line of the log that has the incident and the reason."""
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    incident = json.loads(answer.text)["incident"]
    told = [line for line in server.log().splitlines() if f"incident {incident}: " in line]
    assert len(told) == 1
    assert reason in told[0]


def test_a_read_only_runtime_directory_is_told(home: HomeDir) -> None:
    """Sites with processes of their own get 503 at once; those in the workers are served."""
    with on_a_disk(home, "ro") as server:
        answer = server.ask("n0.test", accept="application/json")
        refused(server, answer, "read-only file system; set another one with [service] runtime_dir in moya.conf")
        assert server.ask("shared.test").text == "site shared"
        assert "Traceback" not in server.log()


def test_a_full_disk_costs_nothing_but_figures(home: HomeDir) -> None:
    """Sockets need no room; a scoreboard that has none counts for nobody, and ends no process."""
    with on_a_disk(home, "size=64k", f"head -c 100000 /dev/zero > {home.runtime}/fill") as server:
        workers = server.workers()
        for name in ("shared", *(f"n{number}" for number in range(SITES))):
            answer = server.ask(f"{name}.test")
            assert (answer.status, answer.text) == (200, f"site {name}")
        assert server.workers() == workers
        assert "Traceback" not in server.log()


def test_a_disk_without_room_for_another_name_is_told(home: HomeDir) -> None:
    """The sites whose sockets are there are served, the next ones are refused."""
    with on_a_disk(home, "nr_inodes=20") as server:
        served, others = ask_all(server)
        assert "n0" in served and others
        for answer in others:
            refused(server, answer, "No space left on device")
        assert server.ask("shared.test").text == "site shared"
        assert server.ask("n0.test").text == "site n0"


def test_no_more_descriptors_cost_the_next_site_only(home: HomeDir) -> None:
    """The supervisor keeps some for itself; sites that run go on, and the commands still get their answers."""
    prlimit = find_program("prlimit") or not_tested("no more descriptors: prlimit (util-linux)")
    server = gunicorn(home, "gthread", "--workers", "1", "--threads", "4")
    server.argv = [prlimit, "--nofile=90:90", *server.argv]
    with server:
        served, others = ask_all(server)
        assert len(served) > 3 and others
        for answer in others:
            refused(server, answer, "the supervisor has no descriptors left; raise its limit")
        for name in served:
            assert server.ask(f"{name}.test").text == f"site {name}"
        assert server.ask("shared.test").text == "site shared"
        assert f"{len(served)} of 50 processes" in home.multisite("status")
        assert home.multisite("stop", "n0") == "n0: stopping\n"
        eventually(lambda: len(home.processes(backends=True)) == len(served) - 1, PATIENCE, "one has stopped")
        still = f"{len(served) - 1} of 50 processes"
        eventually(lambda: still in home.multisite("status"), PATIENCE, "the supervisor has what it held")
        # What a process held comes back piece by piece after its end.
        eventually(lambda: server.ask("n0.test").text == "site n0", PATIENCE, "the site that was stopped is served")
        assert not re.search(r"Traceback|Errno", server.log())
