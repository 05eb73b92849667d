"""The supervisor writes down what each site did in each second, and nothing for one that did nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from multisite.sites import history
from multisite.sites.history import History, Sample
from multisite.sites.statefile import StateFile
from multisite.sites.usage import FOLDER, Usage
from multisite.supervisor.records.recorder import GONE_AFTER, Recorder, Workers
from tests.processes import is_running

from .harness import SupervisedHome, supervised, wait_until

APP = """
import time

def application(environ, start_response):
    end = time.process_time() + (0.1 if environ["PATH_INFO"] == "/burn" else 0)
    while time.process_time() < end:
        pass
    start_response("500 Oh" if environ["PATH_INFO"] == "/fail" else "200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def lately(home: SupervisedHome, name: str) -> Sample:
    return history.summed(history.read(history.path_of(home.home, name), 1, time.time()))


def test_what_a_site_did_is_in_its_history_over_the_end_of_the_supervisor(tmp_path: Path) -> None:
    """Requests, errors, processor time, memory and times; a second site that nobody uses has no file."""
    with supervised(tmp_path) as home:
        home.app("app", APP)
        home.app("other", APP)
        home.get("app")
        wait_until(lambda: home.state("app")["pids"])
        for _ in range(3):
            home.get("app", "/burn")
        with pytest.raises(OSError, match="500"):
            home.get("app", "/fail")
        wait_until(lambda: lately(home, "app").requests >= 4)
        wait_until(lambda: lately(home, "app").memory)
        wait_until(lambda: lately(home, "app").errors == 1)
        first = lately(home, "app")
        assert first.cpu > 0.2
        assert 0.05 < first.latency < 60
        pid = home.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_running(pid))
        home.get("app")
        home.get("app", "/burn")
        wait_until(lambda: lately(home, "app").requests > first.requests)
        assert lately(home, "app").errors == 1
        assert os.listdir(history.folder(home.home)) == ["app.ring"]


def test_what_workers_count_is_seen_when_it_changes_and_costs_no_look_at_the_others(tmp_path: Path) -> None:
    home = SupervisedHome(tmp_path).home
    past = Workers(str(tmp_path / "usage"), home)
    assert list(past.changes()) == []
    mine = Usage(str(tmp_path / "usage"), StateFile(home, FOLDER))
    sites = [mine.of(f"site{number}") for number in range(100)]
    assert list(past.changes()) == []  # they have answered nothing
    for _ in range(3):
        sites[70].end(sites[70].begin(), True, 5, 500)
    sites[2].ended(200, False)
    found = dict(past.changes())
    assert {name: done[:2] for name, done in found.items()} == {"site70": (3, 3), "site2": (1, 0)}
    assert sum(found["site70"][2]) == 3
    assert list(past.changes()) == []


def test_a_site_in_the_workers_has_its_share_of_their_memory(tmp_path: Path) -> None:
    home = SupervisedHome(tmp_path).home
    recorder = Recorder(home, str(tmp_path / "usage"), lambda _name: True, lambda: {"here": 5e6, "other": 7e6})
    mine = Usage(str(tmp_path / "usage"), StateFile(home, FOLDER)).of("here")
    recorder.tick([], {}, 1.0)
    mine.end(mine.begin(), False, 5, 200)
    recorder.tick([], {}, 2.0)
    kept = history.summed(history.read(history.path_of(home, "here"), 1, time.time()))
    assert kept.requests == 1 and kept.memory == pytest.approx(5e6, rel=0.04)
    recorder.close()


def test_the_history_of_a_site_that_is_gone_goes_after_a_while(tmp_path: Path) -> None:
    home = SupervisedHome(tmp_path).home
    os.makedirs(history.folder(home))
    long_ago = time.time() - GONE_AFTER - 60
    for name in ("gone", "rests", "gone..ann.example"):
        History(history.path_of(home, name)).close()
        os.utime(history.path_of(home, name), (long_ago, long_ago))
    History(history.path_of(home, "just")).close()
    Recorder(home, str(tmp_path / "usage"), lambda name: name == "rests").tick((), {}, time.monotonic())
    assert sorted(os.listdir(history.folder(home))) == ["just.ring", "rests.ring"]


def test_a_history_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    home = SupervisedHome(tmp_path).home
    os.makedirs(os.path.dirname(history.folder(home)), exist_ok=True)
    Path(history.folder(home)).write_text("in the way")
    recorder = Recorder(home, str(tmp_path / "usage"), lambda name: True)
    counts = Usage(str(tmp_path / "usage"), StateFile(home, FOLDER)).of("a")
    recorder.tick((), {}, 0.0)
    counts.ended(200, False)
    recorder.tick((), {}, 1.0)


def test_a_name_of_any_kind_is_a_file_of_the_folder(tmp_path: Path) -> None:
    home = SupervisedHome(tmp_path).home
    for name in ("blog", "hosts..ann.example", "..", "a/b", "ü"):
        path = history.path_of(home, name)
        assert os.path.dirname(path) == history.folder(home)
        assert history.name_of(os.path.basename(path)) == name
