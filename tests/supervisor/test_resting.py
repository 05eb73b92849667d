"""Instances that nobody uses any more give up their sockets, and no request is lost by that."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.control.rundir import RuntimeDir
from multisite.supervisor.site.queue import SiteSocket

from .harness import WITHIN, SupervisedHome, ask, supervised, wait_until

APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
FEW = """
import sys
from multisite.supervisor import run, sites
sites.MOST_RESTING = 2
sys.exit(run.run(sys.argv[1], foreground=True))
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[SupervisedHome]:
    """A hosting site with ten folders, under a supervisor that lets two instances rest."""
    with supervised(tmp_path, "idle_timeout = 0.2s") as home:
        (tmp_path / "sites-enabled" / "many.ini").write_text(
            f"[service]\ndomains = *.test\nlocation = {tmp_path}/www/%HOST\n"
        )
        for number in range(10):
            folder = tmp_path / "www" / f"x{number}.test"
            folder.mkdir(parents=True)
            (folder / "wsgi.py").write_text(APP)
        argv = [sys.executable, "-c", FEW, str(tmp_path)]
        process = subprocess.Popen(argv, start_new_session=True)
        wait_until(lambda: os.path.exists(home.rundir.control))
        yield home
        process.send_signal(signal.SIGTERM)
        process.wait(WITHIN)


def test_of_many_instances_few_keep_their_sockets(home: SupervisedHome) -> None:
    """The others are put away with all they had, and start as if for the first time; their figures stay."""
    for _ in range(2):
        for number in range(10):
            assert ask(home.client.ensure("many", f"x{number}.test")) == "ok"
        wait_until(lambda: len(home.status()["sites"]) <= 2)
        assert len(os.listdir(Path(home.rundir.path) / "sites")) <= 2
        assert len(os.listdir(Path(home.rundir.path) / "domains")) <= 2
    home.client.ensure("many", "x0.test")
    assert home.state("many..x0.test")["requests"] == 2


def test_a_folder_that_takes_the_place_of_another_is_served(home: SupervisedHome) -> None:
    """Its processes are started again, although no file that asks for a reload has changed."""
    www = home.path / "www"
    path = home.client.ensure("many", "x0.test")
    assert ask(path) == "ok"
    (www / "next").mkdir()
    (www / "next" / "wsgi.py").write_text(APP.replace('b"ok"', 'b"no"'))
    (www / "x0.test").rename(www / "old")
    (www / "next").rename(www / "x0.test")
    wait_until(lambda: ask(home.client.ensure("many", "x0.test")) == "no")


def test_who_connects_while_a_socket_is_given_up_is_answered(home: SupervisedHome) -> None:
    """Whether he came just before, or comes just then."""
    failures = []

    def visitor(number: int) -> None:
        end = time.monotonic() + 6
        while time.monotonic() < end:
            time.sleep(0.3 + number / 20)
            try:
                assert ask(home.client.ensure("many", f"x{number}.test")) == "ok"
            except FileNotFoundError:
                pass  # it was given up in between; a worker asks again, since nothing was sent
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=visitor, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_socket_that_a_process_has_shut_down_is_bound_anew(tmp_path: Path) -> None:
    """Any process that has inherited it can do that, and would be the last one reachable."""
    rundir = RuntimeDir(SupervisedHome(tmp_path).home)
    rundir.make()
    listener = SiteSocket(rundir.socket("a"), rundir)
    listener.open(5)
    with socket.socket(fileno=os.dup(listener.fileno())) as inherited:
        inherited.shutdown(socket.SHUT_RDWR)
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(listener.path)
        listener.open(5)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(listener.path)
    listener.close()


def test_a_withdrawn_socket(tmp_path: Path) -> None:
    """Nobody finds it; who is in its queue stays there; opening it brings it back."""
    home = SupervisedHome(tmp_path)
    rundir = RuntimeDir(home.home)
    rundir.make()
    listener = SiteSocket(rundir.socket("a"), rundir)
    listener.open(5)
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect(listener.path)
    listener.withdraw()
    assert listener.is_withdrawn
    with pytest.raises(FileNotFoundError):
        socket.socket(socket.AF_UNIX).connect(listener.path)
    listener.open(5)
    assert not listener.is_withdrawn
    socket.socket(socket.AF_UNIX).connect(listener.path)
    accepted, _ = socket.socket(fileno=os.dup(listener.fileno())).accept()
    waiting.sendall(b"still here")
    assert accepted.recv(100) == b"still here"
    listener.withdraw()
    listener.close()
    assert os.listdir(os.path.dirname(listener.path)) == []
