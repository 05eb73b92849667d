"""Which sites need somebody, in which order, and which command helps."""

from __future__ import annotations

from typing import Any

import pytest

from multisite.status.needs import KINDS, needs, of_all, ordered

FAILURE = {"failure": "it ended at once", "incident": "9", "serving": False, "remedy": "", "steps": [], "output": []}
PROBLEM = {"reason": "unknown key", "key": "comand", "value": "x", "remedy": "", "severity": "error"}
OF_A_SITE: dict[str, dict[str, Any]] = {
    "cannot start": {"state": "backoff", "failure": FAILURE, "waiting": 3},
    "old version serves": {"state": "running", "failure": {**FAILURE, "serving": True}},
    "requests fail": {"state": "proxy", "failure": {**FAILURE, "failure": "http://127.0.0.1:9: refused"}},
    "waiting": {"state": "running", "waiting": 2},
    "slow": {"state": "running", "requests_in_flight": [{"method": "GET", "path": "/a", "age": 61.0}]},
    "over budget": {"state": "running", "failure": {**FAILURE, "failure": "700 MiB, more than memory_limit = 600M"}},
}


def row(name: str, **more: Any) -> dict[str, Any]:
    site = {"name": name, "enabled": True, "state": "stopped", "reason": "", "failure": None, "problems": []}
    return {**site, "memory": None, "cpu": None, "requests": 0, "waiting": None, **more}


@pytest.mark.parametrize("kind", OF_A_SITE)
def test_each_trouble_has_a_cause_and_a_remedy(kind: str) -> None:
    (need, *_) = needs(row("my blog", **OF_A_SITE[kind]))
    assert (need.kind, need.name) == (kind, "my blog")
    assert need.cause and "'my blog'" in need.remedy, "the command quotes the name"
    assert need.incident == ("9" if OF_A_SITE[kind].get("failure") else "")


def test_all_kinds_are_known() -> None:
    assert tuple(OF_A_SITE) == KINDS


def test_rows_come_in_the_order_of_need_and_then_by_cost() -> None:
    calm = [row("cheap", memory=2**20), row("dear", memory=2**30), row("busy", requests=5), row("idle")]
    rows = [*calm, *(row(kind, **fields) for kind, fields in reversed(OF_A_SITE.items()))]
    assert [one["name"] for one in ordered(rows)] == [*KINDS, "dear", "cheap", "busy", "idle"]
    assert [need.kind for need in of_all({"sites": rows})] == list(KINDS)


def test_a_wrong_file_is_told_with_its_key_and_the_number_of_its_problems() -> None:
    one = {**PROBLEM, "severity": "warning", "reason": "a warning"}
    (need,) = needs(row("blog", state="broken", problems=[one, PROBLEM, PROBLEM]))
    assert need.cause == "comand = x: unknown key (and 1 more)"
    assert need.remedy == "multisite check blog"


def test_what_is_not_enabled_needs_nobody() -> None:
    assert needs(row("blog", enabled=False, state="broken", failure=FAILURE)) == []
