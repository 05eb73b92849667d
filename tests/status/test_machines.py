"""The document of a cluster, from what machines announced."""

from __future__ import annotations

import json
from typing import Any

import pytest

from multisite.cli.top.feed import cluster_rows
from multisite.cli.top.trends import Trends
from multisite.cli.top.view import TopView
from multisite.status.machines import age_of, headline, machines
from multisite.status.needs import needs
from multisite.status.summary import duration

FIGURES = {
    "sites": 3,
    "processes": 2,
    "load": 0.5,
    "awake": {"blog": ["running", 2, 17, 1]},
    "incidents": [["shop", "3fa9c1d2", 1700000000.0, "it does not start"]],
}
TOLD: dict[str, Any] = {
    "url": "redis://10.0.0.1",
    "state": "connected",
    "reason": "",
    "since": 1700000000.0,
    "node": "b:1",
    "entries": {
        "node": {
            "b:1": {"host": "web2", "pid": 2, "draining": 1700000050.0},
            "a:1": {"host": "web1", "pid": 1, "since": 1700000000.0},
        },
        "figures": {"a:1": FIGURES, "c:1": FIGURES},
    },
}


def test_each_machine_has_a_row_and_each_site_one_for_each_machine() -> None:
    found = machines(TOLD)
    assert [(row["node"], row["host"], row["sites"], row["awake"], row["draining"]) for row in found["nodes"]] == [
        ("a:1", "web1", 3, 1, None),
        ("b:1", "web2", 0, 0, 1700000050.0),
    ]
    assert found["sites"] == [
        {"name": "blog", "node": "a:1", "state": "running", "processes": 2, "requests": 17, "in_flight": 1}
    ]
    assert [(row["name"], row["node"], row["incident"]) for row in found["incidents"]] == [("shop", "a:1", "3fa9c1d2")]


def test_whatever_others_write_is_shown_without_harm() -> None:
    entries = {
        "node": {"a:1": [], "b:1": {"since": "x", "host": 5}},
        "figures": {"b:1": {"awake": {"x": 1, "y": ["a", {}, None, 1]}, "incidents": [[], 7], "load": "high"}},
    }
    found = machines({**TOLD, "entries": entries})
    assert [row["node"] for row in found["nodes"]] == ["b:1"]
    assert [(row["name"], row["processes"]) for row in found["sites"]] == [("y", 0)]
    assert found["incidents"] == []


@pytest.mark.parametrize("number", ["-Infinity", "NaN", "1" + "0" * 400, "-1e999", "true"])
def test_numbers_that_nothing_can_be_computed_with_are_none(number: str) -> None:
    entries = json.loads(f'{{"node": {{"b:1": {{"since": {number}}}}}, "figures": {{"b:1": {{"load": {number}}}}}}}')
    found = machines({**TOLD, "entries": entries})
    (row,) = found["nodes"]
    assert duration(age_of(row["since"]))
    assert row["load"] in (0, 1)
    json.dumps(found, allow_nan=False)


def test_the_headline_says_what_follows() -> None:
    registry = machines(TOLD)["registry"]
    assert headline(registry, "5m") == "registry redis://10.0.0.1 connected for 5m"
    away = {**registry, "state": "away", "reason": "refused"}
    assert headline(away, "2s").endswith("away for 2s: refused; what was last known of the other machines counts")
    assert headline({**registry, "state": "connecting"}, "2s") == "registry redis://10.0.0.1 connecting"


def test_top_has_a_row_for_each_site_and_machine() -> None:
    view = TopView(Trends(), sites=cluster_rows(machines(TOLD)))
    text = "\n".join(line.plain for line in view.draw(120, 10))
    assert "blog a:1" in text
    assert "shop a:1" in text
    assert "cannot start" in [need.kind for site in view.sites for need in needs(site)]
