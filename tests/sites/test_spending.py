"""The documents of the bill: what is written is read again, bounded, and nothing else is believed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from multisite.config.model import Home
from multisite.config.read import read_home
from multisite.sites import spending
from multisite.sites.spending import Days, Spending

ONE = Spending(1.25, 30.5, 7, 100, 2000, 3)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "moya.conf").write_text("[service]\nstate_dir = state\n")
    return read_home(str(tmp_path))


def test_a_day_is_read_as_it_was_written(home: Home) -> None:
    days = Days(home)
    assert days.all() == []
    assert days.store("2026-11-29", {"blog": ONE, 'x"\n=1': ONE}, {"seen": {}})
    assert days.store("2026-11-28", {"blog": ONE})
    assert days.all() == ["2026-11-28", "2026-11-29"]
    assert days.read("2026-11-29") == ({"blog": ONE, 'x"\n=1': ONE}, {"seen": {}})
    assert days.read("2026-11-28") == ({"blog": ONE}, {})
    assert days.read("2026-11-27") == ({}, {})


def test_documents_are_kept_for_400_days(home: Home) -> None:
    days = Days(home)
    for day in ("2025-10-24", "2025-10-25", "2026-11-29"):
        days.store(day, {"blog": ONE})
    days.forget("2026-11-29")
    assert days.all() == ["2025-10-25", "2026-11-29"]


def test_what_anybody_else_may_write_is_not_believed(home: Home) -> None:
    days = Days(home)
    days.store("2026-11-29", {"blog": ONE})
    (path,) = Path(home.state_dir).glob("bill-*/2026-11-29.json")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    os.chmod(path, 0o622)
    assert days.read("2026-11-29") == ({}, {})


@pytest.mark.parametrize("text", ["", "[]", '{"sites": 1}', '{"sites": {"a": [1, 2], "b": "x"}}', '{"sites": '])
def test_a_document_that_is_damaged_has_nothing(home: Home, text: str) -> None:
    days = Days(home)
    days.store("2026-11-29", {})
    (path,) = Path(home.state_dir).glob("bill-*/*.json")
    path.write_text(text)
    assert days.read("2026-11-29")[0] == {}


def test_two_thousand_sites_for_400_days_have_room(home: Home) -> None:
    """As they are all used on every day."""
    used = Spending(123.456, 98765.4, 123456, 12345678, 1234567890, 12)
    days = Days(home)
    days.store("2026-11-29", {f"site-number-{number}": used for number in range(2000)})
    (path,) = Path(home.state_dir).glob("bill-*/*.json")
    assert path.stat().st_size * spending.KEPT_DAYS < 64 * 2**20


def test_of_too_many_sites_the_smallest_are_added_up() -> None:
    rows = {f"site{number}": Spending(float(number), requests=1) for number in range(spending.MOST + 10)}
    kept = spending.bounded(rows)
    assert len(kept) == spending.MOST
    assert kept[spending.OTHERS].requests == 11
    assert sum(one.cpu for one in kept.values()) == sum(one.cpu for one in rows.values())
    assert f"site{spending.MOST + 9}" in kept
    assert len(spending.bounded({**kept, "more": ONE})) == spending.MOST


def test_a_counter_that_fell_counts_nothing() -> None:
    before = Spending(5.0, 1.0, 10, 0, 0, 4)
    assert Spending(3.0, 2.0, 12, 0, 0, 0).since(before) == Spending(0, 1.0, 2, 0, 0, 0)
    assert json.loads(json.dumps(list(ONE))) == list(ONE)
