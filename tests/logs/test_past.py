"""What sites went through is kept in a bounded file for each, whoever writes it, and nothing pushes a start out."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from multisite.logs import past
from multisite.logs.keptfiles import file_name
from tests.supervisor.harness import wait_until


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(past, "_current", None)
    past.begin(str(tmp_path / "state"))
    return tmp_path / "state"


def file_of(state: Path, site: str = "blog") -> Path:
    return state / past.FOLDER / file_name(site, past.ENDING)


def of(state: Path, site: str = "blog") -> past.Past:
    return past.read([str(state)], site)


def slow_one(number: int, seconds: float) -> dict[str, object]:
    return {"slow": seconds, "at": 1e9 + number, "method": "GET", "path": f"/{number}", "status": 200}


def test_a_start_has_its_steps_and_a_failed_one_its_reason(state: Path) -> None:
    past.started("blog", "cold", 1e9, [("prepare", 0.01), ("start up", 0.23456)], way="forked from process 7")
    past.started("blog", "deploy", 1e9 + 9, [], failure="it exited with status 3", incident="0123abcd")
    failed, ready = of(state).starts
    assert ready["steps"] == [{"step": "prepare", "seconds": 0.01}, {"step": "start up", "seconds": 0.2346}]
    assert (ready["kind"], ready["at"], ready["outcome"], ready["seconds"]) == ("cold", 1e9, "ready", 0.2446)
    assert (failed["outcome"], failed["failure"]) == ("failed", "it exited with status 3")
    assert failed["incident"] == "0123abcd" and ready["way"] == "forked from process 7"
    assert stat.S_IMODE(file_of(state).stat().st_mode) == 0o640
    assert stat.S_IMODE(file_of(state).parent.stat().st_mode) == 0o700


def test_a_flood_of_slow_requests_costs_no_start_and_no_deploy_and_keeps_the_slowest(state: Path) -> None:
    for number in range(past.STARTS + 3):
        past.started("blog", "warm", 1e9 + number, [("start up", number / 10)])
    past.deployed("blog", "reload", 1e9, 1.5)
    kept = past.Pasts(str(state))
    for number in range(400):
        kept.write("blog", slow_one(number, 60.0 if number == 7 else 2.0))
    assert file_of(state).stat().st_size <= 16 * 1024
    found = of(state)
    assert [one["at"] for one in found.starts] == [1e9 + number for number in range(past.STARTS + 2, 2, -1)]
    assert [one["cause"] for one in found.deploys] == ["reload"]
    assert [one["path"] for one in found.slow[:3]] == ["/399", "/398", "/397"]
    assert "/7" in [one["path"] for one in found.slow]
    assert not list(file_of(state).parent.glob(".*"))


def test_the_longest_lines_of_all_kinds_fit(state: Path) -> None:
    bad = "\N{SNOWMAN}\x1b</script>" * 500
    for number in range(40):
        past.started("blog", "recycle", 1e9, [(f"step {step}", 1.23456) for step in range(40)], way=bad, failure=bad)
        past.deployed("blog", "restart", 1e9, 123.456, failure=bad, incident="0123abcd")
        past.Pasts(str(state)).write("blog", {**slow_one(number, 1.0), "path": bad, "method": bad})
    assert file_of(state).stat().st_size <= 16 * 1024
    found = of(state)
    assert (len(found.starts), len(found.deploys)) == (past.STARTS, past.DEPLOYS)
    assert len(found.slow) == past.SLOWEST + past.LATEST


def test_a_slow_request_has_no_query_and_only_so_many_are_written_at_a_time(state: Path) -> None:
    for _ in range(past.BURST + 30):
        past.was_slow("blog", "GET", "/ä?token=secret", 200, 2.0, (0.1, None, 1.9))
    assert "secret" not in file_of(state).read_text()
    found = of(state).slow
    assert len(found) in range(past.BURST, past.BURST + 5)
    assert (found[0]["path"], found[0]["seconds"]) == ("/%C3%A4", 2.0)
    assert found[0]["split"] == {"queued": 0.1, "relay": None, "app": 1.9}


def test_several_workers_that_take_the_same_version_are_one_deploy(state: Path) -> None:
    for worker in (11, 12, 13):
        past.deployed("blog", "reload", 1e9 + worker, 0.1, worker=worker)
    past.deployed("blog", "reload", 1e9 + 20, 0.1, worker=11)
    for number in range(2):
        past.deployed("shop", "restart", 1e9 + number, 0.1)
    assert len(of(state).deploys) == 2
    assert len(of(state, "shop").deploys) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00\n{",
        b"[]\n3\n{}\nnull\n",
        b'{"start":{},"steps":[[1],"x",["a",true]]}\n',
        b'{"slow":Infinity,"status":1e999,"split":[NaN,-Infinity,1]}\n',
        b'{"start":"cold","steps":[["a",1%s]]}\n' % (b"0" * 400),
        b"[" * 9000 + b"\n",
    ],
)
def test_a_file_that_makes_no_sense_is_no_error(state: Path, content: bytes) -> None:
    past.started("blog", "warm", 1e9, [])
    with file_of(state).open("ab") as file:
        file.write(content)
    past.deployed("blog", "reload", 1e9, 1.0)
    found = of(state)
    assert json.dumps(found.as_dict(), allow_nan=False)
    assert len(found.deploys) == 1
    assert found.starts[0]["kind"] == "warm"


def test_many_writers_lose_no_line_when_the_file_is_replaced(state: Path) -> None:
    past.started("blog", "warm", 1.0, [])
    program = (
        "import sys; from multisite.logs import past; past.begin(sys.argv[1])\n"
        "for number in range(60): past.started('blog', 'warm', 1e9 + number, [('x' * 100, 0.1)] * 2, way='w' * 100)\n"
        "past.deployed('blog', sys.argv[2], 2e9, 1.0)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(state), f"cause {number}"], env=os.environ)
        for number in range(4)
    ]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert sorted(one["cause"] for one in of(state).deploys) == [f"cause {number}" for number in range(4)]


def test_a_line_that_waited_goes_into_the_file_that_took_the_place_of_the_old_one(state: Path) -> None:
    past.started("blog", "warm", 1.0, [])
    program = "import sys; from multisite.logs import past; past.begin(sys.argv[1])\n"
    program += "past.deployed('blog', 'reload', 2e9, 1.0)"
    with file_of(state).open("rb") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        waiting = f"{os.fstat(old.fileno()).st_ino} "
        writer = subprocess.Popen([sys.executable, "-c", program, str(state)], env=os.environ)
        locks = Path("/proc/locks")
        wait_until(lambda: any("->" in line and waiting in line for line in locks.read_text().splitlines()))
        new = file_of(state).with_name("new")
        new.write_bytes(old.read())
        new.replace(file_of(state))
    assert writer.wait() == 0
    assert [one["cause"] for one in of(state).deploys] == ["reload"]


def test_a_folder_that_cannot_be_made_costs_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").write_text("a file")
    monkeypatch.setattr(past, "_current", None)
    past.started("blog", "cold", 1e9, [])  # nobody has begun
    past.begin(str(tmp_path / "state"))
    past.started("blog", "cold", 1e9, [])
    assert of(tmp_path / "state") == past.Past()
