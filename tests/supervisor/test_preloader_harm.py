"""A preloader that means harm, or is killed, and who depends on it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from multisite.supervisor.process import kernel
from tests.processes import is_running

from .harness import SupervisedHome, ask, wait_until
from .preloading import app, preloader, preloaders, said, warm_up, way

WRAPPER = """#!/bin/sh
[ -z "$MULTISITE_PRELOAD" ] && exec {python} "$@"
exec {python} {script}
"""
HOSTILE = """
import json, os, socket
control = socket.socket(fileno=3)
{says}
control.send(json.dumps({{"ready": {{"modules": 1, "reads": [], "failed": []}}}}).encode())
while True:
    data, descriptors, flags, address = socket.recv_fds(control, 64, 5)
    if not data:
        break
    channel = socket.socket(fileno=descriptors[4])
    {does}
    channel.close()
    for one in descriptors[:4]:
        os.close(one)
"""


@pytest.mark.parametrize(
    ("says", "does"),
    [
        ("control.send(b'[' * 60000)", "pass"),
        ('control.send(b\'{"ready": {"reads": 5}}\')', "pass"),
        ('control.send(b\'{"ready": {"reads": {}}}\')', "pass"),
        ('control.send(b\'{"ready": {"modules": Infinity}}\')', "pass"),
        ("control.send(json.dumps({'spoilt': {'../x': 1}}).encode())", "pass"),
        ("", "channel.send(b'born')"),
        ("", "[channel.send(b'x' * 4000) for _ in range(9)]"),
    ],
)
def test_a_hostile_preloader_costs_a_plain_start_and_no_more(
    home: SupervisedHome, tmp_path: Path, says: str, does: str
) -> None:
    python = tmp_path / "python3"
    python.write_text(WRAPPER.format(python=sys.executable, script=tmp_path / "hostile.py"))
    (tmp_path / "hostile.py").write_text(HOSTILE.format(says=says, does=does))
    python.chmod(0o755)
    for name in ("first", "second"):
        home.app(name, app(), python=str(python))
        home.get(name)
    if not says:
        preloader(home)
    home.app("third", app(), python=str(python))
    assert said(home, "third")["pid"]
    assert way(home, "third").startswith("plain start")
    supervisor = home.pid
    wait_until(lambda: home.state("third")["state"] == "running")
    assert home.pid == supervisor


# kill -9 of each in turn


def test_killed_preloader_leaves_its_children_and_gets_a_successor(home: SupervisedHome) -> None:
    found = warm_up(home)
    home.app("third", app())
    child = said(home, "third")["pid"]
    os.kill(found["pid"], signal.SIGKILL)
    wait_until(lambda: not is_running(found["pid"]))
    assert said(home, "third")["pid"] == child
    home.app("fourth", app())
    home.get("fourth")
    assert way(home, "fourth").startswith("plain start")
    assert preloader(home)["pid"] != found["pid"]
    home.app("fifth", app())
    home.get("fifth")
    assert way(home, "fifth").startswith("forked")
    assert said(home, "third")["pid"] == child


def test_killed_child_is_noticed_at_once_and_forked_again(home: SupervisedHome) -> None:
    warm_up(home)
    home.app("third", app())
    child = said(home, "third")["pid"]
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: not is_running(child))
    again = said(home, "third")["pid"]
    assert again != child
    assert way(home, "third").startswith("forked")
    wait_until(lambda: preloaders(home)[0]["children"] == 1)


@pytest.mark.parametrize("order", ["supervisor", "preloader supervisor", "child supervisor", "supervisor preloader"])
def test_nobody_is_left_when_the_supervisor_is_killed(home: SupervisedHome, order: str) -> None:
    """Its children die with it, forked or not, and the next supervisor begins again."""
    found = warm_up(home)
    home.app("third", app())
    pids = {"supervisor": home.pid, "preloader": found["pid"], "child": said(home, "third")["pid"]}
    home.supervisors.discard(pids["supervisor"])
    for who in order.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[who], signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, pids.values())))
    wait_until(lambda: not home.left())  # those of the other sites
    assert said(home, "third")["pid"] not in pids.values()


def test_what_a_forked_process_daemonises_is_swept(home: SupervisedHome) -> None:
    """A helper that was forked and runs no other program bears the mark of its site, not of the preloader."""
    warm_up(home)
    helper = "os.fork() or (os.setsid(), os.fork() and os._exit(0), __import__('time').sleep(600))"
    home.app("third", app(said="0") + f"\n{helper}\n")
    child = said(home, "third")["pid"]
    mark = kernel.environment(child)[b"MULTISITE_BACKEND"]
    helpers = wait_until(
        lambda: [
            pid
            for pid in kernel.pids()
            if pid != child
            and kernel.environment(pid).get(b"MULTISITE_BACKEND") == mark
            and kernel.session(pid) != child
        ]
    )
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, helpers)))
    assert is_running(preloaders(home)[0]["pid"])


def test_a_preloader_that_does_not_answer_costs_a_plain_start(home: SupervisedHome) -> None:
    found = warm_up(home)
    os.kill(found["pid"], signal.SIGSTOP)
    home.app("third", app())
    assert said(home, "third")["pid"]
    assert way(home, "third").startswith("plain start: the preloader did not make it")
    wait_until(lambda: not is_running(found["pid"]))
    assert home.state("third")["starts"] == 1


def test_requests_that_wait_during_the_death_of_a_preloader_are_answered(home: SupervisedHome) -> None:
    """It is killed while it is asked for a process, stopped before so that the moment is certain."""
    found = warm_up(home)
    home.app("third", app())
    path = home.ensure("third")
    os.kill(found["pid"], signal.SIGSTOP)
    pid = os.fork()
    if pid == 0:
        try:
            ask(path)
            os._exit(0)
        finally:
            os._exit(1)
    wait_until(lambda: home.state("third")["state"] == "starting")
    os.kill(found["pid"], signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert way(home, "third").startswith("plain start")


def test_a_site_that_is_stopped_before_its_process_is_born_has_none(home: SupervisedHome) -> None:
    found = warm_up(home)
    home.app("third", app())
    path = home.ensure("third")
    os.kill(found["pid"], signal.SIGSTOP)
    with contextlib.ExitStack() as closed:
        waiting = closed.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(path)
        wait_until(lambda: home.state("third")["state"] == "starting")
    home.client.ask({"do": "stop", "site": "third"})
    os.kill(found["pid"], signal.SIGCONT)
    home.get("third")
    running = home.wait_for("third", "running")
    assert running["starts"] == 2
    of_third = [pid for pid in home.left() if b":third:" in kernel.environment(pid).get(b"MULTISITE_BACKEND", b"")]
    assert of_third == running["pids"]
