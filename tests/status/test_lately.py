"""What a site did lately, read from a real history."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from multisite.sites.history import History, Sample
from multisite.status.lately import note, of
from multisite.status.needs import needs

NOW = 1_800_000_000.0


def row(path: Path, **more: Any) -> dict[str, Any]:
    site = {"name": "blog", "enabled": True, "state": "running", "failure": None, "problems": []}
    return {**site, "history_file": str(path), "last_use": NOW - 1, **more}


def kept(path: Path, latency: float) -> Path:
    history = History(str(path))
    for second in (-1800, -50, -40, -30, 0):
        history.add(NOW + second, Sample(requests=2, errors=1, latency=latency))
    history.close()
    return path


def test_requests_of_a_minute_and_errors_of_an_hour_are_summed(tmp_path: Path) -> None:
    rows = [row(kept(tmp_path / "a", 0.01)), row(kept(tmp_path / "b", 0.01)), row(tmp_path / "none")]
    assert note(rows, NOW) == (16.0, 10)
    assert needs(rows[0]) == []


def test_a_site_that_is_usually_slow_needs_somebody(tmp_path: Path) -> None:
    site = row(kept(tmp_path / "a", 3.0))
    note([site], NOW)
    (need,) = needs(site)
    assert need.kind == "slow" and re.search(r"up to (2.9|3.[01]) seconds", need.cause)


def test_what_was_not_used_is_not_read(tmp_path: Path) -> None:
    assert of(row(kept(tmp_path / "a", 3.0), last_use=NOW - 4000), NOW) is None
    assert note([{"history_file": None}], NOW) == (None, None)
