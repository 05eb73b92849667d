"""Processes that grow: replaced above their own limit, stopped when all together are above the budget."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from multisite.supervisor.process import kernel
from tests.processes import is_running

from .harness import SERVER, SupervisedHome, ask, run, supervised, wait_until

GROWS = "hoard = []\n" + SERVER.replace(
    '        if self.path == "/die":',
    '        if self.path.startswith("/grow/"):\n'
    "            hoard.append(bytearray(b'x') * (int(self.path[6:]) << 20))\n"
    '        if self.path == "/die":',
)
MEASURED = 60.0  # seconds within which it has been measured, on a machine that has other things to do


def pid_of(body: str) -> int:
    return int(body.split(maxsplit=1)[0])


def test_a_process_above_its_limit_is_replaced_and_no_request_is_lost(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with supervised(tmp_path) as home:
        folder = home.site("big", GROWS, memory_limit="80M", processes="1")
        home.site("small", GROWS, memory_limit="80M")
        small = home.get("small", "/grow/10")
        path = home.ensure("big")
        slow: list[str] = []
        waiting = threading.Thread(target=lambda: slow.append(ask(path, "/until/replaced", 2 * MEASURED)))
        waiting.start()
        wait_until(lambda: home.state("big")["in_flight"] and home.state("big")["state"] == "running")
        first = ask(path, "/grow/100")
        answers = [first]
        while answers[-1] == first:
            answers.append(ask(path, "/sleep/0.05"))
            assert len(answers) < MEASURED / 0.05, "it has not been replaced"
        (folder / "replaced").touch()
        waiting.join()
        assert slow == [first], "the request that was in flight has been finished"
        wait_until(lambda: not is_running(pid_of(first)))
        assert home.state("big")["pids"] == [pid_of(answers[-1])]
        assert home.state("big")["starts"] == 2
        assert home.get("small") == small
        told = INCIDENT.findall(capfd.readouterr().err)
        assert len(told) == 1 and "more than memory_limit = 80M" in told[0][1], told
        for command in ("list", "status"):
            site = row(home, command, "big")
            assert (site["failure"]["incident"], site["state"]) == (told[0][0], "running")
            assert "memory_limit = 80M" in site["failure"]["failure"] and "max_requests" in site["failure"]["remedy"]
            assert row(home, command, "small")["failure"] is None
            assert "memory_limit = 80M" in " ".join(typed(home, command, "big").split())
        explained = typed(home, "explain", "big.test")
        assert all(word in explained for word in (told[0][0], "memory_limit = 80M", "max_requests"))
        home.client.ask({"do": "restart", "site": "big"})
        wait_until(lambda: row(home, "status", "big")["failure"] is None)


INCIDENT = re.compile(r"incident ([0-9a-f]{8}): (.*)")


def typed(home: SupervisedHome, *words: str) -> str:
    done = run(home.path, *words)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def row(home: SupervisedHome, command: str, name: str) -> dict[str, Any]:
    return dict(json.loads(typed(home, "--json", command, name))["sites"][0])


def test_what_a_process_has_forked_counts_too(tmp_path: Path) -> None:
    """The memory of helpers in its session is the site's."""
    fork = (
        "import os, signal, time\nif os.fork() == 0:\n    hoard = bytearray(b'x') * (100 << 20)\n    signal.pause()\n"
    )
    with supervised(tmp_path) as home:
        home.site("big", fork + SERVER, memory_limit="80M")
        first = home.get("big")
        wait_until(lambda: home.get("big") != first, MEASURED)


def test_above_the_budget_an_idle_site_goes_and_a_busy_one_stays(tmp_path: Path) -> None:
    """Which of two idle ones depends on what their starts have cost: the planner's own tests say how."""
    with supervised(tmp_path, "memory_budget = 200M") as home:
        folder = [home.site(name, GROWS) for name in ("a", "b", "c")][-1]
        for name in ("a", "b"):
            home.get(name, "/grow/60")
            home.wait_for(name, "running")
        path = home.ensure("c")
        busy: list[str] = []
        waiting = threading.Thread(target=lambda: busy.append(ask(path, "/until/stopped", 2 * MEASURED)))
        waiting.start()
        wait_until(lambda: home.state("c")["in_flight"] and home.state("c")["state"] == "running")
        ask(path, "/grow/100")
        stopped = wait_until(lambda: [n for n in ("a", "b", "c") if home.state(n)["state"] == "stopped"], MEASURED)
        assert stopped in (["a"], ["b"])
        (folder / "stopped").touch()
        waiting.join()
        assert len(busy) == 1
        assert pid_of(home.get(stopped[0]))


def test_a_busy_site_is_never_stopped_for_the_budget(tmp_path: Path) -> None:
    with supervised(tmp_path, "memory_budget = 50M") as home:
        home.site("a", GROWS)
        path = home.ensure("a")
        slow: list[str] = []
        waiting = threading.Thread(target=lambda: slow.append(ask(path, "/sleep/8", 60)))  # measured meanwhile
        waiting.start()
        first = ask(path, "/grow/100")
        waiting.join()
        assert slow == [first]
        home.wait_for("a", "stopped", MEASURED)


def test_memory_is_what_a_process_has_for_itself_and_its_share_of_the_rest() -> None:
    """The proportional set size, which the kernel sums up; pages that it shares count in part."""
    import mmap
    import os

    with mmap.mmap(-1, 50 << 20) as grown:  # what is freed elsewhere the allocator may keep
        grown.write(b"x" * len(grown))
        own = kernel.memory(os.getpid())
        assert own > 50 << 20
    assert kernel.memory(os.getpid()) < own - (40 << 20)
    assert kernel.memory(2**22 + 1) == 0
