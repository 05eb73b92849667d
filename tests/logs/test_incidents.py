"""Incidents are kept in the state directory: a line for each, bounded, no site at another's cost."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from multisite.errors import BackendUnavailable, pages
from multisite.logs import incidents
from multisite.logs.keptfiles import file_name

ENVIRON = {"REQUEST_METHOD": "POST", "HTTP_HOST": "blog.test", "PATH_INFO": "/pay", "QUERY_STRING": "card=1234"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(incidents, "_current", None)
    monkeypatch.setattr(pages, "shown", None)
    incidents.begin(str(tmp_path / "state"))
    return tmp_path / "state" / incidents.FOLDER


def records(folder: Path, site: str = "blog", older: str = "") -> list[dict[str, Any]]:
    text = (folder / (file_name(site, incidents.ENDING) + older)).read_text()
    return [json.loads(line) for line in text.splitlines() if line]


def raised(text: str = "broken") -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_a_failure_is_one_line_that_has_no_query_and_that_only_the_service_reads(folder: Path) -> None:
    incidents.log_failure("MS324", "blog", "3fa9c1d2", "the application failed", raised(), ENVIRON)
    incidents.log_failure("MS324", "blog", "3fa9c1d2", "the application failed", raised(), ENVIRON)
    (record,) = records(folder)
    assert record["request"] == {"method": "POST", "host": "blog.test", "path": "/pay"}
    assert record["cause"] == "the application failed: ValueError: broken"
    assert record["traceback"][-1] == "ValueError: broken" and record["remedy"]
    assert "1234" not in json.dumps(record)
    assert stat.S_IMODE((folder / "blog.jsonl").stat().st_mode) == 0o640
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_page_tells_the_request_of_a_failure_that_was_noted_without(folder: Path) -> None:
    incidents.keep("3fa9c1d2", "blog", "it cannot start")
    page = pages.error_page(503, incident="3fa9c1d2")
    for _ in range(3):
        b"".join(page(dict(ENVIRON), lambda *_: None))  # type: ignore[arg-type]
    first, second = records(folder)
    assert (first["cause"], second["request"]["path"]) == ("it cannot start", "/pay")


def test_the_same_failure_is_the_same_incident_for_a_moment_and_another_is_another(folder: Path) -> None:
    def fails(path: str) -> str:
        return incidents.named("blog", raised(path), {**ENVIRON, "PATH_INFO": path})

    first = fails("/a")
    assert fails("/a") == first != fails("/b")
    assert incidents.named("shop", raised(), ENVIRON) != first


def test_a_site_that_fails_with_each_request_costs_a_line_a_second(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its pages has an incident that is known all the same."""
    now = [1000.0]
    monkeypatch.setattr(incidents.time, "monotonic", lambda: now[0])
    shown = set()
    for request in range(5000):
        now[0] += 0.01
        environ = {**ENVIRON, "PATH_INFO": f"/{request}"}
        error = raised()
        name = incidents.named("blog", error, environ)
        incidents.keep(name, "blog", "it failed", error=error, environ=environ)
        shown.add(name)
    kept = records(folder)
    assert len(kept) <= 50 + incidents.BURST
    assert {record["incident"] for record in kept} == shown


def test_a_noisy_site_pushes_out_none_but_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incidents, "LARGEST", 5000)
    incidents.keep("00000000", "quiet", "once")
    for number in range(1, 500):
        incidents.keep(f"{number:08x}", "noisy", "x" * 500)
    assert [record["incident"] for record in records(folder, "quiet")] == ["00000000"]
    assert {path.name for path in folder.iterdir()} == {"quiet.jsonl", "noisy.jsonl", "noisy.jsonl.1"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 5000


def test_there_are_not_more_files_than_a_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incidents, "MOST_FILES", 5)
    monkeypatch.setattr(incidents, "_current", incidents.Incidents(str(folder.parent)))
    for number in range(12):
        incidents.keep(f"{number:08x}", f"site{number}", "it failed")
        os.utime(folder / f"site{number}.jsonl", (number + 1, number + 1))
    assert sorted(path.name for path in folder.iterdir()) == [f"site{number}.jsonl" for number in (10, 11, 7, 8, 9)]


def test_what_was_done_is_noted_of_sites_that_have_failed_alone(folder: Path) -> None:
    incidents.did("blog", incidents.DEPLOYED)
    assert not folder.exists()
    incidents.keep("3fa9c1d2", "blog", "it failed")
    incidents.did("blog", incidents.RECOVERED, "a process is ready")
    assert records(folder)[1]["did"] == "recovered"


def test_hostile_text_stays_in_its_line(folder: Path) -> None:
    environ = {
        **ENVIRON,
        "PATH_INFO": "/\n\x1b[2J" + "é" * 5000,
        "HTTP_HOST": "x\n" * 1000,
        "REQUEST_METHOD": "G" * 999,
    }
    incidents.keep("3fa9c1d2", "../../x\n", "a\n\x1b]0;owned\x07" * 1000, error=raised("\n\0" * 9999), environ=environ)
    assert [path.name for path in folder.iterdir()] == [file_name("../../x\n", incidents.ENDING)]
    (record,) = records(folder, "../../x\n")
    assert len(json.dumps(record)) < 20_000
    assert re.fullmatch("[!-~]*", record["request"]["path"])


def test_a_process_can_tell_anything_but_not_for_long(folder: Path) -> None:
    """Its line stays a line, and a second has room for so many."""
    said = [
        "3fa9c1d2",
        "GET\n",
        "blog.test",
        "/a\r\n\x1b[2J",
        "ValueError: \n{}",
        "Traceback\n\x00" + "x" * 9999 + "\nend",
    ]
    for text in ("", "[", "[1]", "{}", "[" * 100_000, json.dumps(["../../x", *said[1:]]), json.dumps(said[:-1])):
        incidents.told("blog", text)
    assert not folder.exists()
    incidents.told("blog", json.dumps(said))
    (record,) = records(folder)
    assert record["incident"] == "3fa9c1d2" and record["request"]["path"] == "/a%0D%0A%1B%5B2J"
    assert record["cause"].startswith("the application failed: ValueError") and record["traceback"] == ["end"]
    for number in range(4 * incidents.MOST_TOLD):
        incidents.told("shop", json.dumps([f"{number:08x}", *said[1:]]))
    assert incidents.MOST_TOLD <= len(records(folder, "shop")) < 4 * incidents.MOST_TOLD


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_line(tmp_path: Path, folder: Path) -> None:
    folder.parent.write_text("no directory")
    incidents.keep("3fa9c1d2", "blog", "it failed")
    incidents.shown("3fa9c1d2", ENVIRON)
    incidents.did("blog", incidents.DEPLOYED)


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incidents, "_current", None)
    assert incidents.is_incident(incidents.named("blog", raised(), ENVIRON))
    incidents.keep("3fa9c1d2", "blog", "it failed")


def test_sites_and_reasons_are_told_apart_where_one_line_raises_for_all(folder: Path) -> None:
    def refused(reason: str) -> BackendUnavailable:
        try:
            raise BackendUnavailable(reason)
        except BackendUnavailable as error:
            return error

    named = {incidents.named(site, refused(reason)) for site in ("blog", "shop") for reason in ("full", "late", "full")}
    assert len(named) == 4
