"""`multisite bill`: sums, months, names, and spreadsheets that are not tricked."""

from __future__ import annotations

import csv
import io
import json
import pathlib
import time

import pytest
from click.testing import CliRunner, Result

from multisite.cli import main
from multisite.cli.bill import harmless
from multisite.config.read import read_home
from multisite.sites.spending import Days, Spending, day_of
from tests.homes import TestHome

TODAY, LONG_AGO = day_of(time.time()), "2025-12-31"
EVIL = '=HYPERLINK("http://evil.test")'


@pytest.fixture
def home(tmp_path: pathlib.Path) -> TestHome:
    found = TestHome(tmp_path)
    found.hello("blog")
    found.hello("shop")
    days = Days(read_home(str(tmp_path)))
    days.store(LONG_AGO, {"blog": Spending(100.0, 1.0, 9, 9, 9, 9)})
    rows = {
        "blog": Spending(2.5, 3600.0 * 1024, 10, 2048, 3 * 2**20, 1),
        "shop": Spending(7200.0, 10.0, 5, 0, 0, 2),
        "gone": Spending(1.0, 0.0, 1, 0, 0, 0),
        "users..ann.example.net": Spending(1.0, 0.0, 1, 0, 0, 0),
        EVIL: Spending(0.5, 0.0, 1, 0, 0, 0),
    }
    days.store(TODAY, rows)
    return found


def run(home: TestHome, *words: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home.path), "bill", *words])


def names(home: TestHome, *words: str) -> list[str]:
    done = run(home, "--json", *words)
    assert done.exit_code == 0, done.output
    return [site["name"] for site in json.loads(done.stdout)["sites"]]


def test_the_table_has_sums(home: TestHome) -> None:
    lines = run(home).stdout.splitlines()
    assert lines[0].split() == ["name", "cpu", "memory", "requests", "received", "sent", "starts"]
    assert lines[2].split() == ["shop", "2.0", "h", "0.00", "GiB", "h", "5", "0", "B", "0", "B", "2"]
    assert lines[-2].split() == ["total", "2.0", "h", "1.00", "GiB", "h", "18", "2.0", "KiB", "3.0", "MiB", "3"]
    assert lines[-1].endswith(f"to {TODAY} (UTC)")


def test_json_has_the_days(home: TestHome) -> None:
    told = json.loads(run(home, "blog", "--json").stdout)
    (blog,) = told["sites"]
    figures = {"cpu": 2.5, "memory": 3686400.0, "requests": 10, "received": 2048, "sent": 3 * 2**20, "starts": 1}
    assert blog == {"name": "blog", **figures, "days": [{"day": TODAY, **figures}]}
    assert told["total"] == figures


def test_sites_are_chosen_as_everywhere(home: TestHome) -> None:
    assert names(home, "blog") == names(home, "bl*") == ["blog"]
    assert names(home, "gone") == ["gone"], "a site that was removed"
    assert names(home, "users*") == ["users..ann.example.net"]
    assert len(names(home, "all")) == len(names(home)) == 5
    done = run(home, "blogg")
    assert done.exit_code == 1
    assert "did you mean" in done.stderr


def test_a_month_is_chosen(home: TestHome) -> None:
    assert names(home, "--month", "2025-12") == ["blog"]
    assert set(names(home, "--month")) == set(names(home))
    assert json.loads(run(home, "--json", "--month", "2024-02").stdout)["to"] == "2024-02-29"
    assert "nothing was used" in run(home, "--month", "2024-02").stderr
    for wrong in ("blog", "2026-13", "2026-1", "2026-11-01"):
        done = run(home, "--month", wrong)
        assert done.exit_code == 2
        assert "names of sites stand before it" in done.stderr


def test_cells_are_no_formulas(home: TestHome) -> None:
    done = run(home, "--csv")
    header, *rows = csv.reader(io.StringIO(done.stdout))
    assert header[:4] == ["day", "site", "cpu_seconds", "memory_mib_seconds"]
    assert [TODAY, f"'{EVIL}", "0.5", "0.0", "1", "0", "0", "0"] in rows
    assert len(rows) == 5
    for text in ("=1", "+1", "-1", "@x"):
        assert harmless(text) == f"'{text}"
    assert harmless("a\x1b[2J\r\n") == "a\\x1b[2J\\r\\n"
