"""Incidents are read while others write: what several processes noted of one is joined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from multisite.config.model import Home, ServiceOptions
from multisite.logs.incidents import ENDING, FOLDER
from multisite.logs.keptfiles import file_name
from multisite.status.incidents import find, latest


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "state" / FOLDER).mkdir(parents=True)
    return Home(str(tmp_path), str(tmp_path / "moya.conf"), service=ServiceOptions(state_dir=str(tmp_path / "state")))


def write(home: Home, site: str, *records: dict[str, Any], older: str = "") -> Path:
    path = Path(home.state_dir, FOLDER, file_name(site, ENDING) + older)
    path.write_text("".join(f"\n{json.dumps({'site': site, **record})}\n" for record in records))
    return path


def test_what_workers_and_supervisor_noted_is_one_incident(home: Home) -> None:
    asked = {"method": "GET", "host": "blog.test", "path": "/a"}
    write(home, "blog", {"at": 2.0, "incident": "aaaaaaaa", "cause": "it was killed", "output": ["bye"]})
    write(home, "", {"at": 1.0, "incident": "aaaaaaaa", "request": asked}, {"at": 1.0, "incident": "bbbbbbbb"})
    found = find(home, "aaaaaaaa")
    assert found and (found.at, found.site, found.cause) == (1.0, "blog", "it was killed")
    assert (found.request, found.output) == (asked, ["bye"])


def test_another_site_cannot_add_to_an_incident_whose_id_it_has_seen(home: Home) -> None:
    write(home, "blog", {"at": 1.0, "incident": "aaaaaaaa", "request": {"path": "/a"}})
    write(home, "evil", {"at": 2.0, "incident": "aaaaaaaa", "cause": "call me", "traceback": ["no"]})
    found = find(home, "aaaaaaaa")
    assert found and (found.site, found.cause, found.traceback) == ("blog", "", [])


def test_what_was_done_since_is_told_once_and_nothing_from_before(home: Home) -> None:
    deeds = [
        {"at": at, "did": did} for at, did in ((1, "deployed"), (3, "restarted"), (3.5, "restarted"), (9, "failed"))
    ]
    write(home, "blog", {"at": 2.0, "incident": "aaaaaaaa", "cause": "x"}, *deeds, {"at": 100, "did": "restarted"})
    write(home, "shop", {"at": 2.0, "incident": "bbbbbbbb", "cause": "x"}, {"at": 4.0, "did": "deployed"})
    found = find(home, "aaaaaaaa")
    assert found and [(one["at"], one["did"]) for one in found.since] == [
        (3.0, "restarted"),
        (9.0, "failed"),
        (100.0, "restarted"),
    ]


def test_the_last_ones_come_first_of_one_site_or_of_all(home: Home) -> None:
    write(home, "blog", *({"at": at, "incident": f"{at:08x}", "cause": "x"} for at in range(5)), older=".1")
    write(home, "blog", *({"at": at, "incident": f"{at:08x}", "cause": "x"} for at in range(5, 8)))
    write(home, "shop", {"at": 6.5, "incident": "aaaaaaaa", "cause": "x"})
    assert [one.at for one in latest(home, 4)] == [7.0, 6.5, 6.0, 5.0]
    assert [one.at for one in latest(home, 9, "shop")] == [6.5]
    assert len(latest(home, 100)) == 9


def test_lines_without_sense_are_left_out(home: Home) -> None:
    path = write(
        home, "blog", {"at": "x", "incident": "aaaaaaaa", "cause": ["no text"], "traceback": "x", "request": 3}
    )
    path.write_bytes(
        path.read_bytes() + b'\n{"incident":"bbbbbbbb","ca\n[1]\n\xff\xfe\nnull\n' + path.read_bytes()[:20]
    )
    Path(home.state_dir, FOLDER, "link.jsonl").symlink_to("/etc/passwd")
    found = find(home, "aaaaaaaa")
    assert found and (found.at, found.cause, found.traceback, found.request) == (0.0, "", [], {})
    assert find(home, "bbbbbbbb") is None
    assert [one.incident for one in latest(home)] == ["aaaaaaaa"]
    assert json.dumps(found.as_dict())


def test_a_home_without_incidents_has_none(tmp_path: Path) -> None:
    home = Home(str(tmp_path), service=ServiceOptions(state_dir=str(tmp_path / "none")))
    assert latest(home) == [] and find(home, "aaaaaaaa") is None
