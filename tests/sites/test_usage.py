"""How much each site is used: counted by workers, kept over their ends, shown by commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from multisite.cli import main
from multisite.config.model import Home
from multisite.runner import board
from multisite.sites import usage
from multisite.sites.figures import Sums
from multisite.sites.statefile import StateFile
from multisite.sites.tally import SHARES, percentiles
from multisite.sites.usage import MEASURED, Counts, Usage, gather, read
from tests.homes import TestHome

APP = """
def application(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("500 Broken" if path == "/500" else "200 OK", [("Content-Type", "text/plain")])
    if path == "/raise":
        raise RuntimeError("raised")
    return iter([b"12345"]) if path == "/later" else [b"12345"]
"""


@pytest.fixture
def home(tmp_path: Path) -> TestHome:
    made = TestHome(tmp_path)
    made.code("a", app=APP)
    made.ini("a")
    return made


@pytest.fixture
def past(tmp_path: Path) -> StateFile:
    return StateFile(
        Home(str(tmp_path), file=str(tmp_path / "moya.conf"), uid=1, environ={"XDG_STATE_HOME": str(tmp_path)}), "usage"
    )


def shown(home: TestHome, *arguments: str) -> Any:
    run = CliRunner().invoke(main, ["--home", str(home.path), "--json", *arguments], catch_exceptions=False)
    return json.loads(run.output)


def of_site(home: TestHome, name: str = "a") -> dict[str, Any]:
    (row,) = shown(home, "stats", name)["sites"]
    return dict(row)


# --- counting -------------------------------------------------------------------------------------------------------


def test_requests_errors_bytes_and_times_of_a_site_are_counted(home: TestHome) -> None:
    for path in 5 * ("/", "/later", "/500", "/raise"):
        home.get("a.test", path)
    row = of_site(home)
    assert (row["requests"], row["errors"], row["in_flight"]) == (20, 10, 0)
    assert (row["statuses"]["2xx"], row["statuses"]["5xx"]) == (10, 10)
    assert row["sent"] > 15 * 5
    assert row["seconds"] > 0
    assert list(row["percentiles"]) == [f"{share:g}" for share in SHARES]
    assert all(seconds is not None for seconds in row["percentiles"].values())


def test_list_and_status_show_the_figures_of_sites_in_the_workers(home: TestHome) -> None:
    home.get("a.test", "/")
    home.get("a.test", "/500")
    for command in ("list", "status"):
        (row,) = shown(home, command)["sites"]
        assert (row["requests"], row["in_flight"], row["errors"]) == (2, 0, 1), command


def test_a_site_that_nobody_asked_for_has_no_requests_and_no_times(home: TestHome) -> None:
    row = of_site(home)
    assert (row["requests"], row["percentiles"]["50"]) == (0, None)


def test_what_is_on_its_way_is_in_flight(home: TestHome) -> None:
    inside, go_on = threading.Event(), threading.Event()
    home.code("a", app=APP)
    home.get("a.test", "/")
    site = next(iter(home.service._sites.values()))

    def slow(environ: Any, start_response: Any) -> Any:
        inside.set()
        go_on.wait(60)
        start_response("200 OK", [])
        return [b""]

    site._put(slow)
    thread = threading.Thread(target=home.get, args=("a.test", "/"))
    thread.start()
    assert inside.wait(60)
    assert of_site(home)["in_flight"] == 1
    go_on.set()
    thread.join()
    assert of_site(home)["in_flight"] == 0


def test_every_request_counts_however_many_there_are_in_a_second(home: TestHome) -> None:
    for _ in range(MEASURED + 50):
        home.get("a.test", "/")
    row = of_site(home)
    assert row["requests"] == MEASURED + 50
    assert row["measured"] == MEASURED
    assert row["sent"] == 5 * (MEASURED + 50)
    home.later()
    home.get("a.test", "/")
    assert of_site(home)["measured"] == MEASURED + 1


def test_no_count_is_lost_between_threads() -> None:
    """What is only counted takes no lock; the interpreter may change threads as often as it likes."""
    counts = Counts(memoryview(bytearray(board.SIZE)).cast("Q"))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: [counts.count() for _ in range(20_000)]) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert board.record_of(bytes(counts.cells), 2**62).requests == 120_000  # type: ignore[union-attr]


def test_static_files_count_too(home: TestHome) -> None:
    folder = home.path / "sites" / "a"
    (folder / "x.css").write_text("123")
    home.ini(
        "a", f"[service]\ndomains = a.test\nlocation = {folder}\napplication = app:application\n[static]\n/s = .\n"
    )
    home.get("a.test", "/s/x.css")
    home.get("a.test", "/")
    assert (of_site(home)["requests"], of_site(home)["sent"]) == (2, 8)


# --- over the ends of workers ---------------------------------------------------------------------------------------

WORKER = """
import os, sys
from multisite.config.model import Home
from multisite.sites.statefile import StateFile
from multisite.sites.usage import Usage
home = Home(sys.argv[1], file=sys.argv[1] + "/moya.conf", uid=1, environ={"XDG_STATE_HOME": sys.argv[1]})
usage = Usage(sys.argv[1] + "/usage", StateFile(home, "usage"))
for name in ("blog", "shop"):
    counts = usage.of(name)
    for _ in range(3):
        counts.end(counts.begin(), name == "shop", 10)
    counts.begin()
print("counted", flush=True)
sys.stdin.read()
os.kill(os.getpid(), 9)
"""


def start_worker(folder: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", WORKER, str(folder)]
    worker = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdout
    assert worker.stdout.readline() == b"counted\n"
    return worker


def end_worker(worker: subprocess.Popen[bytes]) -> None:
    worker.communicate()


def test_the_counts_of_killed_workers_stay_and_what_they_had_in_flight_does_not(
    tmp_path: Path, past: StateFile
) -> None:
    folder = str(tmp_path / "usage")
    one, two = start_worker(tmp_path), start_worker(tmp_path)
    sums, since = read(folder, past)
    assert since > 0
    assert (sums["blog"].requests, sums["blog"].in_flight, sums["blog"].sent) == (8, 2, 60)
    end_worker(one)
    sums, _ = read(folder, past)
    assert (sums["blog"].requests, sums["blog"].in_flight) == (8, 1)
    end_worker(two)
    three = start_worker(tmp_path)  # which gathers what the dead ones left
    assert len([name for name in os.listdir(folder) if not name.startswith(".")]) == 1
    sums, again = read(folder, past)
    assert (sums["blog"].requests, sums["shop"].errors, sums["shop"].measured) == (12, 9, 9)
    assert again == since
    end_worker(three)
    gather(folder, past)
    gather(folder, past)
    assert read(folder, past)[0]["blog"].requests == 12


def test_two_homes_in_one_runtime_directory_have_their_own_counts(tmp_path: Path, past: StateFile) -> None:
    other = StateFile(
        Home(str(tmp_path / "other"), file="/other/moya.conf", environ={"XDG_STATE_HOME": str(tmp_path)}), "usage"
    )
    folder = str(tmp_path / "usage")
    mine, others = Usage(folder, past), Usage(folder, other)
    mine.of("a").count()
    others.of("a").count()
    others.of("a").count()
    assert [read(folder, each)[0]["a"].requests for each in (past, other)] == [1, 2]


def test_workers_of_two_containers_may_have_one_number(tmp_path: Path, past: StateFile) -> None:
    """Neither takes the other's file from under it, and both count."""
    workers = [Usage(str(tmp_path), past) for _ in range(3)]
    for number, worker in enumerate(workers, 1):
        for _ in range(number):
            counts = worker.of("a")
            counts.end(counts.begin(), False, 1)
    assert read(str(tmp_path), past)[0]["a"].requests == 6
    assert len({worker.pid for worker in workers}) == 1


def test_a_folder_that_cannot_be_used_costs_only_the_figures(tmp_path: Path, past: StateFile) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("", str(tmp_path / "file"), str(tmp_path / "none" / "deeper")):
        counts = Usage(folder, past).of("a")
        counts.end(counts.begin(), False, 1)
    assert read(str(tmp_path / "none"), past) == ({}, 0.0)


@pytest.mark.parametrize("document", [None, [], {"sites": 1}, {"sites": {"a": [1]}, "since": 1, "latencies": []}, "x"])
def test_sums_that_make_no_sense_are_no_sums(past: StateFile, tmp_path: Path, document: Any) -> None:
    past.store(document)
    assert read(str(tmp_path / "usage"), past) == ({}, 0.0)


# --- sums and shares ------------------------------------------------------------------------------------------------


def test_what_was_not_measured_is_taken_to_be_like_what_was() -> None:
    latencies = [0] * len(board.LATENCIES) + [100]
    sums = Sums(1000, 2, 500, 10.0, 0, latencies).all_of_them()
    assert (sums.requests, sums.errors, sums.sent, sums.busy) == (1000, 20, 5000, 100.0)
    assert Sums(100, 2, 500, 10.0, 0, latencies).all_of_them().errors == 2
    assert Sums(5).all_of_them().requests == 5


def test_a_percentile_is_the_time_within_which_that_share_was_answered() -> None:
    found = percentiles((1.0, 2.0, 4.0), (50, 25, 24, 1))
    assert found[50.0] == 1.0
    assert found[75.0] == 2.0
    assert found[90.0] == pytest.approx(2 + 2 * 15 / 24)
    assert found[99.0] == 4.0
    assert found[99.9] == float("inf")
    assert percentiles((1.0,), (0, 0))[50.0] is None
    assert percentiles((1.0,), (10, 0))[50.0] == 0.5


def test_the_tables_for_people(home: TestHome) -> None:
    home.get("a.test", "/")
    run = CliRunner().invoke(main, ["--home", str(home.path), "stats"])
    assert run.exit_code == 0
    assert "99.9 %" in run.output
    assert "since 20" in run.output
    run = CliRunner().invoke(main, ["--home", str(home.path), "stats", "a"])
    assert "requests:  1" in run.output
    assert "66 %" in run.output
    assert CliRunner().invoke(main, ["--home", str(home.path), "stats", "none"]).exit_code == 1


def test_what_the_dead_counted_is_bounded(tmp_path: Path, past: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that nobody will use again make room for those that were used most."""
    folder = str(tmp_path / "usage")
    monkeypatch.setattr(usage, "MOST_SITES", 5)
    for generation in range(4):
        mine = Usage(folder, past)
        for number in range(4):
            mine.of(f"{generation}.{number}").count()
        for _ in range(10):
            mine.of("blog").count()
        os.close(mine._file)
        del mine  # which has the file mapped, and so holds it
    gather(folder, past)
    found = read(folder, past)[0]
    assert len(found) == 5
    assert found["blog"].requests == 40
