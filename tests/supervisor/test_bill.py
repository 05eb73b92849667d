"""What is used is billed once, on its day, to the site that has used it, whatever becomes of the supervisor."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from multisite.config.model import Home
from multisite.config.read import read_home
from multisite.sites.spending import Days, Rows, Spending, added
from multisite.sites.statefile import StateFile
from multisite.sites.tally import Tally
from multisite.sites.usage import FOLDER, Usage
from multisite.supervisor.bill import Bill, Sizes
from multisite.supervisor.process import kernel

from .harness import SupervisedHome, supervised, wait_until

MIDNIGHT = 1_796_083_200.0  # 2026-12-01, UTC

BURNER = """
import time

def application(environ, start_response):
    until = time.process_time() + float(environ["PATH_INFO"][1:])
    while time.process_time() < until:
        pass
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "moya.conf").write_text("[service]\nstate_dir = state\nruntime_dir = run\n")
    return read_home(str(tmp_path))


def bill_of(home: Home, before: Mapping[str, Tally] | None = None) -> Bill:
    return Bill(home, os.path.join(home.runtime_dir, "usage"), before or {})


def billed(home: Home) -> Rows:
    days = Days(home)
    return added(days.read(day)[0] for day in days.all())


def used(cpu: float = 0.0, requests: int = 0, starts: int = 1) -> Tally:
    return Tally(starts=starts, cpu=cpu, requests=requests, received=10 * requests, sent=100 * requests)


def test_only_what_is_new_is_billed(home: Home) -> None:
    bill = bill_of(home, {"blog": used(100.0, 1000, 50)})
    bill.write({"blog": used(101.5, 1003, 51), "shop": used(2.0, 1)}, 0.0)
    assert billed(home) == {"blog": Spending(1.5, 0, 3, 30, 300, 1), "shop": Spending(2.0, 0, 1, 10, 100, 1)}
    bill.write({"blog": used(101.5, 1003, 51), "shop": used(2.5, 2)}, 30.0)
    assert billed(home)["shop"] == Spending(2.5, 0, 2, 20, 200, 1)


def test_each_day_has_its_own(home: Home) -> None:
    bill = bill_of(home)
    bill.write({"blog": used(1.0)}, 0.0, MIDNIGHT - 60)
    bill.write({"blog": used(3.0)}, 30.0, MIDNIGHT + 60)
    bill.write({"blog": used(7.0)}, 60.0, MIDNIGHT - 60)  # the clock was set back
    days = Days(home)
    assert {day: days.read(day)[0]["blog"].cpu for day in days.all()} == {"2026-11-30": 1.0, "2026-12-01": 6.0}
    assert [bool(days.read(day)[1]) for day in days.all()] == [False, True]


def test_a_day_of_the_past_is_removed_in_time(home: Home) -> None:
    bill = bill_of(home)
    bill.write({"blog": used(1.0)}, 0.0, MIDNIGHT - 401 * 86400)
    bill.write({"blog": used(2.0)}, 1.0, MIDNIGHT - 86400)
    bill.write({"blog": used(3.0)}, 2.0, MIDNIGHT)
    assert Days(home).all() == ["2026-11-30", "2026-12-01"]


def test_an_idle_home_writes_nothing(home: Home) -> None:
    bill = bill_of(home)
    bill.write({"blog": used(1.0)}, 0.0, MIDNIGHT)
    written = _stamps(home)
    bill.write({"blog": used(1.0)}, 30.0, MIDNIGHT + 30)
    assert _stamps(home) == written


def _stamps(home: Home) -> dict[str, Any]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in Path(home.state_dir).rglob("*.json")}


def test_a_successor_goes_on_where_its_predecessor_was(home: Home) -> None:
    bill = bill_of(home)
    bill.write({"blog": used(5.0, 5)}, 0.0)
    after_an_upgrade = bill_of(home)  # whose file of tallies is older
    after_an_upgrade.take_over(bill.pack(lambda descriptor: descriptor))  # type: ignore[arg-type]
    after_an_upgrade.write({"blog": used(6.0, 6)}, 30.0)
    assert billed(home)["blog"].cpu == 6.0
    after_a_kill = bill_of(home, {"blog": used(5.5, 5)})  # as the file of tallies had it
    after_a_kill.write({"blog": used(6.5, 6)}, 60.0)
    assert billed(home)["blog"].cpu == 7.0


def test_the_sums_agree_with_the_kernels(tmp_path: Path) -> None:
    """To 5 per cent, and they outlive a supervisor that is killed but for what it had not written."""
    with supervised(tmp_path) as home:
        home.app("burner", BURNER)
        home.app("idler", BURNER)
        home.get("burner", "/1.5")
        home.get("idler", "/0")
        kernels = _seconds(home)
        os.kill(home.pid, signal.SIGTERM)
        wait_until(lambda: not home.left())
        found = wait_until(lambda: billed(home.home) if _is_over(home) else {})
        assert found["burner"].cpu == pytest.approx(kernels["burner"], rel=0.05)
        assert found["idler"].cpu < 0.5
        assert found["burner"].requests == found["burner"].starts == 1
        home.get("burner", "/0.5")
        again = _seconds(home)["burner"]
        os.kill(home.pid, signal.SIGTERM)
        wait_until(lambda: _is_over(home))
        assert billed(home.home)["burner"].cpu == pytest.approx(kernels["burner"] + again, rel=0.05)


def _seconds(home: SupervisedHome) -> dict[str, float]:
    sites = home.status()["sites"]
    return {name: sum(map(kernel.cpu, sites[name]["pids"])) for name in sites}


def _is_over(home: SupervisedHome) -> bool:
    return not any(map(home._is_ours, home.supervisors))


def test_memory_is_billed_for_the_time_it_is_used(home: Home) -> None:
    bill = bill_of(home)
    bill._sizes.measure({os.getpid(): "blog"}, 1.0)
    bill.write({"blog": Tally(starts=1, alive=10.0)}, 10.0)
    bill.write({"blog": Tally(starts=1, alive=25.0)}, 25.0)
    size = sum(map(kernel.memory, kernel.family(os.getpid()))) / 2**20
    assert billed(home)["blog"].memory == pytest.approx(25.0 * size, rel=0.05)


def test_the_memory_of_a_worker_is_divided_by_what_imports_have_added(home: Home) -> None:
    os.makedirs(home.runtime_dir, exist_ok=True)
    bill, worker = bill_of(home), Usage(os.path.join(home.runtime_dir, "usage"), StateFile(home, FOLDER))
    worker.of("large").imported(3000)
    worker.of("small").imported(1000)
    worker.of("relayed").imported(0)
    bill.write({}, 10.0)
    size = bill._sizes.weigh(os.getpid(), 10.0)
    assert bill.in_workers == {"large": pytest.approx(size * 3 / 4), "small": pytest.approx(size / 4)}
    bill.write({}, 20.0)
    assert billed(home)["small"].memory == pytest.approx(size / 4 * 10 / 2**20, rel=0.01)


def test_measuring_memory_takes_turns() -> None:
    """However many processes there are; each has its turn."""
    sizes, pids = Sizes(), dict.fromkeys(kernel.pids()[:200], "blog")
    for now in range(1, 200):
        sizes.measure(pids, float(now))
        if len(sizes._sizes) == len(pids):
            break
    assert sizes.of("blog") >= 0
    assert all(pid in sizes._sizes for pid in pids)
