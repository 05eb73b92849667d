"""A home in one line."""

from __future__ import annotations

from typing import Any

from multisite.status.summary import summed

SUPERVISOR = {"pid": 7, "version": "1.2", "uptime": 7300.0, "servers": [8], "backends": 3, "max_backends": 50}


def site(state: str, memory: int | None = None, enabled: bool = True) -> dict[str, Any]:
    return {"state": state, "enabled": enabled, "memory": memory}


def test_the_line_has_everything_that_is_known() -> None:
    sites = [
        site("running", 2**30),
        site("in-process"),
        site("broken"),
        site("running", 2**29),
        site("stopped", None, False),
    ]
    told = summed({"supervisor": SUPERVISOR, "sites": sites}, "/srv", 9, 2**31, 12.4, 1)
    assert str(told) == (
        "multisite 1.2, /srv, supervisor 7, up 2h, 1 server process; "
        "4 sites (1 broken, 2 running, 1 in-process), 1 not enabled; "
        "3 of 50 processes, 1.5 GiB of 2.0 GiB of memory; 12 requests a minute, 1 error in the last hour"
    )
    assert told.as_dict()["sites"] == {"broken": 1, "running": 2, "in-process": 1}


def test_what_is_not_known_is_left_out() -> None:
    told = str(summed({"supervisor": None, "sites": []}, "/srv", 9, None))
    assert told.endswith(", /srv; 0 sites")


def test_a_budget_that_is_used_up_is_named() -> None:
    told = summed({"supervisor": SUPERVISOR, "sites": [site("running", 2**31)]}, "/srv", 9, 2**30)
    assert "2.0 GiB of 1.0 GiB of memory, over its budget" in str(told)
