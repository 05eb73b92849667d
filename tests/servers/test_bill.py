"""The bill of a home under a real server agrees with the kernel, and outlives whatever is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multisite.supervisor.process import kernel
from tests.processes import is_running

from .harness import PATIENCE, HomeDir, Server, eventually, gunicorn

pytestmark = pytest.mark.servers

BURNER = """
import os, time

held = bytearray({held} * 2**20)
held[::4096] = b"x" * len(held[::4096])

def application(environ, start_response):
    until = time.thread_time() + float(environ["PATH_INFO"][1:])
    while time.thread_time() < until:
        pass
    time.sleep({sleeps})
    start_response("200 OK", [("Content-Length", "5")])
    return [b"%5d" % os.getpid()]
"""
SITES = {"large": ("in-process", 60, 0), "small": ("in-process", 20, 0), "sleeper": ("in-process", 0, 1.5)}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[HomeDir]:
    found = HomeDir(tmp_path).create()
    for name, (mode, held, sleeps) in {**SITES, "apart": ("spawned", 0, 0)}.items():
        code = BURNER.format(held=held, sleeps=sleeps)
        found.site(name, "", mode=mode, application="app:application")
        (found.path / "sites" / name / "app.py").write_text(code)
    yield found


def run(home: HomeDir, *words: str) -> dict[str, Any]:
    done = home.typed("--json", *words)
    assert done.exit_code == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def supervisor_of(home: HomeDir) -> int:
    return int(run(home, "status")["supervisor"]["pid"])


def end_of_supervisor(home: HomeDir) -> None:
    """Have it write down what it has not yet."""
    supervisor = supervisor_of(home)
    os.kill(supervisor, signal.SIGTERM)
    eventually(lambda: not is_running(supervisor), PATIENCE, "the supervisor is gone")


def billed(home: HomeDir) -> dict[str, dict[str, Any]]:
    told = run(home, "bill")
    total = {key: sum(site[key] for site in told["sites"]) for key in ("requests", "starts")}
    assert total == {key: told["total"][key] for key in total}
    return {site["name"]: site for site in told["sites"]}


def ask(server: Server, name: str, seconds: float) -> int:
    """Have a site use so much processor time; returns the process in which it did."""
    return int(server.ask(f"{name}.test", f"/{seconds}").body)


def test_the_sums_agree_with_the_kernels(home: HomeDir) -> None:
    """Of in-process sites, of which a worker has several, and of one apart; what waits for a clock costs nothing."""
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "4") as server:
        worker = {ask(server, name, seconds) for name, seconds in (("large", 1.5), ("small", 0.5), ("sleeper", 0.0))}
        apart = ask(server, "apart", 1.0)
        (pid,) = worker
        kernels = kernel.cpu(pid) + kernel.cpu(apart)
        end_of_supervisor(home)
        found = billed(home)
        assert sum(one["cpu"] for one in found.values()) == pytest.approx(kernels, rel=0.05)
        assert 1.3 < found["large"]["cpu"] < 2.2, "with its import"
        assert 0.4 < found["small"]["cpu"] < 1.0
        assert found["sleeper"]["cpu"] < 0.2
        assert {name: found[name]["requests"] for name in (*SITES, "apart")} == dict.fromkeys((*SITES, "apart"), 1)
        told = {site["name"]: site["cpu"] for site in run(home, "status")["sites"]}
        assert told["large"] == pytest.approx(found["large"]["cpu"], rel=0.25), "without the worker's own part"
        assert 1.0 <= told["apart"] < 2.0
        again = billed(home)
        assert again["large"]["cpu"] == pytest.approx(found["large"]["cpu"], rel=0.05), "nothing is billed twice"


def test_memory_is_divided_by_what_imports_have_added(home: HomeDir) -> None:
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "4") as server:
        ask(server, "apart", 0.0)  # which starts the supervisor
        ask(server, "large", 0.0)
        ask(server, "small", 0.0)
        end_of_supervisor(home)
        found = billed(home)
        assert found["large"]["memory"] == pytest.approx(3 * found["small"]["memory"], rel=0.25)
        assert found["small"]["memory"] > 0


def test_everything_may_be_killed(home: HomeDir) -> None:
    """What was written down stays, and is not written down again."""
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "4") as server:
        pid = ask(server, "large", 1.0)
        before = billed(home)  # no supervisor runs, so the command bills what the worker has counted
        assert before["large"]["cpu"] == pytest.approx(kernel.cpu(pid), rel=0.1)
        ask(server, "apart", 0.2)
        supervisor = supervisor_of(home)
        os.kill(supervisor, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not is_running(supervisor) and not is_running(pid), PATIENCE, "both are gone")
        assert ask(server, "large", 0.5) != pid
        found = billed(home)
        assert found["large"]["requests"] == 2
        assert before["large"]["cpu"] + 0.5 <= found["large"]["cpu"] < before["large"]["cpu"] + 2.0


def test_requests_for_unknown_hosts_are_counted_together(home: HomeDir) -> None:
    """No host that a client sends becomes a name anywhere."""
    with gunicorn(home, "gthread", "--workers", "2", "--threads", "4") as server:
        before = run(home, "status")["unknown_hosts"]
        for number in range(5):
            assert server.ask(f"stranger{number}.example", "/").status == 404
        ask(server, "small", 0.0)
    assert run(home, "status")["unknown_hosts"] == before + 5
    text = run(home, "metrics")["metrics"]
    assert f"multisite_requests_unknown_host_total {before + 5}.0\n" in text
    assert 'multisite_http_server_requests_total{site="small",status_class="2xx"} 1.0\n' in text
    assert "stranger" not in text
